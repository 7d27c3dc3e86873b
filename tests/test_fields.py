"""The text fields of a form: empty ones, and those that hold JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.errors import BadRequest
from asrsvc.web import openai_fields, transcriptions
from asrsvc.web.fields import Field, parse
from asrsvc.web.form import Form
from asrsvc.web.openai_fields import FIELDS, Wishes

SERVED = ("whisper-1", "gpt-4o-transcribe")
NOTHING = ("", " ", "\t\r\n", "null", "undefined", "None")
CHUNKING = "chunking_strategy"


def wishes(lists: dict[str, list[str]] | None = None, /, **fields: str) -> Wishes:
    return openai_fields.parse_fields(Form(fields=fields, lists=lists or {}), SERVED)


def wrong(lists: dict[str, list[str]] | None = None, /, **fields: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        wishes(lists, **fields)
    return caught.value


# Nothing.


@pytest.mark.parametrize("empty", NOTHING)
@pytest.mark.parametrize("field", [*FIELDS, *transcriptions.FIELDS], ids=lambda field: field.name)
def test_a_field_that_is_empty_counts_as_not_given(field: Field, empty: str) -> None:
    form = Form(lists={field.name: [empty, empty]}) if field.many else Form(fields={field.name: empty})
    for fields in (FIELDS, transcriptions.FIELDS):
        if field in fields:
            assert parse(fields, form) == parse(fields, Form())


def test_empty_fields_stand_beside_others_that_say_something() -> None:
    found = wishes({"languages": ["", "zh", "null", "en"]}, language="", response_format="srt", stream="")
    assert found.options.candidates == ("zh", "en")
    assert found.format == "srt"


# JSON instead of brackets.

SERVER_VAD: list[dict[str, Any]] = [
    {"type": "server_vad"},
    {"type": "server_vad", "threshold": 0.7},
    {"type": "server_vad", "threshold": "0.7", "prefix_padding_ms": 300, "silence_duration_ms": 1e2},
    {"threshold": None, "type": "server_vad"},
    {"type": "server_vad", "threshold": 1},
]


@pytest.mark.parametrize("value", SERVER_VAD, ids=json.dumps)
def test_an_object_is_what_the_fields_with_brackets_say(value: dict[str, Any]) -> None:
    bracketed = {f"{CHUNKING}[{key}]": str(one) for key, one in value.items() if one is not None}
    assert parse(FIELDS, Form(fields={CHUNKING: json.dumps(value)})) == parse(FIELDS, Form(fields=bracketed))
    assert wishes(**{CHUNKING: f" {json.dumps(value, indent=1)}\n"}) == wishes(**bracketed)


@pytest.mark.parametrize("empty", ["{}", "[]", '{"type": null}'])
def test_an_object_of_nothing_is_nothing(empty: str) -> None:
    if empty != "[]":
        assert wishes(**{CHUNKING: empty}) == wishes()
    assert wishes({"languages": ["[]"], "include": ['[null, ""]'], "keywords": [" [ ] "]}) == wishes()


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("timestamp_granularities", '["word"]', ["word"]),
        ("timestamp_granularities", '["word", "segment"]', ["word", "segment"]),
        ("include", '["logprobs"]', ["logprobs"]),
        ("languages", '["en","zh-HK"]', ["en", "yue"]),
        ("languages", ' [ "en" , null , "en" ] ', ["en"]),
    ],
)
def test_a_list_is_what_several_fields_say(name: str, text: str, values: list[str]) -> None:
    told = {"response_format": "verbose_json"}
    assert wishes({name: [text]}, **told) == wishes({name: values}, **told)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"type":', "is no JSON: Expecting value"),
        ('{"type": "server_vad"', "is no JSON: Expecting"),
        ("{'type': 'server_vad'}", "is no JSON: Expecting property name"),
        ('{"type": "server_vad"} x', "is no JSON: Extra data"),
        ('{"type": "server_vad", "threshold": NaN}', "NaN is no number of JSON"),
        ('{"type": "server_vad", "threshold": 7}', "a number from 0 to 1 is right"),
        ('{"type": "server_vad", "threshold": 1e999}', "a number from 0 to 1 is right"),
        ('{"type": "server_vad", "threshold": true}', "a number from 0 to 1 is right"),
        ('{"type": "server_vad", "threshold": [0.5]}', "has a list in it; a text or a number is right"),
        ('{"type": {"type": "server_vad"}}', "has an object in it; a text or a number is right"),
        ('{"type": "none"}', "one of server_vad is right"),
        ('{"type": 1}', "is '1'; one of server_vad is right"),
        ('{"type": "server_vad", "type": "server_vad"}', "chunking_strategy[type] is given twice"),
        ('{"type": "server_vad", "depth": 1}', "field 'chunking_strategy[depth]' is unknown"),
        ('{"threshold": 0.5}', "comes with chunking_strategy[type]=server_vad"),
        ('["server_vad"]', "a text or an object of JSON is right"),
        ("server_vad", "one of auto is right"),
        ('{"a":' * 200, "is no JSON"),
        ('{"a":' + "[" * 1000, "is no JSON"),
    ],
)
def test_an_object_that_is_wrong_is_named(text: str, said: str) -> None:
    error = wrong(**{CHUNKING: text})
    assert said in error.message
    assert (error.param or "").startswith(CHUNKING)
    assert (error.param or "") in error.message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("timestamp_granularities", '["word"', "is no JSON"),
        ("timestamp_granularities", '["phone"]', "is 'phone'; one of segment, word is right"),
        ("timestamp_granularities", '{"word": true}', "one of segment, word is right"),
        ("timestamp_granularities", '[["word"]]', "has a list in it; a text or a number is right"),
        ("include", "[1]", "is '1'; one of logprobs is right"),
        ("include", "[" * 1000, "is no JSON"),
        ("languages", '["fr"]', "is 'fr'; one of zh, en, yue, ja, ko is right"),
        ("languages", json.dumps(["zh", "en"] * 60), "has more than 100 values"),
        ("keywords", '["Hangzhou"]', "keywords is not supported"),
        ("known_speaker_names", '["a", "b"]', "known_speaker_names is not supported"),
        ("known_speaker_references", "[" * 100_000, "known_speaker_references is not supported"),
    ],
)
def test_a_list_that_is_wrong_is_named(name: str, text: str, said: str) -> None:
    error = wrong({name: [text]})
    assert said in error.message
    assert error.param == name
    assert name in error.message


def test_an_object_and_its_members_are_not_both_right() -> None:
    whole = json.dumps({"type": "server_vad", "threshold": 0.5})
    assert "is given twice" in wrong(**{CHUNKING: whole, f"{CHUNKING}[type]": "server_vad"}).message


@given(st.text(max_size=60).map(lambda text: text.encode(errors="replace").decode()))
def test_whatever_an_object_holds_is_taken_or_named(text: str) -> None:
    for given_text in (text, "{" + text, '{"type":' + text, "[" + text):
        for form in (Form(fields={CHUNKING: given_text}), Form(lists={"include": [given_text]})):
            with suppress(BadRequest):
                openai_fields.parse_fields(form, SERVED)


# What OpenAI ignores.


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt"])
def test_granularities_say_nothing_beside_other_formats(response_format: str) -> None:
    for values in (["word"], ["segment"], ["word", "segment"]):
        asked = wishes({"timestamp_granularities": values}, response_format=response_format)
        assert asked == wishes(response_format=response_format)
    error = wrong({"timestamp_granularities": ["phone"]}, response_format=response_format)
    assert error.param == "timestamp_granularities"


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_whisper_1_is_never_streamed(response_format: str) -> None:
    told = {"response_format": response_format, "model": "whisper-1"}
    assert wishes(**told, stream="true") == wishes(**told)
    assert not wishes(**told, stream="true").stream


def test_other_models_stream_what_can_be_streamed() -> None:
    for told in ({"model": "gpt-4o-transcribe"}, {}):
        assert wishes(**told, stream="true").stream
        assert wrong(**told, stream="true", response_format="srt").param == "response_format"
