"""Answers can be sent, whatever they repeat, and say how they may be kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.errors import BadRequest, JobsUnavailable
from asrsvc.web.answers import error_body, error_response, json_text, with_defaults

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY_TEXT)
def test_an_answer_that_repeats_any_text_can_be_sent(text: str) -> None:
    response = error_response(BadRequest(f"it is {text}", param=text[:60]))
    found = json.loads(bytes(response.body))
    assert found["error"]["message"] == "it is " + as_shown(text)


def as_shown(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= one <= "\udfff" else one for one in text)


def test_half_a_character_is_shown_as_what_cannot_be_shown() -> None:
    assert json_text({"a\ud800": ["\udfff", "\U0001f600"]}) == '{"a\ufffd":["\ufffd","\U0001f600"]}'


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ([], [b"nosniff", b"no-store"]),
        ([(b"cache-control", b"no-cache")], [b"nosniff"]),
        ([(b"Cache-Control", b"no-cache"), (b"X-Content-Type-Options", b"nosniff")], []),
    ],
)
def test_every_answer_says_what_it_does_not_say_otherwise(
    own: list[tuple[bytes, bytes]], said: list[bytes]
) -> None:
    found = with_defaults(own)
    assert found[: len(own)] == own
    assert [value for _name, value in found[len(own) :]] == said


def test_what_names_a_file_of_the_operator_is_told_to_nobody_else() -> None:
    error = JobsUnavailable("/var/lib/asr/jobs/jobs.sqlite cannot be used: file is not a database")
    told = error_body(error)["error"]
    assert "/" not in told["message"]
    assert told["code"] == "jobs_unavailable"
