"""From Python's types to JSON Schema (2020-12, as OpenAPI 3.1 has it)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Final, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from asrsvc.speech.text import EMOTIONS, EVENTS, NO_SPEECH
from asrsvc.speech.types import LANGUAGES
from asrsvc.web.fields import Field
from asrsvc.web.url_field import URL

Schema = dict[str, Any]

_PLAIN: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
}
_SHARE: Final[Schema] = {"minimum": 0, "maximum": 1}
_SECONDS: Final[Schema] = {"minimum": 0}

KEYS: Final[dict[str, Schema]] = {
    "audio_seconds": {**_SECONDS, "description": "seconds of the recording that have been listened to"},
    "avg_logprob": {"description": "mean logarithm of the tokens' probabilities"},
    "confidence": {**_SHARE, "description": "mean posterior probability of the tokens"},
    "duration": {**_SECONDS, "description": "seconds of the recording"},
    "emotion": {"enum": list(EMOTIONS), "description": "what the voice sounds like"},
    "end": {**_SECONDS, "description": "seconds from the start of the recording"},
    "events": {"items": {"type": "string", "enum": list(EVENTS)}, "description": "what else is heard"},
    "language": {
        "enum": [*LANGUAGES[1:], NO_SPEECH],
        "description": "what is spoken; of a whole: what most of the speaking time is in",
    },
    "language_probabilities": {
        "description": "of each language, given that any is spoken; of a whole: the mean over the"
        " speaking time; empty where nothing was heard"
    },
    "language_probability": {
        **_SHARE,
        "description": "of `language`, when any of the five is spoken; null where nothing was said",
    },
    "logprob": {"maximum": 0, "description": "logarithm of the token's probability"},
    "message": {"description": "one sentence, for people"},
    "model_version": {"description": "the version that answered"},
    "no_speech_prob": {**_SHARE, "description": "probability that nothing was said"},
    "param": {"description": "the field that it is about"},
    "request_id": {"description": "also the header X-Request-Id, and in the log"},
    "seek": {"minimum": 0, "description": "start, in hundredths of a second"},
    "segments": {"description": "stretches of speech, in order"},
    "start": {**_SECONDS, "description": "seconds from the start of the recording"},
    "text": {"description": "what was said"},
    "warnings": {
        "description": "what a client should know of a recording that was transcribed all the same; absent"
        " where there is nothing"
    },
    "word": {"description": "a word; in Chinese and Japanese with a dictionary's help"},
    "words": {"description": "joined, with spaces in English and Korean, they give the text"},
}
"""what keys of these names hold, wherever they stand"""

NAMES: Final[dict[str, str]] = {
    "Answer": "Transcript",
    "Json": "OpenAiTranscript",
    "LanguageBody": "SpokenLanguage",
    "ModelBody": "Model",
    "SegmentBody": "Segment",
    "Verbose": "OpenAiVerboseTranscript",
    "VerboseSegment": "OpenAiSegment",
    "WarningBody": "Warning",
    "Word": "OpenAiWord",
    "WordBody": "Word",
}
"""how types are called where programs are made from the description; others keep their names"""


class Schemas:
    """Collects the schemas of named types, as `components/schemas` holds them."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self._kinds: dict[str, Any] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of a type: a reference where it has a name.

        Raises:
            TypeError: a type that is not described here, or two types of one name.
        """
        if is_typeddict(kind):
            return self._named(kind)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is NotRequired:
            return self.of(arguments[0])
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in {list, Sequence, tuple}:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if origin in {Union, UnionType}:
            return _either([self.of(one) for one in arguments])
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        raise TypeError(f"{kind!r} has no schema")

    def _named(self, kind: Any) -> Schema:
        name = NAMES.get(kind.__name__, kind.__name__)
        if self._kinds.setdefault(name, kind) is not kind:
            raise TypeError(f"two types are called {name}")
        if name not in self.found:
            self.found[name] = {}  # a type may hold itself
            self.found[name] = self._object(kind)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, kind: Any) -> Schema:
        hints = get_type_hints(kind, include_extras=True)
        properties = {key: self._property(key, hint) for key, hint in hints.items()}
        return {
            "type": "object",
            "description": (kind.__doc__ or "").splitlines()[0].partition("; see `")[0].rstrip("."),
            "required": [key for key, hint in hints.items() if get_origin(hint) is not NotRequired],
            "properties": properties,
        }

    def _property(self, key: str, hint: Any) -> Schema:
        schema = self.of(hint)
        more = KEYS.get(key, {})
        # A key of the same name may hold something else in another place: an enum of texts is not for it.
        if "enum" in more and schema.get("type") != "string":
            return schema
        return {**schema, **more}


def _either(kinds: list[Schema]) -> Schema:
    if all(set(kind) == {"type"} for kind in kinds):
        return {"type": [kind["type"] for kind in kinds]}
    return {"anyOf": kinds}


def form(fields: Sequence[Field]) -> Schema:
    """The schema of a form with a file; fields that are always refused are left out."""
    properties: dict[str, Schema] = {
        "file": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "format": "binary",
            "description": "one audio or video file; its format is told by its content",
        }
    }
    for field in fields:
        if not field.unsupported:
            properties[form_name(field)] = _field(field)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if URL.name in properties:
        return {**schema, "oneOf": [{"required": ["file"]}, {"required": [URL.name]}]}
    return {**schema, "required": ["file"]}


def form_name(field: Field) -> str:
    """As OpenAI's clients send it: with brackets where it may come several times."""
    return f"{field.name}[]" if field.many else field.name


def _field(field: Field) -> Schema:
    schema: Schema
    match field.kind:
        case "boolean":
            schema = {"type": "boolean"}
            default: Any = field.default == "true" if field.default is not None else None
        case "number":
            schema = {"type": "number"}
            default = float(field.default) if field.default is not None else None
        case "bytes":
            schema = {"type": "string", "maxLength": field.most_bytes}
            default = None
        case _:
            schema = {"type": "string", "maxLength": field.most_bytes // 4}
            default = field.default
    if field.values:
        schema = {"type": "string", "enum": list(field.values)}
    if math.isfinite(field.low):
        schema["minimum"] = field.low
    if math.isfinite(field.high):
        schema["maximum"] = field.high
    if default is not None:
        schema["default"] = default
    if field.many:
        schema = {"type": "array", "items": schema, "maxItems": field.most_values}
    return {**schema, "description": field.meaning}
