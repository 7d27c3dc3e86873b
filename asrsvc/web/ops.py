"""What operators and load balancers ask: health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from asrsvc.errors import NotReady
from asrsvc.web.answers import JsonResponse

NO_MODEL: Final = "no model can be loaded; the service's log says why"
_NOT_WISHED: Final = "another version than the wished one serves; the service's log says why"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not as it should be though the service runs."""

    public: str
    """a sentence for everybody: no path, nothing of a file"""
    whole: str
    """the same for the operator"""


def of_version(problems: Iterable[str], *, serves: bool) -> tuple[Problem, ...]:
    """Why it is not the wished version that serves.

    Args:
        problems: sentences, as the master has them.
        serves: whether another version does.
    """
    public = _NOT_WISHED if serves else NO_MODEL
    return tuple(Problem(public, problem) for problem in problems)


def said(problems: Iterable[Problem], *, to_operator: bool) -> list[str]:
    """The sentences, each once."""
    return list(dict.fromkeys(one.whole if to_operator else one.public for one in problems))


def health(
    version: str, problems_now: Callable[[], Iterable[Problem]], is_operator: Callable[[Request], bool]
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a worker that has loaded this version.

    Args:
        version: that it serves.
        problems_now: what is not as it should be though it serves.
        is_operator: whether who asks is told all of it.
    """

    async def endpoint(request: Request) -> Response:
        found = said(problems_now(), to_operator=is_operator(request))
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


def unhealthy(problems: list[str]) -> Response:
    """The health of a worker without a model."""
    return JsonResponse(
        {"status": "unhealthy", "model_loaded": False, "model_version": None, "problems": problems},
        status_code=HTTPStatus.SERVICE_UNAVAILABLE,
        headers={"Retry-After": str(NotReady.retry_after_seconds)},
    )
