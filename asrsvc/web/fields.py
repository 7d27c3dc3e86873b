"""The text fields of a form as data: what each may hold, for those who read it and those who describe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from asrsvc.errors import BadRequest
from asrsvc.speech.languages import language_of
from asrsvc.web import structured
from asrsvc.web.form import Form

OTHER_NAMES: Final = "also by BCP 47 tag, ISO 639 code or Whisper's name: zh-HK, jpn, english"
"""of languages, for people"""
MOST_VALUES: Final = 100
"""of a field that may come several times, unless it is said otherwise"""
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN: Final = 60  # characters of a wrong value that a message repeats


@dataclass(frozen=True, slots=True)
class Field:
    """One text field."""

    name: str
    meaning: str
    """for people"""
    kind: Literal["text", "boolean", "number", "language", "bytes"] = "text"
    """bytes: kept as they came, apart from the limit on all text of a form: `most_bytes` and `most_values`
    hold alone"""
    values: tuple[str, ...] = ()
    """the only ones that a text may have; empty: any. A language may have other names for them"""
    default: str | None = None
    """as it would be sent; None: nothing"""
    low: float = -math.inf
    """of a number, at least"""
    high: float = math.inf
    """of a number, at most"""
    many: bool = False
    """whether it may come several times (`name`, `name[]`, `name[0]`) or as a JSON list; its value is one"""
    most_bytes: int = 1024
    """of one value"""
    most_values: int = MOST_VALUES
    """where it may come several times"""
    unsupported: str = ""
    """why a request that has it is refused; empty: it is not"""


def parse(fields: Sequence[Field], form: Form) -> dict[str, Any]:
    """The values of all fields: text, bool, float or bytes; a tuple of them where it may come several times.

    A field that is there and empty counts as not given. JSON text in one field counts as the fields with
    brackets that would say the same.

    Raises:
        BadRequest: a value is not what the message says, or the field is not supported.
    """
    given = _spread(fields, form)
    return {field.name: _value(field, form, given) for field in fields}


def unsupported(field: Field) -> BadRequest:
    """Why a request with this field is refused."""
    return BadRequest(
        f"{field.name} is not supported: {field.unsupported}", param=field.name, code="unsupported_parameter"
    )


def _spread(fields: Sequence[Field], form: Form) -> dict[str, str]:
    """The texts of the fields that come once, with objects of JSON spread over the fields with brackets."""
    known = {field.name for field in fields}
    given = {name: text for name, text in form.fields.items() if not structured.is_absent(text)}
    objects = {
        name: text
        for name, text in given.items()
        if structured.is_object(text) and any(other.startswith(f"{name}[") for other in known)
    }
    for name, text in given.items():
        if structured.is_list(text) and any(other.startswith(f"{name}[") for other in known):
            raise BadRequest(f"{name} is {text[:_SHOWN]!r}; a text or an object of JSON is right", param=name)
    for name, text in objects.items():
        del given[name]
        for inner, value in structured.members(name, text).items():
            if inner not in known:
                inside = ", ".join(sorted(other for other in known if other.startswith(f"{name}[")))
                raise BadRequest(
                    f"field {inner[:_SHOWN]!r} is unknown; {inside} are known",
                    param=name,
                    code="unknown_field",
                )
            if inner in given:
                raise BadRequest(f"field {inner} is given twice", param=name)
            if not structured.is_absent(value):
                given[inner] = value
    return given


def _value(field: Field, form: Form, given: dict[str, str]) -> Any:
    if field.kind == "bytes":
        blobs = tuple(form.blobs.get(field.name, ()))
        return blobs if field.many else next(iter(blobs), None)
    if field.many:
        texts = [text for text in form.lists.get(field.name, []) if not structured.is_absent(text)]
        if field.unsupported:
            if all(structured.is_empty_list(text) for text in texts):
                return ()
            raise unsupported(field)
        found = [one for text in texts for one in _items(field, text)]
        if len(found) > field.most_values:
            raise BadRequest(f"field {field.name} has more than {field.most_values} values", param=field.name)
        return tuple(dict.fromkeys(_one(field, text) for text in found))
    text = given.get(field.name, field.default)
    if field.name in given and field.unsupported:
        raise unsupported(field)
    return None if text is None else _one(field, text)


def _items(field: Field, text: str) -> list[str]:
    if not structured.is_list(text):
        return [text]
    return [one for one in structured.items(field.name, text) if not structured.is_absent(one)]


def _one(field: Field, text: str) -> Any:
    if field.kind == "boolean":
        said = text.strip().lower()
        if said not in _BOOLEANS:
            raise _wrong(field, text, "true or false is right")
        return _BOOLEANS[said]
    if field.kind == "number":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not field.low <= number <= field.high:
            raise _wrong(field, text, f"a number from {field.low:g} to {field.high:g} is right")
        return number
    found: str | None = language_of(text) if field.kind == "language" else text
    if field.values and found not in field.values:
        raise _wrong(field, text, f"one of {', '.join(field.values)} is right")
    return found


def _wrong(field: Field, text: str, right: str) -> BadRequest:
    return BadRequest(f"{field.name} is {text[:_SHOWN]!r}; {right}", param=field.name)
