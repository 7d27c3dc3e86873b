"""The web page at `/`, the API pages at `/docs`, and their files.

They need no engine and no key: a person sees the page first, and gives the key to it. Every file is read
once and kept, with its gzip form, and unpacked once for clients that take none; both by a thread, so that the
event loop waits for neither. A browser asks each time whether its copy is the newest (`ETag`), so that new
code never runs with old files.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asrsvc.errors import NotFound

_PACKAGE: Final = Path(__file__).resolve().parent.parent
PAGE_FOLDER: Final = _PACKAGE / "web" / "page"
_SAMPLES_FOLDER: Final = _PACKAGE / "clips"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_PACKED: Final = ".gz"
"""of a file that is kept packed: a large one that others have made"""
_GZIP_LEVEL: Final = 6
_NOT_WORTH_IT: Final = 1024
"""bytes that are sent as they are"""
_UNPACKED_BYTES: Final = 16 * 2**20
"""of a file that is kept packed, at most"""
_TURN: Final = threading.Lock()
_GZIP_FORMAT: Final = 16  # added to zlib's window bits: a gzip header and trailer (zlib.decompress)

_COMMON_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_PAGE_POLICY: Final = {
    **_COMMON_POLICY,
    "media-src": "blob:",
    # The DOM takes no text for HTML, whoever wrote it: there is no policy that would turn one into the other.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


def _policy(parts: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in parts.items())


_POLICIES: Final = {"index.html": _policy(_PAGE_POLICY), "docs.html": _policy(_COMMON_POLICY)}
_STRICTEST: Final = _policy({"default-src": "'none'", "frame-ancestors": "'none'"})


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent under one name."""

    media_type: str
    plain: bytes | None
    """None: it is kept packed until somebody does not take gzip, see `_unpacked`"""
    packed: bytes | None
    """the same in gzip; None: it would not be smaller"""
    tag: str
    """changes when the content does"""


def content(plain: bytes, media_type: str) -> Content:
    """Prepare bytes for being sent."""
    packed = None
    if len(plain) > _NOT_WORTH_IT and not media_type.startswith("audio/"):
        packed = gzip.compress(plain, _GZIP_LEVEL, mtime=0)
    return Content(media_type, plain, packed, _tag(plain))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def respond(request: Request, found: Content, policy: str = _STRICTEST) -> Response:
    """Answer with the content, or with 304 if the client has it.

    Args:
        request: GET or HEAD.
        found: to be sent; in a form that the client takes.
        policy: the value of Content-Security-Policy.
    """
    packed = found.packed if takes_gzip(request) else None
    tag = f'"{found.tag}-gzip"' if packed is not None else f'"{found.tag}"'
    headers = {
        **_SECURITY,
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if packed is not None:
        headers["Content-Encoding"] = "gzip"
    body = found.plain if packed is None else packed
    return Response(body, media_type=None, headers={**headers, "Content-Type": found.media_type})


def takes_gzip(request: Request) -> bool:
    """Whether the client says that it takes gzip."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


@cache
def _files() -> dict[str, Path]:
    """Every file that may be sent, by the name in its address; nothing else is looked for on the disk."""
    found = {
        str(path.relative_to(PAGE_FOLDER)).removesuffix(_PACKED): path
        for path in sorted(PAGE_FOLDER.rglob("*"))
        if path.is_file() and (path.suffix in _TYPES or path.suffix == _PACKED)
    }
    found |= {f"samples/{path.name}": path for path in sorted(_SAMPLES_FOLDER.glob("*.flac"))}
    return found


@cache
def _read(path: Path) -> Content:
    data = path.read_bytes()
    if path.suffix == _PACKED:
        return Content(_TYPES[path.with_suffix("").suffix], None, data, _tag(data))
    return content(data, _TYPES[path.suffix])


@cache
def _unpacked(path: Path) -> Content:
    """A file that is kept packed, in both forms."""
    found = _read(path)
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | _GZIP_FORMAT)
    plain = unpacker.decompress(found.packed or b"", _UNPACKED_BYTES)
    if not unpacker.eof:
        raise ValueError(f"{path} has more than {_UNPACKED_BYTES} bytes when it is unpacked")
    return replace(found, plain=plain)


def once(make: Callable[[], Content]) -> Content:
    """What a function makes and keeps, though many ask at the same time; for a thread, since it may wait."""
    with _TURN:
        return make()


async def _send(request: Request, name: str) -> Response:
    path = _files().get(name)
    if path is None:
        raise NotFound(f"path {request.scope['path'][:100]!r} is not served here")
    make = _unpacked if path.suffix == _PACKED and not takes_gzip(request) else _read
    found = await asyncio.to_thread(once, partial(make, path))
    return respond(request, found, _POLICIES.get(name, _STRICTEST))


async def page(request: Request) -> Response:
    """`GET /`: the page."""
    return await _send(request, "index.html")


async def docs(request: Request) -> Response:
    """`GET /docs`: the API pages; `/docs/` leads there, since its relative links would not lead anywhere."""
    asked: bytes = request.scope.get("raw_path", b"")
    slashes = len(asked) - len(asked.rstrip(b"/"))
    if slashes:
        return Response(
            status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": "../" * slashes + "docs"}
        )
    return await _send(request, "docs.html")


async def file(request: Request) -> Response:
    """`GET /page/…`: what the two are made of."""
    return await _send(request, request.path_params["name"])


def routes() -> list[Route]:
    """What is served without a model, too."""
    return [
        Route("/", page, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
        Route("/page/{name:path}", file, methods=["GET"]),
    ]
