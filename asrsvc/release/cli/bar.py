"""How far a pull is: one line that is written over on a terminal, else a line now and then.

Its own forty lines, since the tool runs before any package is installed.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from asrsvc.release.cli.command import Context, shown
from asrsvc.release.progress import Progress

_TERMINAL_SECONDS: Final = 0.1
_LOG_SECONDS: Final = 10.0
_CELLS: Final = 24


@dataclass
class Bar:
    """Shows progress on stderr."""

    context: Context
    _on_terminal: bool = False
    _shown: float = 0.0
    _begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    """when each file began, and the bytes that it began with"""

    def __post_init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Take what has happened."""
        if progress.step == "download":
            self._bytes(progress)
            return
        self._shown = 0.0
        self.clear()
        self.context.progress(_sentence(progress))

    def clear(self) -> None:
        """Leave the line to others."""
        if self._on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _bytes(self, progress: Progress) -> None:
        now = time.monotonic()
        began, first = self._begun.setdefault(progress.file, (now, progress.done))
        if not self._shown:
            self._shown = now
        if now - self._shown < (_TERMINAL_SECONDS if self._on_terminal else _LOG_SECONDS):
            return
        self._shown = now
        speed = (progress.done - first) / max(now - began, 0.001)
        text = f"{progress.file}: {size(progress.done)}"
        if progress.total:
            text += f" of {size(progress.total)}, {100 * progress.done // progress.total} %"
        text += f", {size(speed)}/s"
        if progress.total and speed > 0:
            text += f", {(progress.total - progress.done) / speed:.0f} s left"
        if not self._on_terminal:
            self.context.progress(text)
            return
        if progress.total:
            full = _CELLS * progress.done // progress.total
            text = f"[{'#' * full}{'.' * (_CELLS - full)}] {text}"
        sys.stderr.write("\r" + shown(text)[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
        sys.stderr.flush()


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _sentence(progress: Progress) -> str:
    if progress.step == "resume":
        return f"{progress.file}: goes on at {size(progress.done)}"
    if progress.step == "retry":
        return f"{progress.file}: {progress.detail}"
    if progress.step == "done":
        return f"{progress.file}: {size(progress.done)}, whole"
    return f"{progress.file}: {'unpacked' if progress.step == 'unpack' else 'copied'} now"
