"""YAML with values alone: no anchor and no alias, no tag, no merge key, one document, bounded in all.

An alias lets 400 bytes stand for gigabytes. The parser's events are read (PyYAML, `yaml.parse`), so that
nothing is built of what is refused, and each value is what is written there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import yaml

from asrsvc.system.documents import DocumentError

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"

MOST_DEPTH: Final = 20
"""levels of lists and mappings in each other"""
_MERGE: Final = "<<"
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,3})?")
# The words of YAML 1.2's core schema, §10.3.2. Whatever else has no quotes is text, a date too.
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_yaml(text: str, *, most_values: int) -> Value:
    """What a YAML text says.

    Args:
        text: one document; the caller bounds its length.
        most_values: of it, those in lists and mappings and the names in mappings too.

    Returns:
        str, int, float, bool or None for a scalar, as YAML 1.2's core schema has it in decimal digits, or a
        list or a dict of such. Floats may be infinite. An empty text says None.

    Raises:
        DocumentError: it is no such text, or over a limit; names the line.
    """
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader), most_values).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise DocumentError(f"is no YAML: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"is no YAML: {str(error).splitlines()[0][:200]}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"is no YAML: {str(error)[:200]}") from None


class _Builder:
    def __init__(self, events: Iterator[yaml.Event], most_values: int) -> None:
        self._events = events
        self._most_values = most_values
        self._values = 0

    def document(self) -> Value:
        found: Value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _wrong(event, "a second document; one is right")
                if event.tags:
                    raise _wrong(event, "a tag of its own; values alone are right")
            elif isinstance(event, yaml.NodeEvent):
                found = self._value(event, 1)
        return found

    def _value(self, event: yaml.Event, depth: int) -> Value:
        self._check(event, depth)
        match event:
            case yaml.ScalarEvent():
                return _scalar(event)
            case yaml.SequenceStartEvent():
                return [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
            case _:
                return self._mapping(depth)

    def _mapping(self, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for event in self._until(yaml.MappingEndEvent):
            self._check(event, depth)
            if not isinstance(event, yaml.ScalarEvent):
                raise _wrong(event, "a name in a mapping that is no text")
            name = event.value
            if name == _MERGE and event.style is None:
                raise _wrong(event, "a merge key (<<); values alone are right")
            if name in found:
                raise _wrong(event, f"the name {name[:60]!r} a second time")
            found[name] = self._value(next(self._events), depth + 1)
        return found

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _check(self, event: yaml.Event, depth: int) -> None:
        self._values += 1
        if self._values > self._most_values:
            raise _wrong(event, f"more than {self._most_values} values, which is the limit")
        if depth > MOST_DEPTH:
            raise _wrong(event, f"more than {MOST_DEPTH} levels, which is the limit")
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(event, "an alias (*); values alone are right")
        if getattr(event, "anchor", None) is not None:
            raise _wrong(event, "an anchor (&); values alone are right")
        if getattr(event, "tag", None) is not None:
            raise _wrong(event, "a tag (!); values alone are right")


def _scalar(event: yaml.ScalarEvent) -> Value:
    text: str = event.value
    if event.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _wrong(event: yaml.Event, what: str) -> DocumentError:
    mark = event.start_mark
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return DocumentError(f"has {what}{where}")
