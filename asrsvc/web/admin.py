"""`/admin`: what an operator's program may ask for over HTTP. Changes are only begun here.

A change replaces the worker that was asked for it, so a process of its own does it, with the operator's
tool; the answer is 202 with an id, and every worker can tell how far it is.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from asrsvc.errors import (
    BadRequest,
    Cancelled,
    NotFound,
    NotPermitted,
    RequestTimeout,
    TooLarge,
    Unauthorised,
    UnsupportedMediaType,
)
from asrsvc.web import strict_json
from asrsvc.web.answers import JsonResponse
from asrsvc.web.strict_json import JsonError

_BODY_BYTES: Final = 16 * 1024
_BODY_SECONDS: Final = 10.0
LONGEST_WATCH_SECONDS: Final = 3600.0
UPDATE: Final[dict[str, type]] = {"version": str, "force": bool, "watch": float}
"""fields of a change to a version"""
ROLLBACK: Final[dict[str, type]] = {"version": str}
"""fields of a change to a version that has served"""
RELOAD: Final[dict[str, type]] = {}
MEANINGS: Final = {
    "version": "id of a version in the store, a beginning of one, or a name alone, of one version",
    "force": "ask for no trial and compare neither text nor speed",
    "watch": "seconds for which the new version is watched once it serves",
}
"""of the fields, for people"""
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Hands(Protocol):
    """What is done for a request; every method may wait for a disk."""

    def begin(self, command: Sequence[str], on_behalf_of: str) -> Any:
        """Start a command of swap-model; a dataclass with its `id`."""

    def operation(self, key: str) -> Any:
        """One operation, a dataclass."""

    def find_version(self, text: str) -> str:
        """The id of the one version that is called so, see `Versions.named_version`; NotFound otherwise."""

    def models(self) -> dict[str, Any]:
        """The versions of the store."""

    def status(self) -> dict[str, Any]:
        """What the master says."""


Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Admin:
    """The endpoints."""

    hands: Hands
    token: str
    """lets them be used at any listener; empty: at the ops listener alone"""
    ops_is_public: bool = False
    """whether other machines reach the ops listener: then it needs the token too, if there is one"""

    def routes(self) -> list[Route]:
        """To be put before any route that takes all paths."""
        return [
            self._route("/admin/model/update", "POST", self._update),
            self._route("/admin/model/reload", "POST", self._reload),
            self._route("/admin/model/rollback", "POST", self._rollback),
            self._route("/admin/models", "GET", self._models),
            self._route("/admin/status", "GET", self._status),
            self._route("/admin/operations/{key}", "GET", self._operation),
        ]

    def _route(self, path: str, method: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            # Before the method is looked at: who may not be here is told nothing.
            self._admit(request)
            if request.method != method:
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": method})
            return await endpoint(request)

        return Route(path, guarded, methods=[*_METHODS])

    def _admit(self, request: Request) -> None:
        """Let in who comes to the ops listener, or has the token.

        Raises:
            NotFound, Unauthorised, NotPermitted: one who may not be here.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = bool(self.token) and scheme.lower() == "bearer"
        if known and hmac.compare_digest(given.strip().encode(), self.token.encode()):
            return
        if not request.scope["state"].get("local") or (self.ops_is_public and self.token):
            if not self.token:
                raise NotFound(f"path {request.scope['path'][:100]!r} is not served here")
            raise Unauthorised("/admin wants Authorization: Bearer and the token of ASR_ADMIN_TOKEN")
        if "origin" in request.headers:
            # A page of another site can make a browser send a form to a port of this host.
            raise NotPermitted("a web page may not use /admin without the token of ASR_ADMIN_TOKEN")

    async def _update(self, request: Request) -> Response:
        body = await _read(request, UPDATE)
        if "version" not in body:
            raise BadRequest("field version is missing: the id of a version in the store", param="version")
        version = await asyncio.to_thread(self.hands.find_version, body["version"])
        command = ["activate", "--json", "--no-wait"]
        if body.get("force"):
            command.append("--force")
        if "watch" in body:
            command += ["--watch", f"{body['watch']:g}"]
        return await self._begin(request, [*command, "--", version])

    async def _rollback(self, request: Request) -> Response:
        body = await _read(request, ROLLBACK)
        command = ["rollback", "--json", "--no-wait"]
        if "version" in body:
            version = await asyncio.to_thread(self.hands.find_version, body["version"])
            command += ["--", version]
        return await self._begin(request, command)

    async def _reload(self, request: Request) -> Response:
        await _read(request, RELOAD)
        return await self._begin(request, ["reload", "--json"])

    async def _begin(self, request: Request, command: list[str]) -> Response:
        client = request.client.host if request.client is not None else "the ops listener"
        begun = await asyncio.to_thread(
            self.hands.begin, command, f"{client or 'the ops listener'}, by /admin"
        )
        where = f"/admin/operations/{begun.id}"
        return JsonResponse(
            {"operation": {"id": begun.id, "state": begun.state, "command": begun.command}, "watch": where},
            status_code=HTTPStatus.ACCEPTED,
            headers={"Location": where},
        )

    async def _operation(self, request: Request) -> Response:
        found = asdict(await asyncio.to_thread(self.hands.operation, request.path_params["key"]))
        return JsonResponse({key: found[key] for key in found if key not in {"pid", "start_ticks"}})

    async def _models(self, _request: Request) -> Response:
        return JsonResponse(await asyncio.to_thread(self.hands.models))

    async def _status(self, _request: Request) -> Response:
        return JsonResponse(await asyncio.to_thread(self.hands.status))


