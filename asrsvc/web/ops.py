"""What operators and load balancers ask: health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from asrsvc.web.answers import JsonResponse


def health(version: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a worker that has loaded this version."""

    async def endpoint(_request: Request) -> Response:
        return JsonResponse({"status": "healthy", "model_loaded": True, "model_version": version})

    return endpoint
