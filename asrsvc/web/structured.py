"""Fields that hold JSON text: some clients send an object or a list in one field, others with brackets.

`chunking_strategy={"type": "server_vad"}` is `chunking_strategy[type]=server_vad`, and `include=["logprobs"]`
is `include[]=logprobs`. JSON becomes the texts that the other form would have had: one place checks both.
"""

from __future__ import annotations

import re
from typing import Any, Final

from asrsvc.errors import BadRequest
from asrsvc.web import strict_json
from asrsvc.web.strict_json import JsonError

_SHOWN: Final = 60  # characters of a wrong value that a message repeats
_NOTHING: Final = frozenset({"", "null", "undefined", "None"})
"""what programs make of a value that they do not have: it is in no field's range"""
_EMPTY_LIST: Final = re.compile(r"\s*\[\s*\]\s*")


def is_absent(text: str) -> bool:
    """Whether a field with this text counts as not given."""
    return text.strip() in _NOTHING


def is_empty_list(text: str) -> bool:
    """Whether it is JSON for a list of nothing."""
    return _EMPTY_LIST.fullmatch(text) is not None


def is_list(text: str) -> bool:
    """Whether it is meant as a list of JSON."""
    return text.lstrip()[:1] == "["


def is_object(text: str) -> bool:
    """Whether it is meant as an object of JSON."""
    return text.lstrip()[:1] == "{"


def items(name: str, text: str) -> list[str]:
    """The texts of a JSON list.

    Args:
        name: of the field, for errors.
        text: that it holds.

    Raises:
        BadRequest: it is no JSON, or holds what no field can have.
    """
    found = _decode(name, text)
    return [one for one in (_plain(name, value) for value in found) if one is not None]


def members(name: str, text: str) -> dict[str, str]:
    """The texts of a JSON object by the names that the bracketed form has, as `name[key]`.

    Args:
        name: of the field.
        text: that it holds.

    Raises:
        BadRequest: it is no JSON, has a key twice, or holds what no field can have.
    """
    found: dict[str, str] = {}
    for key, value in _decode(name, text).items():
        plain = _plain(f"{name}[{key[:_SHOWN]}]", value, param=name)
        if plain is not None:
            found[f"{name}[{key}]"] = plain
    return found


def _decode(name: str, text: str) -> Any:
    try:
        return strict_json.decode(text)
    except JsonError as error:
        if error.key is None:
            raise BadRequest(f"{name} is {text[:_SHOWN]!r}, which {error.reason}", param=name) from None
        raise BadRequest(f"field {name}[{error.key}] {error.reason}", param=name) from None


def _plain(name: str, value: Any, *, param: str = "") -> str | None:
    """A single value as the text that a field of its own would have; None: nothing."""
    if value is None:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    kind = "an object" if isinstance(value, dict) else "a list"
    raise BadRequest(f"{name} has {kind} in it; a text or a number is right", param=param or name)
