"""What answers say of warnings: every field in the body, nothing but codes in a header."""

from __future__ import annotations

import json

import pytest

from asrsvc.speech.joining import whole
from asrsvc.speech.types import AUDIO_INCOMPLETE, Notice
from asrsvc.web.fields import parse
from asrsvc.web.form import Form
from asrsvc.web.notes import of_transcript
from asrsvc.web.notices import CODES, HEADER, INCOMPLETE, headers, refuses, warning_bodies
from asrsvc.web.openai_answers import Writer
from asrsvc.web.openai_fields import parse_fields
from asrsvc.web.transcriptions import answer

HOSTILE = 'a\r\nSet-Cookie: b\r\n\r\n<script>"\u2028\u0000é'
NOTICES = (Notice(AUDIO_INCOMPLETE, HOSTILE), Notice("another_code", "of tomorrow", "language"))


def test_a_header_holds_codes_and_no_words() -> None:
    assert headers(NOTICES) == {HEADER: "audio_incomplete, another_code"}
    assert headers(NOTICES[:1]) == {HEADER: AUDIO_INCOMPLETE}
    assert headers(()) == {}


def test_codes_are_safe_in_a_header_and_as_a_label() -> None:
    for code in CODES:
        assert code.isascii()
        assert code.replace("_", "").isalnum()


@pytest.mark.parametrize("warned", [True, False])
def test_every_body_has_the_warnings_where_there_are_any(warned: bool) -> None:
    transcript = whole((), 1.0, NOTICES if warned else ())
    writer = Writer(parse_fields(Form(), ()))
    bodies = [answer(transcript, "none"), writer.json(transcript), writer.verbose(transcript)]
    for body in [*bodies, writer.done(transcript)]:
        found = json.loads(json.dumps(body))
        if warned:
            assert found["warnings"] == warning_bodies(NOTICES)
            assert found["warnings"][0]["message"] == HOSTILE
        else:
            assert "warnings" not in found
    note = of_transcript(transcript)
    assert note.get("warnings") == ([AUDIO_INCOMPLETE, "another_code"] if warned else None)


@pytest.mark.parametrize(
    ("given", "by_default", "refused"),
    [
        (None, False, False),
        (None, True, True),
        ("transcribe", True, False),
        ("transcribe", False, False),
        ("refuse", False, True),
        ("refuse", True, True),
    ],
)
def test_the_field_wins_over_the_setting(given: str | None, by_default: bool, refused: bool) -> None:
    form = Form(fields={} if given is None else {"incomplete": given})
    assert refuses(parse([INCOMPLETE], form), by_default=by_default) == refused
    assert parse_fields(form, (), refuse_incomplete=by_default).options.refuse_incomplete == refused