async def _read(request: Request, fields: dict[str, type]) -> dict[str, Any]:
    """The fields of a JSON object or a form; an empty body has none.

    Raises:
        BadRequest, TooLarge, UnsupportedMediaType, RequestTimeout: what is wrong with it.
    """
    content = await _body(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content:
        found: dict[str, Any] = {}
    elif kind == "application/json":
        found = _json(content)
    elif kind == "application/x-www-form-urlencoded":
        found = _form(content)
    else:
        raise UnsupportedMediaType(
            f"Content-Type is {kind[:100] or 'none'!r}; application/json or"
            " application/x-www-form-urlencoded is right",
            param="Content-Type",
        )
    for name in found:
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise BadRequest(
                f"field {name[:60]!r} is unknown; the fields are {known}",
                param=name[:60],
                code="unknown_field",
            )
    return {name: _value(name, given, fields[name]) for name, given in found.items()}


async def _body(request: Request) -> bytes:
    content = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > _BODY_BYTES:
                    raise TooLarge(f"the request body is over {_BODY_BYTES} bytes")
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Cancelled("the client has gone") from None
    return content


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = strict_json.decode(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadRequest("the body is no text in UTF-8", code="body_malformed") from None
    except JsonError as error:
        if error.key is None:
            raise BadRequest(
                f"the body is not one JSON object: it {error.reason}", code="body_malformed"
            ) from None
        raise BadRequest(f"field {error.key} {error.reason}", param=error.key) from None
    if not isinstance(found, dict):
        raise BadRequest("the body is not one JSON object", code="body_malformed")
    return found


def _form(content: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            content.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=20
        )
    except ValueError:
        raise BadRequest("the body is not a form", code="body_malformed") from None
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in found:
            raise BadRequest(f"field {name[:60]!r} is given twice", param=name[:60])
        found[name] = text
    return found


def _value(name: str, given: Any, kind: type) -> Any:
    """The value of a field; a form has texts alone."""
    if kind is str and isinstance(given, str) and given:
        return given
    if kind is bool:
        if isinstance(given, bool):
            return given
        if isinstance(given, str) and given.lower() in _BOOLEANS:
            return _BOOLEANS[given.lower()]
    if kind is float and not isinstance(given, bool):
        try:
            seconds = float(given)
        except (TypeError, ValueError):
            seconds = -1.0
        if 0 <= seconds <= LONGEST_WATCH_SECONDS:
            return seconds
    right = {
        str: "the id of a version in the store",
        bool: "true or false",
        float: f"seconds from 0 to {LONGEST_WATCH_SECONDS:g}",
    }[kind]
    raise BadRequest(f"{name} is {str(given)[:60]!r}; {right} is right", param=name)
