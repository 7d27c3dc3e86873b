"""What a worker is made of, put together after the fork. The master never imports this module."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from asrsvc.errors import AmbiguousVersion, NotFound, StoreError
from asrsvc.jobs.manners import Manners
from asrsvc.release.bake import Found
from asrsvc.release.card import read_card
from asrsvc.release.catalogue import catalogue
from asrsvc.release.store import Store
from asrsvc.serving import status
from asrsvc.serving.brief import Brief
from asrsvc.serving.cores import SharedCores
from asrsvc.serving.jobs import PATIENCE_SECONDS, Jobs, most_here
from asrsvc.serving.loading import Loaded
from asrsvc.serving.metric_folder import metric_folder
from asrsvc.serving.operations import Operation, Operations
from asrsvc.serving.parcel import Parcel
from asrsvc.serving.scoreboard import Row
from asrsvc.settings import Settings, is_public
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.transcribe import Transcriber
from asrsvc.web.access import Access, Rules
from asrsvc.web.admin import Admin
from asrsvc.web.app import (
    Counting,
    Envelope,
    Observe,
    create_apology,
    create_app,
    upload_limits,
)
from asrsvc.web.form import Form
from asrsvc.web.meter import Meter
from asrsvc.web.metric_files import MetricFiles
from asrsvc.web.metrics import Metrics, Sources


@dataclass(frozen=True, slots=True)
class Transcribers:
    """Two ways to one engine."""

    requests: Transcriber
    jobs: Transcriber
    """lets requests go first"""
    manners: Manners
    """of those who work on jobs"""
    abandon_jobs: Callable[[], None]
    """lets their spans go, also in the middle of a run"""


MOST_REQUESTS: Final = 10
"""requests of a worker at the same time, with those whose body is slow to arrive"""
MOST_RUNS: Final = 8
"""of one worker's engine at the same time, on an idle machine: each takes memory of its own"""


def assemble(settings: Settings, loaded: Loaded, row: Row) -> Transcribers:
    """Everything around a loaded model; the threads and processes that it starts keep its priority.

    Args:
        settings: in force.
        loaded: see `loading.load`.
        row: the worker's own numbers.
    """
    decoders = HelperPool(
        memory_bytes=settings.decode_memory_mb * 2**20, block_timeout=settings.decode_timeout, spare=True
    )
    decoders.warm_up()
    workers = settings.worker_count()
    # On a GPU all runs share one device, whose idle time nobody sees here.
    helpers = min(workers, MOST_RUNS) - 1 if settings.device == "cpu" else 0
    batcher = Batcher(
        loaded.model.engine,
        batch_size=settings.batch_size,
        queue_limit=(MOST_REQUESTS + most_here(settings)) * (helpers + 2),
        helpers=helpers,
        cores=SharedCores(row, workers),
    )
    manners = Manners()
    make = partial(
        Transcriber,
        loaded.model,
        segmenter=loaded.segmenter,
        helpers=decoders,
        limits=Limits(max_seconds=settings.max_audio_seconds),
    )
    return Transcribers(
        requests=make(batcher=batcher, queue_timeout=settings.queue_timeout),
        jobs=make(batcher=batcher.in_background(), queue_timeout=PATIENCE_SECONDS, give_way=manners.give_way),
        manners=manners,
        abandon_jobs=batcher.abandon,
    )


def access(brief: Brief) -> Access:
    """Who may come in, by what the master has given this worker."""
    return Access(Rules.of(brief.settings), brief.keys, brief.clients)


def _counting(brief: Brief, load_seconds: float = 0.0, twin: Found | None = None) -> Counting:
    """What this worker counts, and what it can see of the service."""
    files = MetricFiles(metric_folder(brief.settings.runtime_dir))
    sources = Sources(
        status_path=brief.settings.runtime_dir / status.FILE_NAME,
        queue_lengths=lambda: {name.name.lower(): len(queue) for name, queue in brief.queues.items()},
        queue_limit=brief.settings.queue_limit,
        keys=brief.keys,
    )
    state = twin.state if twin is not None else "off"
    meter = Meter(files, brief.version, load_seconds=load_seconds, twin=state)
    return Counting(meter, Metrics(files, sources))


def load_app(
    brief: Brief, transcribers: Transcribers, observe: Observe, load_seconds: float, twin: Found | None = None
) -> tuple[Envelope, Jobs]:
    """The application around what has been loaded, and the jobs, which are to be started.

    Args:
        brief: of this worker.
        transcribers: see `assemble`.
        observe: told of each request and job that has ended.
        load_seconds: that it took.
        twin: see `loading.Loaded`.
    """
    settings, version = brief.settings, transcribers.requests.model.version
    counting = _counting(brief, load_seconds, twin)
    jobs = Jobs(
        settings,
        transcribers.jobs,
        transcribers.manners,
        upload_limits(settings),
        abandon=transcribers.abandon_jobs,
        observe=observe,
        count=counting.meter.work,
        count_webhook=counting.meter.webhook,
    )
    app = create_app(
        settings,
        transcribers.requests,
        read_card(settings.store / "versions" / version, version),
        threads=MOST_REQUESTS,
        observe=observe,
        access=access(brief),
        counting=counting,
        problems=brief.problems,
        admin=_admin(settings),
        more=jobs.routes(),
    )
    return app, jobs


def load_apology(brief: Brief, reason: str) -> Envelope:
    """The application of a worker without a model."""
    counting = _counting(brief)
    origins = brief.settings.cors_origins
    return create_apology(reason, access(brief), counting, origins, _admin(brief.settings))


def _admin(settings: Settings) -> Admin:
    return Admin(_Hands(settings), settings.admin_token, ops_is_public=is_public(settings.ops_bind))


class _Hands:
    """What `/admin` does: the operator's tool in a process of its own, and files that are read."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings.store, pointers=settings.store_pointers)
        self._operations = Operations(settings.runtime_dir)
        self._status = settings.runtime_dir / status.FILE_NAME

    def begin(self, command: Sequence[str], on_behalf_of: str) -> Operation:
        return self._operations.start(command, on_behalf_of)

    def operation(self, key: str) -> Operation:
        return self._operations.read(key)

    def find_version(self, text: str) -> str:
        try:
            return self._store.version(self._store.named_version(text).id).id
        except AmbiguousVersion as error:
            raise NotFound(error.message, param="version", code=error.default_code) from None
        except StoreError as error:
            raise NotFound(error.message, param="version", code="unknown_version") from None

    def models(self) -> dict[str, Any]:
        return {"serving": status.read(self._status).version, "models": catalogue(self._store)}

    def status(self) -> dict[str, Any]:
        return status.to_json(status.read(self._status))


def form_of(parcel: Parcel, descriptor: int) -> Form:
    """The form of a request that has waited.

    Args:
        parcel: what is known of it.
        descriptor: of the file that it came in, which is the form's from now on.
    """
    form = Form(parcel.fields, parcel.lists, size=parcel.size, begun=parcel.begun)
    if parcel.has_file:
        form.descriptor = descriptor
    else:
        os.close(descriptor)
    return form
