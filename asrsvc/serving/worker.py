"""The worker: a process that loads the model after the fork and serves HTTP with uvicorn.

The master imports this module for the class; what is heavy is imported in the worker's own process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING, Any

from setproctitle import setproctitle
from uvicorn_worker import UvicornWorker

from asrsvc.errors import AsrError
from asrsvc.serving.protocol import LingeringProtocol
from asrsvc.settings import Settings

if TYPE_CHECKING:
    from asrsvc.speech.transcribe import Transcriber

log = logging.getLogger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
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

    def _install_sigquit_handler(self) -> None:
        # uvicorn-worker 0.4 only sets a flag that uvicorn does not look at, so that a quick stop of
        # the master waited for the whole grace period. uvicorn's quick stop is its second SIGINT.
        def stop_quickly() -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, stop_quickly)

    def load_model(self, settings: Settings) -> None:
        """Load the current version; called in the new process, after the fork.

        Raises:
            AsrError: there is no version, or it cannot be loaded; the process ends.
        """
        from asrsvc.serving import compose  # noqa: PLC0415 - not in the master

        self.init_signals()  # the master's handlers, which only note a signal, are not for here
        started = time.monotonic()
        self._settings = settings
        try:
            self._transcriber = compose.load_transcriber(settings)
        except AsrError as error:
            log.error("the model cannot be loaded: %s", error.message)
            raise
        version = self._transcriber.model.version
        setproctitle(f"gunicorn: worker [{self.cfg.proc_name}] {version}")
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        log.info("worker ready", extra={"version": version, "load_ms": milliseconds})

    def load_wsgi(self) -> None:
        """Build the application around the loaded model (called by gunicorn's init_process)."""
        from asrsvc.serving import compose  # noqa: PLC0415 - not in the master

        self.config.timeout_graceful_shutdown = round(self._settings.drain_timeout)
        self.wsgi = compose.load_app(self._settings, self._transcriber)
