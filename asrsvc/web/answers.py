"""JSON answers and the one handler that maps errors to them."""

from __future__ import annotations

import json
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


class JsonResponse(Response):
    """JSON in UTF-8, the same bytes for the same content."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode; keys keep their order, characters outside ASCII stay readable."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def by_language(probabilities: tuple[LanguageProbability, ...]) -> dict[str, float]:
    """Language → its probability, as answers have it."""
    return {one.language: one.probability for one in probabilities}


def error_body(error: AsrError) -> dict[str, Any]:
    """The error as every API answers it: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {
            "message": error.message,
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
