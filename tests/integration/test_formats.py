"""One clip in every format gives the same text, whatever the file is called and whatever its header says."""

from pathlib import Path

import pytest
from formats import FORMATS, SECONDS, TEXT, Format, make
from job_client import JobClient
from service import Service
from streams import streaming

RECORDINGS = Path(__file__).resolve().parent.parent / "data" / "recordings"
WRONG_HEADERS = ["01a", "04a", "04b", "04c", "05a", "05c", "05d", "10"]
"""recordings whose length is unknown, wrong or invented, and one whose channels cancel"""


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


def recording(name: str) -> bytes:
    (path,) = RECORDINGS.glob(f"{name}_*")
    return path.read_bytes()


@pytest.mark.parametrize("name", WRONG_HEADERS)
def test_a_recording_with_a_wrong_header_gives_its_text(service: Service, name: str) -> None:
    answer = service.transcribe("x", recording(name))
    assert (answer.status_code, answer.json().get("text")) == (200, TEXT), answer.text
    assert answer.json()["duration"] == pytest.approx(SECONDS, abs=0.001)


@pytest.mark.parametrize("name", ["01a", "04c", "05d"])
def test_a_recording_with_a_wrong_header_in_a_stream_and_as_a_job(service: Service, name: str) -> None:
    with streaming(service, recording(name)) as (head, found):
        assert head.status_code == 200
        *_told, done, _end = found
    assert isinstance(done, dict)
    assert done["text"] == TEXT
    jobs = JobClient(service)
    job = jobs.begin(recording(name))
    assert jobs.wait_ended(job)["status"] == "succeeded"
    assert jobs.result(job)["text"] == TEXT
