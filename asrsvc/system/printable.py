"""Strangers' texts where people and programs read lines: what controls a terminal is shown, not done.

That is: C0 and C1 controls, ends of lines and paragraphs of Unicode, what changes the direction of a text
or hides in it (UAX #9; UTS #39), and halves of characters. Letters of all languages stay as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_UNSAFE: Final = (
    "\\x00-\\x1f\\x7f-\\x9f"
    "\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069"
    "\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff\\U000e0000-\\U000e007f"
)
_CONTROL: Final = re.compile(f"[{_UNSAFE}]")
_CONTROL_IN_LINES: Final = re.compile(f"(?!\\n)[{_UNSAFE}]")


def printable(text: str) -> str:
    r"""A text in one line, each unsafe character as Python writes it, as `\x1b` or `\u202e`."""
    return _CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines: their ends stay."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def printable_json(value: Any, *, default: Any = None) -> str:
    r"""A JSON text in one line, with the same characters written as `\u202e`: it says what `value` says.

    Args:
        value: see `json.dumps`.
        default: the same.

    Raises:
        TypeError, ValueError: see `json.dumps`; NaN and infinity are no JSON.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
    return _CONTROL.sub(_json_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
