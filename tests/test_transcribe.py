"""From a file to its transcript, with the embedded model and everything that a worker has."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
import soundfile
from broken_models import NANO
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from asrsvc.errors import BadAudio, Cancelled, NotReady, TooLarge
from asrsvc.speech.batch import Batcher
from asrsvc.speech.decode import Limits
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.speech.joining import join_texts
from asrsvc.speech.model import Model
from asrsvc.speech.segment import Segmenter
from asrsvc.speech.transcribe import Options, Progress, Transcriber
from asrsvc.speech.types import LANGUAGES, Language, Segment, Transcript, probability_of

RATE = 16_000
CLIPS = Path(__file__).resolve().parent / "data" / "clips"
MANIFEST: dict[str, dict[str, Any]] = {
    clip["file"]: clip for clip in json.loads((CLIPS / "manifest.json").read_text("utf-8"))
}
SPOKEN = [name for name, clip in MANIFEST.items() if clip["language"] != "nospeech"]
DEADLINE = PATIENCE
"""seconds that a test waits for anything"""
MODEL = Model.load(NANO, version="nano", threads=1)
SEGMENTER = Segmenter()
HELPERS = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)


@pytest.fixture(autouse=True, scope="module")
def helpers_are_ended() -> Iterator[None]:
    yield
    HELPERS.close()


def make(**changed: Any) -> Transcriber:
    parts: dict[str, Any] = {
        "segmenter": SEGMENTER,
        "helpers": HELPERS,
        "limits": Limits(max_seconds=600),
        "batcher": Batcher(MODEL.engine, batch_size=1, queue_limit=8),
        "queue_timeout": DEADLINE,
    }
    return Transcriber(MODEL, **parts | changed)


@pytest.fixture(scope="module")
def transcriber() -> Iterator[Transcriber]:
    transcriber = make()
    yield transcriber
    transcriber._batcher.close(DEADLINE)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


def sound(name: str) -> np.ndarray:
    samples: np.ndarray = soundfile.read(CLIPS / name, dtype="float32")[0]
    return samples


def joined(path: Path, names: list[str], pause: float = 1.5) -> Path:
    """Clips with near silence between them, as one recording."""
    quiet = np.random.default_rng(1).normal(0, 1e-4, round(pause * RATE)).astype(np.float32)
    soundfile.write(path, np.concatenate([part for name in names for part in (sound(name), quiet)]), RATE)
    return path


@pytest.fixture(scope="module")
def four_clips(recordings: Path) -> Path:
    """About 16 s: longer than one span of the model."""
    return joined(recordings / "four.wav", ["en_1.flac", "zh_1.flac", "zh_2.flac", "ko_2.flac"])


def transcribe(
    transcriber: Transcriber, path: Path, options: Options | None = None, progress: Progress | None = None
) -> Transcript:
    with opened(path) as descriptor:
        return transcriber.transcribe(descriptor, options or Options(), progress)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("use_itn", [True, False], ids=["with ITN", "without"])
@pytest.mark.parametrize("name", MANIFEST)
def test_every_clip_gives_its_text_with_its_language_named_or_not(
    name: str, use_itn: bool, transcriber: Transcriber
) -> None:
    clip = MANIFEST[name]
    for language in ("auto", clip["language"]):
        if language not in LANGUAGES:
            continue
        said = transcribe(transcriber, CLIPS / name, Options(language=language, use_itn=use_itn))
        assert said.text == clip["withitn" if use_itn else "woitn"]
        assert said.language == clip["language"]
        assert said.emotion == "unknown"
        assert said.duration == pytest.approx(clip["seconds"], abs=0.01)


def test_the_engine_is_told_the_language_that_is_asked_for(transcriber: Transcriber) -> None:
    """The model has never heard Korean asked for Chinese sound: what it says then is not Chinese text."""
    asked = {
        language: transcribe(transcriber, CLIPS / "zh_1.flac", Options(language=language)).language
        for language in LANGUAGES
    }
    assert asked["auto"] == asked["zh"] == "zh"
    assert len(set(asked.values())) > 1


@pytest.mark.parametrize("name", SPOKEN)
def test_words_are_the_text_in_order_inside_their_segment(name: str, transcriber: Transcriber) -> None:
    said = transcribe(transcriber, CLIPS / name, Options(words=True))
    (segment,) = said.segments
    space = " " if segment.language in ("en", "ko") else ""
    assert space.join(word.word for word in segment.words) == segment.text == said.text
    assert all(word.start <= word.end for word in segment.words)
    assert all(one.end <= other.start for one, other in pairwise(segment.words))
    assert 0 <= segment.start <= segment.words[0].start
    assert segment.words[-1].start <= segment.end <= said.duration
    assert all(0 < word.confidence <= 1 for word in segment.words)
    assert 0 < segment.confidence <= 1


def test_words_come_only_when_asked_for(transcriber: Transcriber) -> None:
    (segment,) = transcribe(transcriber, CLIPS / "en_1.flac").segments
    assert segment.words == ()


def test_the_probabilities_of_the_five_languages_say_what_is_spoken(transcriber: Transcriber) -> None:
    for name in SPOKEN:
        said = transcribe(transcriber, CLIPS / name)
        found = {one.language: one.probability for one in said.language_probabilities}
        assert list(found) == list(LANGUAGES[1:])
        assert sum(found.values()) == pytest.approx(1, abs=1e-3)
        assert max(found, key=found.__getitem__) == said.language
        assert probability_of(said.language, said.language_probabilities) == found[said.language] > 0.9
        (segment,) = said.segments
        assert segment.language_probabilities == said.language_probabilities


def test_a_whole_has_the_mean_of_its_languages_over_the_speaking_time(
    transcriber: Transcriber, four_clips: Path
) -> None:
    said = transcribe(transcriber, four_clips)
    seconds = {
        s.language: sum(t.end - t.start for t in said.segments if t.language == s.language)
        for s in said.segments
    }
    spoken = sum(seconds.values())
    found = {one.language: one.probability for one in said.language_probabilities}
    assert found == pytest.approx({n: seconds.get(n, 0.0) / spoken for n in LANGUAGES[1:]}, abs=0.01)


def test_no_language_has_a_probability_where_nothing_was_said(transcriber: Transcriber) -> None:
    music, noise = (transcribe(transcriber, CLIPS / name) for name in ("bgm.flac", "noise.flac"))
    assert probability_of(music.language, music.language_probabilities) is None
    assert noise.language_probabilities == ()


@pytest.mark.parametrize("use_itn", [True, False], ids=["with ITN", "without"])
def test_without_punctuation_digits_and_capitals_stay(*, use_itn: bool, transcriber: Transcriber) -> None:
    for name in SPOKEN:
        options = Options(use_itn=use_itn, punctuation=False, words=True, tokens=True)
        said = transcribe(transcriber, CLIPS / name, options)
        plain = transcribe(transcriber, CLIPS / name, replace(options, punctuation=True))
        (segment,), (whole,) = said.segments, plain.segments
        assert not set(said.text) & set(".,?!。，？！、")
        assert [c for c in said.text if c.isalnum()] == [c for c in plain.text if c.isalnum()]
        assert "".join(said.text[t.begin : t.stop] for t in segment.tokens) == said.text
        assert (segment.start, segment.end) == (whole.start, whole.end)
        assert "".join(w.word for w in segment.words).replace(" ", "") == said.text.replace(" ", "")
        if not use_itn:
            assert said.text == plain.text


def test_tokens_are_the_text_piece_by_piece(transcriber: Transcriber) -> None:
    for name in SPOKEN:
        (segment,) = transcribe(transcriber, CLIPS / name, Options(tokens=True)).segments
        assert "".join(segment.text[t.begin : t.stop] for t in segment.tokens) == segment.text
        sure = [token.confidence for token in segment.tokens]
        assert segment.confidence == pytest.approx(sum(sure) / len(sure), abs=1e-4)
        assert segment.no_speech < 0.5
    assert transcribe(transcriber, CLIPS / "zh_1.flac").segments[0].tokens == ()
    assert transcribe(transcriber, CLIPS / "bgm.flac").segments[0].no_speech > 0.5


@pytest.mark.parametrize("candidates", [("zh",), ("ja", "ko"), ("yue", "zh", "en")])
def test_the_language_is_one_of_the_candidates(
    candidates: tuple[Language, ...], transcriber: Transcriber
) -> None:
    for name in SPOKEN:
        progress = Progress()
        said = transcribe(transcriber, CLIPS / name, Options(candidates=candidates), progress)
        assert said.language in {*candidates, "nospeech"}
        assert progress.spans == 1
        if MANIFEST[name]["language"] in candidates:
            assert said == transcribe(transcriber, CLIPS / name)


def test_noise_stays_noise_whatever_may_be_spoken(transcriber: Transcriber) -> None:
    said = transcribe(transcriber, CLIPS / "noise.flac", Options(candidates=("zh", "en")))
    assert (said.text, said.language) == ("", "nospeech")


def test_the_length_by_the_header_is_known_while_the_rest_is_decoded(
    transcriber: Transcriber, four_clips: Path
) -> None:
    progress = Progress()
    with opened(four_clips) as descriptor:
        segments = transcriber.segments(descriptor, Options(), progress)
        next(segments)
        assert progress.declared_seconds == pytest.approx(soundfile.info(four_clips).duration)
        list(segments)


def test_long_work_leaves_lines_of_progress(
    transcriber: Transcriber,
    four_clips: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("asrsvc.speech.transcribe._PROGRESS_EVERY_SECONDS", 0.0)
    transcribe(transcriber, four_clips)
    told = re.findall(r"at (\d+) s of the recording, (\d+) spans", caplog.text)
    assert len(told) == 4
    seconds, spans = ([int(number) for number in column] for column in zip(*told, strict=True))
    assert (seconds, spans) == (sorted(seconds), sorted(spans))


def test_a_long_recording_is_what_its_clips_are(transcriber: Transcriber, four_clips: Path) -> None:
    said = transcribe(transcriber, four_clips)
    names = ["en_1.flac", "zh_1.flac", "zh_2.flac", "ko_2.flac"]
    assert [segment.text for segment in said.segments] == [MANIFEST[name]["withitn"] for name in names]
    assert [segment.language for segment in said.segments] == ["en", "zh", "zh", "ko"]
    assert (
        said.text
        == "Book a table at 1:25 a.m. 晚上11点半提醒我。我的手机号是742130。 배송일은 5월 5일입니다."
    )
    assert said.language == "zh"


def test_segments_of_a_long_recording_are_in_order_and_inside_it(
    transcriber: Transcriber, four_clips: Path
) -> None:
    said = transcribe(transcriber, four_clips, Options(words=True))
    assert said.duration == pytest.approx(soundfile.info(four_clips).duration, abs=1e-3)
    assert all(0 <= s.start < s.end <= said.duration for s in said.segments)
    assert all(one.end <= other.start for one, other in pairwise(said.segments))
    assert all(word.start <= word.end <= said.duration for s in said.segments for word in s.words)


def test_music_is_an_event_without_text(transcriber: Transcriber) -> None:
    said = transcribe(transcriber, CLIPS / "bgm.flac")
    assert (said.text, said.language, said.events) == ("", "nospeech", ("bgm",))
    assert [(segment.text, segment.events) for segment in said.segments] == [("", ("bgm",))]


def test_noise_has_neither_text_nor_segments(transcriber: Transcriber) -> None:
    said = transcribe(transcriber, CLIPS / "noise.flac")
    assert (said.text, said.language, said.emotion, said.events) == ("", "nospeech", "unknown", ())
    assert said.segments == ()


def test_silence_of_any_length_has_nothing(transcriber: Transcriber, recordings: Path) -> None:
    for seconds in (0.5, 20):
        path = recordings / f"silence-{seconds}.wav"
        soundfile.write(path, np.zeros(round(seconds * RATE), np.float32), RATE)
        said = transcribe(transcriber, path)
        assert (said.text, said.segments, said.duration) == ("", (), seconds)


def test_the_same_file_gives_the_same_transcript(transcriber: Transcriber, four_clips: Path) -> None:
    once = transcribe(transcriber, four_clips, Options(words=True))
    again = transcribe(make(), four_clips, Options(words=True))
    assert once == again


def test_requests_side_by_side_get_what_they_get_alone(transcriber: Transcriber, four_clips: Path) -> None:
    paths = [four_clips, *(CLIPS / name for name in MANIFEST)]
    alone = [transcribe(transcriber, path, Options(words=True)) for path in paths]
    # One span a run: in a batch, the quantised network scales its numbers by the company it has.
    batcher = Batcher(MODEL.engine, batch_size=1, queue_limit=8)
    together = make(batcher=batcher)
    found: dict[int, Transcript] = {}
    threads = [
        threading.Thread(
            target=lambda n, path: found.update({n: transcribe(together, path, Options(words=True))}),
            args=(n, path),
        )
        for n, path in enumerate(paths)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    batcher.close(DEADLINE)
    assert [found[n] for n in range(len(paths))] == alone


def test_progress_says_what_was_done(transcriber: Transcriber, four_clips: Path) -> None:
    progress = Progress()
    said = transcribe(transcriber, four_clips, progress=progress)
    assert progress.spans == len(said.segments) == 4
    assert round(progress.audio_seconds, 3) == said.duration
    assert progress.inference_seconds > 0
    assert progress.decode_seconds > 0


def test_progress_grows_with_every_segment(transcriber: Transcriber, four_clips: Path) -> None:
    progress = Progress()
    seen = []
    with opened(four_clips) as descriptor:
        for segment in transcriber.segments(descriptor, Options(), progress):
            seen.append((progress.spans, progress.audio_seconds, progress.inference_seconds))
            assert progress.audio_seconds >= segment.end
    assert [spans for spans, _audio, _inference in seen] == [1, 2, 3, 4]
    assert seen == sorted(seen)


def test_a_run_that_resumes_finds_the_rest_and_recognises_no_more(
    transcriber: Transcriber, four_clips: Path
) -> None:
    with opened(four_clips) as descriptor:
        progress = Progress()
        places = [
            (segment, progress.reached) for segment in transcriber.segments(descriptor, Options(), progress)
        ]
        expected = [segment for segment, _ in places]
        for number, (_, reached) in enumerate(places, start=1):
            rest = Progress()
            found = [
                found for found in transcriber.hear(descriptor, Options(), rest, resume_at=reached) if found
            ]
            assert found == expected[number:]
            assert rest.spans == progress.spans - number
            assert rest.reached == progress.reached
            assert rest.audio_seconds == progress.audio_seconds


def test_who_gives_way_is_asked_before_each_span_and_each_block_in_silence(
    transcriber: Transcriber, four_clips: Path, recordings: Path
) -> None:
    asked: list[int] = []
    progress = Progress()
    polite = make(batcher=transcriber._batcher, give_way=lambda: asked.append(progress.spans))
    with opened(four_clips) as descriptor:
        found = len(list(polite.segments(descriptor, Options(), progress)))
    assert set(range(found)) <= set(asked)
    asked.clear()
    silent = recordings / "silent minute.flac"
    soundfile.write(silent, np.zeros(60 * RATE, np.int16), RATE)
    with opened(silent) as descriptor:
        assert not list(polite.segments(descriptor, Options()))
    assert len(asked) >= 5


def test_a_model_of_longer_spans_goes_on_where_one_of_shorter_spans_stopped(
    transcriber: Transcriber, four_clips: Path
) -> None:
    """It hears all four clips as one span, and of that what was not recognised yet."""
    with opened(four_clips) as descriptor:
        progress = Progress()
        first = next(iter(transcriber.segments(descriptor, Options(), progress)))
        longer = make(batcher=transcriber._batcher)
        longer.model = replace(MODEL, max_span_seconds=30.0)
        (whole,) = longer.segments(descriptor, Options())
        rest = [found for found in longer.hear(descriptor, Options(), resume_at=progress.reached) if found]
        assert whole.start < first.end
        assert len(rest) == 1
        assert rest[0].start >= progress.reached / RATE
        assert rest[0].end == pytest.approx(whole.end, abs=0.1)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_the_length_that_a_file_declares_is_known_before_its_end(
    transcriber: Transcriber, four_clips: Path, recordings: Path, suffix: str
) -> None:
    path = recordings / f"declared{suffix}"
    if suffix == ".m4a":
        as_m4a(four_clips, path)
    else:
        samples, rate = soundfile.read(four_clips)
        soundfile.write(path, samples, rate)
    with opened(path) as descriptor:
        progress = Progress()
        next(iter(transcriber.segments(descriptor, Options(), progress)))
        assert progress.declared_seconds == pytest.approx(soundfile.info(four_clips).duration, abs=0.1)


def test_what_is_cancelled_between_two_spans_is_dropped(transcriber: Transcriber, four_clips: Path) -> None:
    cancelled = threading.Event()
    progress = Progress()
    with opened(four_clips) as descriptor:
        segments = transcriber.segments(descriptor, Options(), progress, cancelled)
        assert next(segments).text == MANIFEST["en_1.flac"]["withitn"]
        cancelled.set()
        with pytest.raises(Cancelled):
            next(segments)
    assert progress.spans == 1


def test_what_is_cancelled_before_it_begins_is_not_recognised(transcriber: Transcriber) -> None:
    cancelled = threading.Event()
    cancelled.set()
    progress = Progress()
    with opened(CLIPS / "en_1.flac") as descriptor, pytest.raises(Cancelled):
        transcriber.transcribe(descriptor, Options(), progress, cancelled)
    assert progress.spans == 0


@pytest.fixture(scope="module")
def by_helper(recordings: Path) -> Path:
    """A file that libsndfile does not know, long enough that its decoder waits for its reader."""
    long = joined(recordings / "long.wav", ["en_1.flac", "zh_1.flac"] * 10)
    return as_m4a(long, recordings / "long.m4a")


def as_m4a(source: Path, target: Path) -> Path:
    with av.open(str(source)) as one, av.open(str(target), "w") as other:
        stream = other.add_stream("aac", rate=RATE, layout="mono")
        for frame in one.decode(audio=0):
            frame.pts = None
            other.mux(stream.encode(frame))
        other.mux(stream.encode(None))
    return target


def children() -> set[int]:
    """Processes that this one has started, by whichever of its threads."""
    return {child.pid for child in psutil.Process().children()}


def close_early(segments: Iterator[Segment], _cancelled: threading.Event) -> object:
    segments.close()  # type: ignore[attr-defined]
    return None


def cancel(segments: Iterator[Segment], cancelled: threading.Event) -> object:
    cancelled.set()
    with pytest.raises(Cancelled) as caught:
        next(segments)
    return caught  # whoever handles an error holds its traceback, and so the generator's frame


@pytest.mark.parametrize("stop", [close_early, cancel], ids=["closed", "cancelled"])
def test_a_reader_that_stops_early_lets_its_decoder_go(
    stop: Callable[[Iterator[Segment], threading.Event], object], by_helper: Path
) -> None:
    helpers = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
    batcher = Batcher(MODEL.engine, batch_size=1, queue_limit=8)
    transcriber = make(helpers=helpers, batcher=batcher)
    before = children()
    cancelled = threading.Event()
    with opened(by_helper) as descriptor:
        segments = transcriber.segments(descriptor, Options(), None, cancelled)
        next(segments)
        assert len(children() - before) == 1
        held = stop(segments, cancelled)
        assert children() - before == set(helpers.pids())
        del held
    helpers.close()
    batcher.close(DEADLINE)
    assert children() <= before


def test_a_file_that_is_refused_half_way_lets_its_decoder_go(by_helper: Path) -> None:
    helpers = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
    before = children()
    with pytest.raises(TooLarge) as caught:
        transcribe(make(helpers=helpers, limits=Limits(max_seconds=25)), by_helper)
    assert children() - before == set(helpers.pids()), caught.value
    helpers.close()


def test_a_helper_is_kept_for_the_next_file(recordings: Path) -> None:
    helpers = HelperPool(memory_bytes=2**30, block_timeout=DEADLINE)
    transcriber = make(helpers=helpers)
    path = as_m4a(CLIPS / "en_1.flac", recordings / "short.m4a")
    texts = {transcribe(transcriber, path).text for _ in range(2)}
    assert texts == {MANIFEST["en_1.flac"]["withitn"]}
    assert len(helpers.pids()) == 1
    helpers.close()


def test_a_recording_over_the_limit_is_refused(four_clips: Path) -> None:
    with pytest.raises(TooLarge, match="the limit is 10 s"):
        transcribe(make(limits=Limits(max_seconds=10)), four_clips)


def test_what_is_no_sound_is_refused(transcriber: Transcriber, recordings: Path) -> None:
    path = recordings / "text.wav"
    path.write_text("no sound at all\n" * 100)
    with pytest.raises(BadAudio) as caught:
        transcribe(transcriber, path)
    assert caught.value.param == "file"


def test_an_engine_that_is_never_free_is_not_ready() -> None:
    batcher = Batcher(MODEL.engine, batch_size=1, queue_limit=8)
    batcher.close(DEADLINE)
    with pytest.raises(NotReady):
        transcribe(make(batcher=batcher, queue_timeout=0.05), CLIPS / "en_1.flac")


def segment(text: str, language: str = "en") -> Segment:
    return Segment(0.0, 1.0, text, language, "unknown", (), 0.0, ())


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        ([], ""),
        ([("Yes.", "en")], "Yes."),
        ([("Yes.", "en"), ("No.", "en")], "Yes. No."),
        ([("好。", "zh"), ("不。", "zh")], "好。不。"),
        ([("好。", "zh"), ("唔係。", "yue"), ("はい。", "ja")], "好。唔係。はい。"),
        ([("네.", "ko"), ("네.", "ko")], "네. 네."),
        ([("好。", "zh"), ("Yes.", "en"), ("不。", "zh")], "好。 Yes. 不。"),
        ([("はい。", "ja"), ("네.", "ko")], "はい。 네."),
        ([("好。", "zh"), ("", "nospeech"), ("不。", "zh")], "好。不。"),
        ([("", "nospeech"), ("Yes.", "en"), ("", "nospeech")], "Yes."),
        ([("", "nospeech"), ("", "nospeech")], ""),
    ],
)
def test_texts_are_joined_as_their_languages_are_written(segments: list[tuple[str, str]], text: str) -> None:
    assert join_texts(tuple(segment(*said) for said in segments)) == text


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b c"]), st.sampled_from(["zh", "en", "ja"]))))
def test_joining_loses_and_adds_nothing_but_spaces(segments: list[tuple[str, str]]) -> None:
    text = join_texts(tuple(segment(*said) for said in segments))
    assert text.replace(" ", "") == "".join(said for said, _ in segments).replace(" ", "")
    assert text == text.strip()
    assert "  " not in text
