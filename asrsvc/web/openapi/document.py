"""The whole description, as `/openapi.json` has it (OpenAPI 3.1)."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asrsvc import __version__
from asrsvc.web import notices, pages
from asrsvc.web.openapi import operating, transcribing, working
from asrsvc.web.openapi.operations import KEY, Operation
from asrsvc.web.openapi.schemas import Schema, Schemas

_TEXT: Final = """Speech recognition on your own machine: text, language, emotion, audio events, times and
confidence of what is said in Chinese, Cantonese, English, Japanese and Korean.

Where the service has been given API keys, each request shows one: `Authorization: Bearer …`. Every answer has
an `X-Request-Id`, and none may be kept (`Cache-Control: no-store`). Errors have one shape, and name the
field, the value and the limit. An answer 429 or 503 says in `Retry-After` when the same request may succeed.
"""
_GROUPS: Final = {
    transcribing.GROUP: "A recording in, its text out.",
    transcribing.OPENAI: "For applications that were written for OpenAI's transcription API.",
    working.GROUP: "For recordings so long that nobody waits for them.",
    operating.HEALTH: "For load balancers and people who are on call.",
    operating.ADMIN: "At the ops listener, or with the admin's token.",
}
_ERROR: Final[Schema] = {
    "type": "object",
    "description": "What went wrong",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "for people: names field, value and limit"},
                "type": {"type": "string", "description": "family, as OpenAI calls it"},
                "param": {"type": ["string", "null"], "description": "the field that is wrong"},
                "code": {"type": "string", "description": "for programs; does not change"},
            },
        }
    },
}
_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {
        "description": "the client's own, if it is short and plain, else a new one",
        "schema": {"type": "string"},
    },
    "X-Model-Version": {
        "description": "the version that the worker has loaded; none: it has none",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}},
    "X-RateLimit-Limit": {
        "description": "requests a minute that this client may send",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-RateLimit-Remaining": {
        "description": "requests that it may send at once",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Reset": {
        "description": "seconds until it may send as many as ever",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-Warnings": {
        "description": "codes of the answer's warnings, with commas between; absent where there are none",
        "schema": {"type": "string"},
    },
    "Location": {"description": "where to look next", "schema": {"type": "string"}},
}


def document() -> dict[str, Any]:
    """The description."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in described(schemas):
        paths.setdefault(_path(operation.path), {})[operation.method] = operation.described()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asrsvc",
            "version": __version__,
            "summary": "Speech recognition with SenseVoice",
            "description": _TEXT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "this service"}],
        "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        "security": [{}, {KEY: []}],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas.found,
                "Error": _ERROR,
                "Health": operating.health(),
                "Job": working.job(schemas.of(notices.WarningBody)),
            },
            "headers": _HEADERS,
            "securitySchemes": {
                KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "an API key, if the service wants one",
                }
            },
        },
    }


def described(schemas: Schemas) -> list[Operation]:
    """Every operation, in the order in which people read them."""
    return [*transcribing.operations(schemas), *working.operations(schemas), *operating.operations()]


def _path(route: str) -> str:
    """A route's path as OpenAPI writes it: what a parameter may hold is said elsewhere."""
    return route.replace(":path}", "}")


@cache
def _content() -> pages.Content:
    text = json.dumps(document(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return pages.content(text.encode(), "application/json")


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`."""
    return pages.respond(request, await asyncio.to_thread(pages.once, _content))


def route() -> Route:
    """Served without a model, too."""
    return Route("/openapi.json", openapi, methods=["GET"])
