"""What a worker is made of, put together after the fork. The master never imports this module."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from asrsvc.errors import StoreError
from asrsvc.release.store import Store
from asrsvc.settings import Settings
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.transcribe import Transcriber
from asrsvc.web.app import create_app

# Requests of a worker that are decoded and recognised side by side: while one is in the engine the
# next ones are decoded, and a short one takes turns with a long one.
_SLOTS_BESIDE_ENGINE: Final = 4


def load_transcriber(settings: Settings) -> Transcriber:
    """Load the store's current version and everything around it.

    Raises:
        StoreError: the store has no current version.
        ModelError: it cannot be loaded.
        InferenceFailed: it loads and does not run.
    """
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
        batcher=Batcher(model.engine, batch_size=settings.batch_size, queue_limit=_slots(settings)),
        queue_timeout=settings.queue_timeout,
    )


def load_app(settings: Settings, transcriber: Transcriber) -> ASGIApp:
    """The application around a loaded transcriber."""
    return create_app(settings, transcriber, slots=_slots(settings))


def _slots(settings: Settings) -> int:
    return settings.batch_size + _SLOTS_BESIDE_ENGINE
