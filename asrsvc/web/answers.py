"""JSON answers and the one handler that maps errors to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import Response

from asrsvc.errors import AsrError
from asrsvc.speech.types import LanguageProbability

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


_DEFAULTS: Final = (
    # A transcript, or an error that repeats what was sent, is never taken for a page or a script,
    (b"x-content-type-options", b"nosniff"),
    # and never kept by a browser or a proxy; the page's own files say otherwise.
    (b"cache-control", b"no-store"),
)

# What a client sent, or what a file is called, may hold half of a character (a lone surrogate), which UTF-8
# has no bytes for: an answer that repeats it shows the character that stands for what cannot be shown.
_HALVES: Final = re.compile("[\\ud800-\\udfff]")


def json_text(content: Any) -> str:
    """JSON that can be encoded; keys keep their order, characters outside ASCII stay readable."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", text)


class JsonResponse(Response):
    """JSON in UTF-8, the same bytes for the same content."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode; see `json_text`."""
        return json_text(content).encode()


def with_defaults(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, with what every answer says that does not say otherwise."""
    own = list(headers)
    names = {name.lower() for name, _value in own}
    return [*own, *(header for header in _DEFAULTS if header[0] not in names)]


def by_language(probabilities: tuple[LanguageProbability, ...]) -> dict[str, float]:
    """Language → its probability, as answers have it."""
    return {one.language: one.probability for one in probabilities}


def error_body(error: AsrError) -> dict[str, Any]:
    """The error as every API answers it: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {
            "message": error.public or error.message,
            "type": _TYPES.get(error.status, "server_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: AsrError, headers: dict[str, str] | None = None) -> JsonResponse:
    """The answer to a request that failed with this error."""
    headers = dict(headers or {})
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return JsonResponse(error_body(error), status_code=error.status, headers=headers)
