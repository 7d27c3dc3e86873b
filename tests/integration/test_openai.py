"""The real clients of OpenAI's API, unmodified, against the real service."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import together
from bodies import connection, exchange, form, head, part, read_reply, request, upload
from inspection import GOOD, Inspection, check_error
from occupied import occupied
from service import CLIPS, Service, manifest, running, wait_for
from streams import joined, poisoned, spoken, texts
from waiting import PATIENCE

from asrsvc.web.openai_fields import FIELDS, FORMATS

PATH = "/v1/audio/transcriptions"
CLIP = CLIPS / "en_1.flac"
TEXT = "Book a table at 1:25 a.m."
MIB = 2**20


def client_of(service: Service, **options: Any) -> openai.OpenAI:
    usual = {"base_url": f"{service.url}/v1", "api_key": "none", "timeout": 2 * PATIENCE, "max_retries": 0}
    return openai.OpenAI(**{**usual, **options})


def ask(service: Service, file: Any = CLIP, **options: Any) -> str:
    """The text of a recording, the clip if nothing is said."""
    with client_of(service, **options) as made:
        return made.audio.transcriptions.create(file=file, model="whisper-1").text


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service) as made:
        yield made


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips in five languages, about 40 s."""
    path: Path = tmp_path_factory.mktemp("long") / "ten.flac"
    path.write_bytes(joined(10))
    return path


# Every format.


@pytest.mark.parametrize("clip", spoken(), ids=lambda clip: clip["file"])
def test_json_is_the_text(client: openai.OpenAI, clip: dict[str, Any]) -> None:
    said = client.audio.transcriptions.create(file=CLIPS / clip["file"], model="gpt-transcribe")
    assert said.text == clip["withitn"]
    assert [found.code for found in said.languages or ()] == [clip["language"]]
    assert said.usage is not None
    assert said.usage.type == "duration"
    assert said.usage.seconds == pytest.approx(clip["seconds"], abs=0.01)
    assert said.logprobs is None


def test_text_is_the_text_and_nothing_else(client: openai.OpenAI) -> None:
    assert client.audio.transcriptions.create(file=CLIP, model="whisper-1", response_format="text") == TEXT


def test_srt_has_times_and_short_lines(client: openai.OpenAI, long: Path) -> None:
    srt = client.audio.transcriptions.create(file=long, model="whisper-1", response_format="srt")
    blocks = [block.splitlines() for block in srt.strip().split("\n\n")]
    assert [int(block[0]) for block in blocks] == list(range(1, len(blocks) + 1))
    times = [re.fullmatch(r"(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})", block[1]) for block in blocks]
    assert all(times)
    ordered = [time for match in times if match for time in match.groups()]
    assert ordered == sorted(ordered)
    assert all(len(line) <= 42 for block in blocks for line in block[2:])
    assert " ".join(line for block in blocks for line in block[2:]) == " ".join(texts(10))


