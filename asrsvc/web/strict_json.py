"""JSON text that strangers send, read as I-JSON (RFC 7493): nothing in it that two programs read differently.

No name twice, no half of a character (a lone surrogate), no NaN; a number that no program keeps exactly is a
float; no nesting that would be deep.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_DEPTH: Final = 32
"""objects and lists inside of one another, at most"""
_EXACT_DIGITS: Final = 20
"""of a whole number, at most; one with more becomes a float"""
_SHOWN: Final = 60  # characters of a wrong name that a message repeats
_SURROGATE: Final = re.compile("[\\ud800-\\udfff]")
_HALF: Final = "holds half of a character (a lone surrogate)"


class JsonError(ValueError):
    """The text is no JSON that is taken here.

    Args:
        reason: what is wrong, a sentence without its subject.
        key: of the outermost object, where that is wrong; None: the text as a whole is.
    """

    def __init__(self, reason: str, key: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = None if key is None else repr(key[:_SHOWN])[1:-1]
        """can be encoded, whatever the name was"""


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that a name that comes twice is seen."""


def decode(text: str) -> Any:
    """The value that the text stands for.

    Raises:
        JsonError: it is none that is taken here.
    """
    try:
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_number, parse_int=_number)
    except RecursionError:
        raise JsonError("is no JSON: it is nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"is no JSON: {error}") from None
    return _checked(found, None, 0)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _EXACT_DIGITS else float(digits)


def _checked(value: Any, key: str | None, depth: int) -> Any:
    """The value with its objects as dictionaries.

    Args:
        value: as the decoder gives it.
        key: of the outermost object, in which it stands; None: it stands in none.
        depth: objects and lists around it.
    """
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise JsonError(_HALF, key)
        return value
    if not isinstance(value, list):
        return value
    if depth == _DEPTH:
        raise JsonError(f"is nested more than {_DEPTH} deep", key)
    if not isinstance(value, _Pairs):
        return [_checked(one, key, depth + 1) for one in value]
    found: dict[str, Any] = {}
    for name, inner in value:
        outer = name if depth == 0 else key
        if _SURROGATE.search(name):
            raise JsonError(_HALF, outer)
        if name in found:
            raise JsonError("is given twice" if depth == 0 else f"has {name[:_SHOWN]!r} twice in it", outer)
        found[name] = _checked(inner, outer, depth + 1)
    return found
