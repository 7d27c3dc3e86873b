"""The routes that the application really has, from the application itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from asrsvc import settings
from asrsvc.jobs.manners import Manners
from asrsvc.serving import compose
from asrsvc.serving.limits import ClientTable
from asrsvc.serving.metric_folder import empty_metric_folder


def application(folder: Path) -> Any:
    """The application of a worker, as the worker puts it together."""
    run = folder / "run"
    run.mkdir()
    empty_metric_folder(run)
    in_force = settings.load(
        {"ASR_RUNTIME_DIR": str(run), "ASR_STORE": str(folder / "store"), "ASR_ADMIN_TOKEN": "x" * 16}, {}
    )
    brief: Any = SimpleNamespace(
        settings=in_force,
        version="sensevoice-nano",
        problems=(),
        queues={},
        keys=None,
        clients=ClientTable.create(tickets=10),
    )
    transcriber: Any = SimpleNamespace(model=SimpleNamespace(version="sensevoice-nano"))
    transcribers = compose.Transcribers(transcriber, transcriber, Manners(), abandon_jobs=lambda: None)
    app, _jobs = compose.load_app(brief, transcribers, lambda _status, _note: None, 0.0)
    return app


def routes(app: Any) -> list[BaseRoute]:
    """Those of an application, whatever stands in front of it."""
    while not isinstance(app, Starlette):
        app = vars(app).get("_app") or vars(app)["app"]
    return list(app.routes)


def paths(found: list[BaseRoute], prefix: str = "") -> list[str]:
    """A path for each route, with something in the place of its parameters."""
    collected: list[str] = []
    for route in found:
        path = prefix + str(getattr(route, "path", ""))
        if isinstance(route, Mount):
            collected += [f"{path}/something", *paths(list(route.routes), path)]
            continue
        for parameter in getattr(route, "param_convertors", {}):
            for form in (f"{{{parameter}}}", f"{{{parameter}:path}}"):
                path = path.replace(form, "0123456789abcdef")
        assert "{" not in path, path
        collected.append(path)
    return collected