def test_vtt_says_the_same_in_its_own_way(client: openai.OpenAI, long: Path) -> None:
    create = client.audio.transcriptions.create
    srt = create(file=long, model="whisper-1", response_format="srt")
    vtt = create(file=long, model="whisper-1", response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.")
    plain = re.sub(r"(\d\d),(\d{3})", r"\1.\2", re.sub(r"^\d+\n", "", srt, flags=re.MULTILINE))
    assert vtt == f"WEBVTT\n\n{plain}"


def test_verbose_json_has_segments_and_what_is_only_here(client: openai.OpenAI, long: Path) -> None:
    said = client.audio.transcriptions.create(file=long, model="whisper-1", response_format="verbose_json")
    assert said.words is None
    assert isinstance(said.duration, float)
    assert said.language in {"en", "zh", "yue", "ja", "ko"}
    assert said.segments is not None
    assert [segment.id for segment in said.segments] == list(range(10))
    assert "".join(segment.text for segment in said.segments) == said.text
    assert [segment.text.strip() for segment in said.segments] == texts(10)
    for segment, clip in zip(said.segments, spoken(), strict=True):
        extra = segment.model_extra or {}
        assert extra["language"] == clip["language"]
        assert extra["emotion"] == "unknown"
        assert extra["events"] == []
        assert 0.5 < extra["confidence"] <= 1
        assert -1 < segment.avg_logprob <= 0
        assert 0 <= segment.no_speech_prob < 0.5
        assert 0 < segment.compression_ratio < 2.4
        assert segment.tokens
        assert segment.temperature == 0
        assert segment.seek == round(segment.start * 100)
        assert 0 <= segment.start < segment.end <= said.duration
    assert said.to_dict()["task"] == "transcribe"


def test_verbose_json_says_how_sure_the_language_is(client: openai.OpenAI) -> None:
    said = client.audio.transcriptions.create(file=CLIP, model="whisper-1", response_format="verbose_json")
    assert said.segments is not None
    for body in (said, *said.segments):
        extra = body.model_extra or {}
        assert list(extra["language_probabilities"]) == ["zh", "en", "yue", "ja", "ko"]
        assert extra["language_probability"] == extra["language_probabilities"]["en"] > 0.9


def test_punctuation_is_left_out_in_every_format(client: openai.OpenAI) -> None:
    for name in ("json", "text", "srt", "vtt", "verbose_json"):
        said = client.audio.transcriptions.create(
            file=CLIP, model="whisper-1", response_format=name, extra_body={"punctuation": "false"}
        )
        assert "Book a table at 1:25 am" in str(said)
        assert "a.m." not in str(said)


def test_words_come_when_they_are_asked_for(client: openai.OpenAI, long: Path) -> None:
    def at(granularities: list[Any]) -> Any:
        return client.audio.transcriptions.create(
            file=long,
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=granularities,
        )

    both, words, segments = at(["word", "segment"]), at(["word"]), at(["segment"])
    assert words.segments is None
    assert segments.words is None
    assert both.words == words.words
    assert both.segments == segments.segments
    times = [time for word in words.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= words.duration
    assert "".join(w.word for w in words.words) == words.text.replace(" ", "")


def test_music_is_an_event_without_text(client: openai.OpenAI) -> None:
    said = client.audio.transcriptions.create(
        file=CLIPS / "bgm.flac", model="whisper-1", response_format="verbose_json"
    )
    assert (said.text, said.language) == ("", "nospeech")
    assert said.segments is not None
    (segment,) = said.segments
    assert (segment.model_extra or {})["events"] == ["bgm"]
    assert segment.no_speech_prob > 0.5
    create = client.audio.transcriptions.create
    assert create(file=CLIPS / "bgm.flac", model="whisper-1", response_format="srt") == ""
    assert create(file=CLIPS / "bgm.flac", model="whisper-1", response_format="vtt") == "WEBVTT\n"
    assert create(file=CLIPS / "bgm.flac", model="whisper-1").languages == []


# Every field.


def test_fields_without_an_effect_are_taken(client: openai.OpenAI) -> None:
    said = client.audio.transcriptions.create(
        file=CLIP,
        model="gpt-4o-transcribe",
        language="en",
        prompt="A restaurant. " * 500,
        temperature=0.4,
        chunking_strategy={
            "type": "server_vad",
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
            "threshold": 0.5,
        },
    )
    assert said.text == TEXT
    again = client.audio.transcriptions.create(file=CLIP, model="whisper-1", chunking_strategy="auto")
    assert again.text == TEXT


def test_the_words_as_spoken(client: openai.OpenAI) -> None:
    said = client.audio.transcriptions.create(file=CLIP, model="whisper-1", extra_body={"use_itn": "false"})
    assert said.text == manifest()[0]["woitn"]


@pytest.mark.parametrize(
    ("languages", "heard"),
    [(["zh"], "zh"), (["zh", "en"], "zh"), (["ko", "ja"], "ko"), (["yue", "en", "ja"], "yue")],
)
def test_the_language_is_among_those_that_may_be_spoken(
    client: openai.OpenAI, languages: list[str], heard: str
) -> None:
    name = next(clip["file"] for clip in spoken() if clip["language"] == heard)
    said = client.audio.transcriptions.create(file=CLIPS / name, model="gpt-transcribe", languages=languages)
    assert [found.code for found in said.languages or ()] == [heard]
    other = [code for code in ("en", "ja") if code != heard]
    forced = client.audio.transcriptions.create(file=CLIPS / name, model="gpt-transcribe", languages=other)
    assert {found.code for found in forced.languages or ()} <= set(other)


def test_how_sure_each_token_is(client: openai.OpenAI, long: Path) -> None:
    said = client.audio.transcriptions.create(file=long, model="gpt-transcribe", include=["logprobs"])
    assert said.logprobs is not None
    assert "".join(row.token or "" for row in said.logprobs) == said.text
    for row in said.logprobs:
        assert bytes(int(byte) for byte in row.bytes or ()).decode() == row.token
        assert row.logprob is not None
        assert row.logprob <= 0


def test_a_stream_of_deltas(client: openai.OpenAI, long: Path) -> None:
    found = list(client.audio.transcriptions.create(file=long, model="gpt-transcribe", stream=True))
    *deltas, done = found
    assert [event.type for event in deltas] == ["transcript.text.delta"] * 10
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == done.text
    assert done.text == client.audio.transcriptions.create(file=long, model="gpt-transcribe").text


def test_an_error_inside_a_stream_is_raised(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(
        file=("a.wav", poisoned(60)), model="gpt-transcribe", stream=True
    )
    with pytest.raises(openai.APIError, match="file holds samples that are not finite") as caught:
        list(stream)
    assert caught.value.code == "audio_undecodable"


# Models.


def test_models_are_listed_with_their_name_and_licence(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    names = {"gpt-transcribe", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "sensevoice-nano"}
    assert names < set(listed)
    for name, model in listed.items():
        assert client.models.retrieve(name) == model
        assert model.object == "model"
        assert model.created > 1_700_000_000
        extra = model.model_extra or {}
        assert extra["name"] == "sensevoice-nano"
        assert extra["licence"] == "mit"
        assert extra["version"] in listed
    (version,) = {(model.model_extra or {})["version"] for model in listed.values()}
    assert client.audio.transcriptions.create(file=CLIP, model=version).text == TEXT


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-5/../x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.transcriptions.create(file=CLIP, model="whisper-2")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_names_of_models_are_a_setting(tmp_path: Path) -> None:
    with running(tmp_path, ASR_WORKERS="1", ASR_THREADS="1", ASR_MODEL_ALIASES="ours") as service:
        client = client_of(service)
        names = [model.id for model in client.models.list()]
        assert names[1:] == ["sensevoice-nano", "ours"]
        assert client.audio.transcriptions.create(file=CLIP, model="ours").text == TEXT
        with pytest.raises(openai.NotFoundError):
            client.audio.transcriptions.create(file=CLIP, model="whisper-1")


# What is wrong.


def test_translation_is_refused_with_a_reason(client: openai.OpenAI) -> None:
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.audio.translations.create(file=CLIP, model="whisper-1")
    assert caught.value.code == "translation_unsupported"


@pytest.mark.parametrize(
    ("asked", "code", "param"),
    [
        ({"response_format": "diarized_json"}, "unsupported_value", "response_format"),
        ({"response_format": "xml"}, "invalid_value", "response_format"),
        ({"keywords": ["Hangzhou"]}, "unsupported_parameter", "keywords"),
        ({"known_speaker_names": ["a"]}, "unsupported_parameter", "known_speaker_names"),
        (
            {"known_speaker_references": ["data:audio/wav;base64," + "A" * 500_000]},
            "unsupported_parameter",
            "known_speaker_references",
        ),
        ({"language": "fr"}, "invalid_value", "language"),
        ({"languages": ["zh", "fr"]}, "invalid_value", "languages"),
        ({"languages": ["auto"]}, "invalid_value", "languages"),
        ({"language": "zh", "languages": ["zh"]}, "invalid_value", "languages"),
        ({"temperature": 1.1}, "invalid_value", "temperature"),
        ({"prompt": "x" * 20_000}, "invalid_value", "prompt"),
        ({"timestamp_granularities": ["phone"]}, "invalid_value", "timestamp_granularities"),
        (
            {"timestamp_granularities": ["phone"], "response_format": "verbose_json"},
            "invalid_value",
            "timestamp_granularities",
        ),
        ({"include": ["words"]}, "invalid_value", "include"),
        ({"include": ["logprobs"], "response_format": "srt"}, "invalid_value", "include"),
        (
            {"stream": True, "response_format": "vtt", "model": "gpt-4o-transcribe"},
            "invalid_value",
            "response_format",
        ),
        ({"chunking_strategy": {"type": "none"}}, "invalid_value", "chunking_strategy[type]"),
        ({"chunking_strategy": {"threshold": 0.1}}, "invalid_value", "chunking_strategy"),
        ({"extra_body": {"diarize": "true"}}, "unknown_field", "diarize"),
        ({"file": ("a.wav", b"")}, "file_empty", "file"),
        ({"file": ("a.wav", b"noise" * 100)}, "audio_undecodable", "file"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_is_wrong_is_named(client: openai.OpenAI, asked: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(**{"file": CLIP, "model": "whisper-1", **asked})
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        code,
        param,
        "invalid_request_error",
    )


WRONG = {
    "text": ["\0", "x" * 100_000],
    "boolean": ["perhaps", "2", "\N{FULLWIDTH DIGIT ONE}"],
    "number": ["nan", "inf", "-1", "1e9", "one", "0x1"],
    "language": ["fr", "xx-YY", "en--US", "\0", "x" * 100_000],
}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_with_every_kind_of_wrong_value(service: Service, field: Any) -> None:
    """Wrong, twice, not UTF-8: each is a 4xx in the shape of OpenAI's errors; an empty one is none."""

    def status(*values: bytes | str) -> int:
        parts = [part(field.name, value) for value in values]
        reply = exchange(service.port, request(form(*parts, part("file", GOOD, "a.flac")), path=PATH))
        if reply.status != 200:
            error = reply.json()["error"]
            assert list(error) == ["message", "type", "param", "code"]
            assert error["type"] == "invalid_request_error"
            assert (error["param"] or "").startswith(field.name.partition("[")[0])
        return reply.status

    refused = bool(field.unsupported)
    assert status("") == status(" \t") == 200
    if field.values:
        assert status("x" * 2000) == 400
    if field.values and field.kind != "language":
        assert status(field.values[0].upper()) == 400
    for wrong in WRONG[field.kind]:
        assert status(wrong) in {400, 404} or (field.name == "prompt" and wrong == "\0")
    assert status(b"\xff\xfe") == 400
    good = field.default or next(iter(field.values), "0.5" if field.kind == "number" else "whisper-1")
    twice = status(good, good)
    if not field.many or refused:
        assert twice == 400
    else:
        assert twice in {200, 400}  # as it fits the other fields


def test_lists_come_with_brackets_and_without(service: Service) -> None:
    for name in ("timestamp_granularities", "timestamp_granularities[]"):
        body = form(
            part("response_format", "verbose_json"),
            part(name, "word"),
            part(name, "segment"),
            part("file", GOOD, "a.flac"),
        )
        answer = exchange(service.port, request(body, path=PATH)).json()
        assert answer["words"]
        assert answer["segments"]
    many = form(*[part("languages[]", "zh")] * 200, part("file", GOOD, "a.flac"))
    reply = exchange(service.port, request(many, path=PATH))
    check_error(reply.json(), "invalid_value", "more than 100 times", param="languages")
    brackets = form(part("language[]", "zh"), part("file", GOOD, "a.flac"))
    check_error(
        exchange(service.port, request(brackets, path=PATH)).json(), "unknown_field", param="language[]"
    )


def test_a_file_is_needed_and_only_one(service: Service) -> None:
    for body, code in (
        (form(part("model", "whisper-1")), "missing_field"),
        (form(part("file", GOOD, "a"), part("file", GOOD, "b")), "invalid_value"),
    ):
        reply = exchange(service.port, request(body, path=PATH))
        assert reply.status == 400
        check_error(reply.json(), code, param="file")


def test_names_of_files_do_no_harm(service: Service) -> None:
    for name in ("../../etc/passwd", "a\\r\\nX-Evil: 1", "<script>.wav", "\N{HANGUL SYLLABLE GA}" * 80, ""):
        reply = exchange(service.port, request(upload(GOOD, name), path=PATH))
        assert reply.json()["text"] == TEXT
        assert "x-evil" not in reply.headers


# Refusals that the header alone decides.


def test_what_the_header_decides_is_said_in_the_same_shape(service: Service) -> None:
    large = str(2**40)
    cases = {
        "404": (head("GET", "/v1/nothing", length=0), 404, "not_found"),
        "405": (head("GET", PATH, length=0), 405, "method_not_allowed"),
        "405 models": (head("DELETE", "/v1/models", length=0), 405, "method_not_allowed"),
        "413": (head(path=PATH, length=int(large)), 413, "upload_too_large"),
        "415": (head(path=PATH, length=2, content_type="application/json"), 415, "unsupported_media_type"),
        "400": (head(path=PATH, length=2, content_type="multipart/form-data"), 400, "invalid_value"),
        "translations": (
            head(path="/v1/audio/translations", length=50 * MIB),
            400,
            "translation_unsupported",
        ),
    }
    for sent, status, code in cases.values():
        with connection(service.port) as made:
            made.sendall(sent)
            reply = read_reply(made)
        assert (reply.status, reply.json()["error"]["code"]) == (status, code)
        assert list(reply.json()["error"]) == ["message", "type", "param", "code"]
    Inspection(service).check()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that lets one long recording wait, and takes 60 MiB."""
    settings = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_QUEUE_LIMIT": "1", "ASR_MAX_UPLOAD_MB": "60"}
    with running(tmp_path_factory.mktemp("narrow"), **settings) as service:
        yield service


def test_too_large_an_upload(narrow: Service) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client_of(narrow).audio.transcriptions.create(file=("a.wav", bytes(61 * MIB)), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (413, "upload_too_large")


def test_the_client_waits_as_it_is_told_and_tries_again(narrow: Service) -> None:
    """429 while all places are taken; the client's own retries, with Retry-After, do the rest."""
    said: list[str] = []
    # As the client sees them: a line of the log may be late.
    asked: list[float] = []
    answered: list[float] = []
    clock = openai.DefaultHttpxClient(
        event_hooks={
            "request": [lambda _request: asked.append(time.monotonic())],
            "response": [lambda _response: answered.append(time.monotonic())],
        }
    )
    long = ("a.flac", CLIP.read_bytes() + bytes(10 * MIB))

    def refused() -> list[dict[str, Any]]:
        lines = (line for line in narrow.log_lines() if line["message"] == f"POST {PATH}")
        return [line for line in lines if line["status"] == 429]

    with occupied(narrow.port):
        with pytest.raises(openai.RateLimitError) as caught:
            ask(narrow, long)
        assert caught.value.code == "over_capacity"
        assert caught.value.response.headers["retry-after"] == "1"
        # The line comes after the answer.
        own = caught.value.response.headers["x-request-id"]
        wait_for("the line of that", lambda: any(line["request_id"] == own for line in refused()))
        before = len(refused())
        thread = threading.Thread(
            target=lambda: said.append(ask(narrow, long, max_retries=200, http_client=clock))
        )
        thread.start()
        wait_for("two refusals of one client", lambda: len(refused()) >= before + 2)
        again = next(moment for moment in asked if moment > answered[0])
        assert again - answered[0] > 0.9
    thread.join(2 * PATIENCE)
    assert said == [TEXT]


def test_the_listener_of_operators_does_not_transcribe(service: Service) -> None:
    transport = httpx.HTTPTransport(uds=str(service.folder / "run" / "ops.sock"))
    with httpx.Client(transport=transport, base_url="http://ops", timeout=2 * PATIENCE) as ops:
        answer = ops.post(PATH, files={"file": ("a", GOOD)})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    check_error(answer.json(), "not_ready")


# Another client, which writes its requests by itself: lists without brackets.


def test_another_client_gets_the_same(service: Service, client: openai.OpenAI, long: Path) -> None:
    with together.Together(
        base_url=service.url, api_key="none", max_retries=0, timeout=2 * PATIENCE
    ) as other:
        said: Any = other.audio.transcriptions.create(
            file=long,
            model="whisper-1",  # type: ignore[arg-type]
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        with pytest.raises(together.BadRequestError):
            other.audio.transcriptions.create(file=long, language="fr")
    same = client.audio.transcriptions.create(
        file=long,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert said.text == same.text
    assert said.duration == same.duration
    for one, two in zip(said.words, same.words or (), strict=True):
        assert (one.word, one.start, one.end) == (two.word, two.start, two.end)
    for one, two in zip(said.segments, same.segments or (), strict=True):
        assert (one.id, one.start, one.end, one.text) == (two.id, two.start, two.end, two.text)


def test_all_formats_are_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in FORMATS if name != "json")
