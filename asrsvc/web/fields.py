"""The text fields of a form as data: what each may hold, for those who read it and those who describe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from asrsvc.errors import BadRequest
from asrsvc.web.upload import Form

_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN: Final = 60  # characters of a wrong value that a message repeats


@dataclass(frozen=True, slots=True)
class Field:
    """One text field."""

    name: str
    meaning: str
    """for people"""
    kind: Literal["text", "boolean", "number"] = "text"
    values: tuple[str, ...] = ()
    """the only ones that a text may have; empty: any"""
    default: str | None = None
    """as it would be sent; None: nothing"""
    low: float = -math.inf
    """of a number, at least"""
    high: float = math.inf
    """of a number, at most"""
    many: bool = False
    """whether it may come several times, as `name` or `name[]`; its value is a list then"""
    most_bytes: int = 1024
    unsupported: str = ""
    """why a request that has it is refused; empty: it is not"""


def names(fields: Sequence[Field], *, many: bool) -> frozenset[str]:
    """The names of those that may come several times, or of the others."""
    return frozenset(field.name for field in fields if field.many == many)


def sizes(fields: Sequence[Field]) -> dict[str, int]:
    """Bytes that each may have, by name."""
    return {field.name: field.most_bytes for field in fields}


def parse(fields: Sequence[Field], form: Form) -> dict[str, Any]:
    """The values of all fields: text, bool or float; a tuple of texts where it may come several times.

    Raises:
        BadRequest: a value is not what the message says, or the field is not supported.
    """
    return {field.name: _value(field, form) for field in fields}


def _value(field: Field, form: Form) -> Any:
    if field.many:
        given = form.lists.get(field.name, [])
        if given and field.unsupported:
            raise _unsupported(field)
        return tuple(dict.fromkeys(_one(field, text) for text in given))
    text = form.fields.get(field.name, field.default)
    if field.name in form.fields and field.unsupported:
        raise _unsupported(field)
    return None if text is None else _one(field, text)


def _one(field: Field, text: str) -> Any:
    if field.kind == "boolean":
        if text.lower() not in _BOOLEANS:
            raise _wrong(field, text, "true or false is right")
        return _BOOLEANS[text.lower()]
    if field.kind == "number":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not field.low <= number <= field.high:
            raise _wrong(field, text, f"a number from {field.low:g} to {field.high:g} is right")
        return number
    if field.values and text not in field.values:
        raise _wrong(field, text, f"one of {', '.join(field.values)} is right")
    return text


def _wrong(field: Field, text: str, right: str) -> BadRequest:
    return BadRequest(f"{field.name} is {text[:_SHOWN]!r}; {right}", param=field.name)


def _unsupported(field: Field) -> BadRequest:
    return BadRequest(
        f"{field.name} is not supported: {field.unsupported}", param=field.name, code="unsupported_parameter"
    )
