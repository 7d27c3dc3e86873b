"""What an answer says of a recording of which parts are missing, and how a request has it refused instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypedDict

from asrsvc.speech.types import AUDIO_INCOMPLETE, Notice
from asrsvc.web.fields import Field

CODES: Final = (AUDIO_INCOMPLETE,)
"""of all warnings that there are"""
HEADER: Final = "X-Warnings"
"""of an answer: the codes of its warnings, with commas between; none where there are none"""
TRANSCRIBE: Final = "transcribe"
REFUSE: Final = "refuse"
INCOMPLETE: Final = Field(
    "incomplete",
    "a recording of which parts are missing: transcribe what is there, with a warning; or refuse it,"
    " 400 audio_truncated; by default what the service's ASR_INCOMPLETE says",
    values=(TRANSCRIBE, REFUSE),
)
"""the field of every request that brings a recording"""


class WarningBody(TypedDict):
    """What a client should know of a recording that was transcribed all the same."""

    code: str
    message: str
    param: str


def refuses(found: dict[str, Any], *, by_default: bool) -> bool:
    """Whether a request has an incomplete recording refused.

    Args:
        found: values of its fields, `INCOMPLETE` among them.
        by_default: what the service does where the request does not say.
    """
    wish = found[INCOMPLETE.name]
    return by_default if wish is None else wish == REFUSE


def warning_bodies(notices: Iterable[Notice]) -> list[WarningBody]:
    """The value of an answer's key `warnings`, which is absent where there are none."""
    return [{"code": one.code, "message": one.message, "param": one.param} for one in notices]


def headers(notices: Iterable[Notice]) -> dict[str, str]:
    """What the header of a whole answer says; a message never stands there."""
    codes = ", ".join(one.code for one in notices)
    return {HEADER: codes} if codes else {}
