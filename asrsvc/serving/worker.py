"""The worker: a process that loads the model after the fork and serves HTTP with uvicorn.

The master imports this module for the class; what is heavy is imported in the worker's own process.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from setproctitle import setproctitle
from uvicorn_worker import UvicornWorker

from asrsvc.errors import AsrError, StoreError
from asrsvc.serving.protocol import LingeringProtocol
from asrsvc.settings import Settings

if TYPE_CHECKING:
    from asrsvc.speech.transcribe import Transcriber

log = logging.getLogger(__name__)

# Requests of a worker that are decoded and recognised side by side: while one is in the engine the
# next ones are decoded, and a short one takes turns with a long one.
_SLOTS_BESIDE_ENGINE = 4


class Worker(UvicornWorker):
    """One uvicorn worker with one model."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 - the name and type are uvicorn-worker's
        "loop": "uvloop",
        "http": LingeringProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        # An idle connection could be closed under a client's feet: none is kept.
        "headers": [("Connection", "close")],
    }

    _settings: Settings
    _transcriber: Transcriber

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn-worker gives uvicorn gunicorn's level; its news of every start are gunicorn's too.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def load_model(self, settings: Settings) -> None:
        """Load the current version; called in the new process, after the fork.

        Raises:
            AsrError: there is no version, or it cannot be loaded; the process ends.
        """
        self.init_signals()  # the master's handlers, which only note a signal, are not for here
        started = time.monotonic()
        self._settings = settings
        try:
            self._transcriber = load_transcriber(settings)
        except AsrError as error:
            log.error("the model cannot be loaded: %s", error.message)  # noqa: TRY400 - no trace needed
            raise
        version = self._transcriber.model.version
        setproctitle(f"gunicorn: worker [{self.cfg.proc_name}] {version}")
        log.info(
            "worker ready",
            extra={"version": version, "load_ms": round((time.monotonic() - started) * 1000, 1)},
        )

    def load_wsgi(self) -> None:
        """Build the application around the loaded model (called by gunicorn's init_process)."""
        from asrsvc.web.app import create_app

        self.config.timeout_graceful_shutdown = round(self._settings.drain_timeout)
        slots = self._settings.batch_size + _SLOTS_BESIDE_ENGINE
        self.wsgi = create_app(self._settings, self._transcriber, slots=slots)


def load_transcriber(settings: Settings) -> Transcriber:
    """Load the store's current version and everything around it.

    Raises:
        StoreError: the store has no current version.
        ModelError: it cannot be loaded.
    """
    from asrsvc.release.store import Store
    from asrsvc.speech.batch import Batcher
    from asrsvc.speech.decode import Limits
    from asrsvc.speech.ffmpeg import HelperPool
    from asrsvc.speech.model import Model
    from asrsvc.speech.segment import Segmenter
    from asrsvc.speech.transcribe import Transcriber

    current = Store(settings.store).current()
    if current is None:
        raise StoreError(f"{settings.store} has no current version; bin/serve puts the first one there")
    model = Model.load(
        current.path, version=current.id, threads=settings.thread_count(), device=settings.device
    )
    helpers = HelperPool(
        memory_bytes=settings.decode_memory_mb * 2**20, block_timeout=settings.decode_timeout
    )
    helpers.warm_up()
    return Transcriber(
        model,
        segmenter=Segmenter(),
        helpers=helpers,
        limits=Limits(max_seconds=settings.max_audio_seconds),
        batcher=Batcher(model.engine, batch_size=settings.batch_size, queue_limit=1000),
        queue_timeout=settings.queue_timeout,
    )
