"""Letting requests go first: whoever works on a job asks before each piece of its work.

The line before the engine (`asrsvc.speech.batch`) alone would not do: to decode and to look for speech
costs a small model as much as to recognise, and takes the interpreter's lock from the event loop.
"""

from __future__ import annotations

import threading
from typing import Final

_TURN_SECONDS: Final = 1.0
"""for requests, at most; then a job has a piece of its work done between them"""


class Manners:
    """Says to the threads of a worker's jobs whether its requests leave them the time."""

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()

    def note_requests(self, in_hand: int) -> None:
        """So many requests are in hand now."""
        if in_hand:
            self._idle.clear()
        else:
            self._idle.set()

    def give_way(self) -> None:
        """Wait until none is, for a limited time."""
        self._idle.wait(_TURN_SECONDS)
