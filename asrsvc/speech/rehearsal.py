"""Everything that decoding loads when it is first used, used before files can be opened no more.

Modules, character sets and the memory that callbacks of C are made of (cffi) come when they are needed for
the first time; in the sandbox they would not come.
"""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import struct
from collections import deque
from contextlib import nullcontext, suppress
from typing import Final

import av

from asrsvc.speech import decode_file, decode_upload
from asrsvc.speech.decoded import FileLimits, Refused
from asrsvc.speech.pieces import Pieces
from asrsvc.speech.virtual_io import VirtualFile

_LIMITS: Final = FileLimits(max_rate=48_000, max_channels=2, max_seconds=10)
_RATE: Final = 16_000
_MOST_OPEN: Final = 16  # files with callbacks, before Python has let the last of them go
_NOT_FOR_DECODING: Final = {"av.__main__", "av.datasets"}
_BYTES: Final = 16_000  # of sound: a quarter of a second, in two channels


def rehearse() -> object:
    """Decode a little sound by libsndfile and by FFmpeg, and refuse what is none.

    Returns:
        what must be held as long as files are decoded: libffi gives the memory of its callbacks back with
        the last of them, and without a file it would get no other.
    """
    for module in pkgutil.walk_packages(av.__path__, "av."):  # some come with subtitles alone
        if module.name not in _NOT_FOR_DECODING:
            importlib.import_module(module.name)
    form = struct.pack("<HHIIHH", 1, 2, _RATE, _RATE * 4, 4, 16)
    sound = b"".join(
        (b"RIFF", struct.pack("<I", 36 + _BYTES), b"WAVEfmt ", struct.pack("<I", len(form)), form)
    ) + (b"data" + struct.pack("<I", _BYTES) + bytes(_BYTES))
    decode = (decode_upload.decode, lambda file, limits: decode_file.decode(Pieces.whole(file), limits))
    for content in (sound, bytes(_BYTES)):
        descriptor = os.memfd_create("rehearsal")
        try:
            os.write(descriptor, content)
            for one in decode:
                with suppress(Refused) if content != sound else nullcontext():
                    deque(one(descriptor, _LIMITS), maxlen=0)
        finally:
            os.close(descriptor)
    files = [VirtualFile(io.BufferedReader(io.BytesIO(sound))) for _ in range(_MOST_OPEN)]
    for file in files[1:]:
        file.close()
    return files[0]
