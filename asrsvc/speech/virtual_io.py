"""A file object for libsndfile whose callbacks need no memory that is written and executed.

soundfile makes its callbacks with cffi, which writes code for them where it can and fails where it may not
(systemd's MemoryDenyWriteExecute, SELinux, prctl's PR_SET_MDWE). ctypes makes them with libffi, which since
version 3.4 takes code that is there (static trampolines), or maps it in two places of which one is written.
"""

from __future__ import annotations

import ctypes
import io
import os
from collections.abc import Callable
from typing import Any

import soundfile
from _soundfile import ffi

_COUNT = ctypes.c_longlong  # sf_count_t
_POINTER = ctypes.c_void_p
# SF_VIRTUAL_IO of sndfile.h: the last argument of each is for the caller's own use.
_TYPES = {
    "get_filelen": ctypes.CFUNCTYPE(_COUNT, _POINTER),
    "seek": ctypes.CFUNCTYPE(_COUNT, _COUNT, ctypes.c_int, _POINTER),
    "read": ctypes.CFUNCTYPE(_COUNT, _POINTER, _COUNT, _POINTER),
    "write": ctypes.CFUNCTYPE(_COUNT, _POINTER, _COUNT, _POINTER),
    "tell": ctypes.CFUNCTYPE(_COUNT, _POINTER),
}


class VirtualFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from a seekable file object."""

    def close(self) -> None:
        """Close the file, and give the memory of its callbacks back at once: it may be all there is."""
        super().close()
        self._virtual_io: dict[str, Any] = {}

    def _init_virtual_io(self, file: io.BufferedReader[Any]) -> Any:
        """What soundfile opens a file object with."""

        def length(_: int) -> int:
            position = file.tell()
            end = file.seek(0, os.SEEK_END)
            file.seek(position)
            return end

        def read(place: int, count: int, _: int) -> int:
            return file.readinto((ctypes.c_char * count).from_address(place))

        functions: dict[str, Callable[..., int]] = {
            "get_filelen": length,
            "seek": lambda offset, whence, _: file.seek(offset, whence),
            "read": read,
            "write": lambda _place, _count, _: 0,
            "tell": lambda _: file.tell(),
        }
        self._virtual_io = {name: _TYPES[name](function) for name, function in functions.items()}  # kept
        # Not by ctypes.cast: what it gives refers to itself, and lives until Python looks for such circles.
        places = {name: _POINTER.from_buffer(made).value for name, made in self._virtual_io.items()}
        return ffi.new(
            "SF_VIRTUAL_IO*", {name: ffi.cast(f"sf_vio_{name}", place) for name, place in places.items()}
        )
