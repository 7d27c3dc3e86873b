"""A parsed form: its text fields, and its file without a name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Form:
    """A parsed body. The descriptor of its file is closed by `close`."""

    fields: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    """what may come several times, by the name without brackets and number"""
    blobs: dict[str, list[bytes]] = field(default_factory=dict)
    """of fields of kind `bytes`, as they came; by the name without brackets and number"""
    descriptor: int | None = None
    """of the uploaded file, which has no name in any folder; None if there was none"""
    size: int = 0
    """bytes of the uploaded file"""
    begun: float = field(default_factory=time.monotonic)
    """when the reading of the body began, of time.monotonic()"""

    def take(self) -> int:
        """Hand the file's descriptor over; whoever takes it closes it."""
        if self.descriptor is None:
            raise ValueError("the form holds no file")
        descriptor, self.descriptor = self.descriptor, None
        return descriptor

    def close(self) -> None:
        """Let the file go; its space is free at once."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
