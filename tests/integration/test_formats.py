"""One clip in every format gives the same text, whatever the file is called."""

from pathlib import Path

import pytest
from formats import FORMATS, SECONDS, TEXT, Format, make
from service import Service


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_gives_the_same_text(service: Service, tmp_path: Path, form: Format) -> None:
    answer = service.transcribe(f"clip.{form.suffix}", make(form.name, tmp_path))
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == TEXT
    assert answer.json()["duration"] == pytest.approx(SECONDS, abs=form.padding + 0.001)


@pytest.mark.parametrize("name", ["flac", "mp3-xing-vbr", "m4a-moov-last", "wav-mulaw", "webm-video"])
@pytest.mark.parametrize("called", ["a.txt", "clip", "x.mp3", "x.wav", "x.m4a", "übung 录音.flac"])
def test_the_name_of_the_file_makes_no_difference(
    service: Service, tmp_path: Path, name: str, called: str
) -> None:
    answer = service.transcribe(called, make(name, tmp_path))
    assert (answer.status_code, answer.json().get("text")) == (200, TEXT), answer.text
