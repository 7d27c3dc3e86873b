"""What schemathesis sends as a file: recordings among what is none."""

from __future__ import annotations

import os

import schemathesis
from hypothesis import strategies as st
from service import CLIPS

_SOUNDS = [(CLIPS / name).read_bytes() for name in ("en_1.flac", "zh_1.flac", "noise.flac")]
_BROKEN = [b"", b"RIFF\x00\x00\x00\x00WAVE", _SOUNDS[0][: len(_SOUNDS[0]) // 2]]

schemathesis.openapi.format(
    "binary", st.sampled_from([*_SOUNDS, *_SOUNDS, *_BROKEN]) | st.binary(max_size=64)
)


@schemathesis.hook
def before_call(_context: object, case: schemathesis.Case, _kwargs: dict[str, object]) -> None:
    """Show the operator's token where it is wanted."""
    if case.path.startswith("/admin"):
        case.headers["Authorization"] = f"Bearer {os.environ['TOKEN']}"
