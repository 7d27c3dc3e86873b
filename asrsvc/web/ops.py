"""What operators and load balancers ask: health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from asrsvc.errors import NotReady
from asrsvc.web.answers import JsonResponse


def health(
    version: str, problems: tuple[str, ...], problems_now: Callable[[], tuple[str, ...]]
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a worker that has loaded this version.

    Args:
        version: that it serves.
        problems: what is not as it should be though it serves.
        problems_now: the same, of what may change meanwhile.
    """

    async def endpoint(_request: Request) -> Response:
        found = [*problems, *problems_now()]
        return JsonResponse(
            {
                "status": "degraded" if found else "healthy",
                "model_loaded": True,
                "model_version": version,
                "problems": found,
            }
        )

    return endpoint


async def live(_request: Request) -> Response:
    """Whether the process answers at all."""
    return JsonResponse({"status": "alive"})


def unhealthy(reason: str) -> Response:
    """The health of a worker without a model."""
    return JsonResponse(
        {"status": "unhealthy", "model_loaded": False, "model_version": None, "problems": [reason]},
        status_code=HTTPStatus.SERVICE_UNAVAILABLE,
        headers={"Retry-After": str(NotReady.retry_after_seconds)},
    )
