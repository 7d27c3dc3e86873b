"""Starts `asrsvc.speech.ffmpeg_helper` with its imports, its long part, in a thread of low priority.

A process that is not root cannot raise its priority again; a thread that ends takes its own along.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Final

from asrsvc.system.priority import lower_thread

_NICENESS: Final = 10


def _import() -> None:
    lower_thread(_NICENESS)
    importlib.import_module("asrsvc.speech.ffmpeg_helper")


if __name__ == "__main__":
    thread = threading.Thread(target=_import)
    thread.start()
    thread.join()
    from asrsvc.speech import ffmpeg_helper

    sys.exit(ffmpeg_helper.main())
