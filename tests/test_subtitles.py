"""Subtitles that people can read and players can parse."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech.subtitles import LINE_WIDTH, LONGEST_SECONDS, _width, cues, to_srt, to_vtt
from asrsvc.speech.types import Segment, Word

ENGLISH = (
    "We sat down at the long table by the window. The rain had not stopped since the morning, and nobody"
    " had thought of bringing an umbrella, so we waited there for most of the afternoon. Then it was over."
)
CHINESE = (
    "我们在窗边的长桌旁坐下来。雨从早上一直下到现在，谁也没有想到要带一把雨伞，"
    "所以我们在那里等了大半个下午。后来雨停了。"
)
JAPANESE = (
    "窓のそばの長いテーブルに座りました。雨は朝からずっと降り続いていて、"
    "だれも傘を持ってこようとは思わなかったので、午後のほとんどをそこで待っていました。チョコレートケーキ。"
)
KOREAN = (
    "우리는 창가의 긴 탁자에 앉았습니다. 비는 아침부터 그치지 않았고,"
    " 아무도 우산을 가져올 생각을 하지 못했기 때문에 우리는 오후 내내 그곳에서"
    " 기다렸습니다. 그리고 비가 그쳤습니다."
)
TEXTS = {"en": ENGLISH, "zh": CHINESE, "ja": JAPANESE, "ko": KOREAN}


def segment(
    text: str, start: float = 0.0, *, each: float = 0.3, spaces: bool | None = None, language: str = "en"
) -> Segment:
    """A segment of words of equal length; of characters, where there are no spaces."""
    if spaces is None:
        spaces = " " in text
    heard = text.split() if spaces else re.findall(r"\w[^\w\s]*", text)
    words = tuple(
        Word(word, start + n * each, start + (n + 1) * each - 0.05, 0.9) for n, word in enumerate(heard)
    )
    end = words[-1].end if words else start + 1.0
    return Segment(start, end, text, language, "unknown", (), 0.9, words)


def times(srt: str) -> list[tuple[str, str]]:
    return re.findall(r"^([\d:,.]+) --> ([\d:,.]+)$", srt, re.MULTILINE)


def test_srt_is_written_as_players_read_it() -> None:
    assert to_srt([segment("Good morning."), segment("See you.", 3661.5)]) == (
        "1\n00:00:00,000 --> 00:00:00,833\nGood morning.\n\n2\n01:01:01,500 --> 01:01:02,050\nSee you.\n"
    )


def test_vtt_is_written_as_browsers_read_it() -> None:
    assert to_vtt([segment("Good morning."), segment("See you.", 3661.5)]) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.833\nGood morning.\n\n01:01:01.500 --> 01:01:02.050\nSee you.\n"
    )


def test_nothing_said_gives_an_empty_file() -> None:
    silent = Segment(0.0, 4.0, "", "nospeech", "unknown", ("bgm",), 0.0, ())
    assert to_srt([silent]) == ""
    assert to_vtt([silent]) == "WEBVTT\n"


@pytest.mark.parametrize("language", TEXTS)
def test_lines_are_short_in_every_language(language: str) -> None:
    text = TEXTS[language]
    found = cues([segment(text, language=language)])
    assert len(found) > 2
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < _width(line) <= LINE_WIDTH for line in cue.lines), cue
        assert all(line == line.strip() for line in cue.lines)
        assert cue.end - cue.start <= LONGEST_SECONDS
    glue = " " if " " in text else ""
    assert glue.join(line for cue in found for line in cue.lines) == text
    if not glue:
        assert all(len(line) <= 16 for cue in found for line in cue.lines)


@pytest.mark.parametrize("language", TEXTS)
def test_no_line_begins_with_a_mark_that_belongs_before(language: str) -> None:
    for each in (0.1, 0.2, 0.3, 0.45):
        for cue in cues([segment(TEXTS[language], each=each, language=language)]):
            for line in cue.lines:
                assert line[0] not in "。，、！？ョーっゃ,.!?", cue


def test_a_cue_ends_where_a_sentence_does() -> None:
    found = cues([segment(ENGLISH)])
    assert found[0].lines[-1].endswith("window.")
    assert found[-1].lines[0].startswith("Then")


def test_a_sentence_that_goes_on_is_cut_at_a_comma() -> None:
    text = "if you want to know how it went that day, you only have to ask one of the people who were there"
    assert cues([segment(text, each=0.2)])[0].lines[-1].endswith("day,")


def test_an_abbreviation_ends_no_sentence() -> None:
    text = "I wake up at seven forty a.m. every morning."
    (cue,) = cues([segment(text, each=0.2)])
    assert " ".join(cue.lines) == text


def test_a_pause_ends_a_cue() -> None:
    words = (Word("one", 0.0, 0.4, 1.0), Word("two", 3.0, 3.4, 1.0))
    found = cues([Segment(0.0, 3.4, "one two", "en", "unknown", (), 1.0, words)])
    assert [(cue.start, cue.lines) for cue in found] == [(0.0, ("one",)), (3.0, ("two",))]


def test_times_are_those_of_the_words() -> None:
    said = segment(ENGLISH, 100.0)
    starts = {word.start for word in said.words}
    assert all(cue.start in starts for cue in cues([said]))
    assert cues([said])[-1].end == pytest.approx(said.words[-1].end)


def test_latin_words_in_chinese_keep_their_spaces() -> None:
    words = tuple(
        Word(w, n * 0.3, n * 0.3 + 0.2, 0.9) for n, w in enumerate(("我", "爱", "New", "York", "。"))
    )
    said = Segment(0.0, 1.5, "我爱 New York 。", "zh", "unknown", (), 0.9, words)
    assert [cue.lines for cue in cues([said])] == [("我爱 New York 。",)]


def test_a_word_longer_than_a_line_is_cut() -> None:
    found = cues([segment("a" * 300, each=9.0, spaces=True)])
    assert "".join(line for cue in found for line in cue.lines) == "a" * 300
    assert all(len(line) <= LINE_WIDTH for cue in found for line in cue.lines)
    assert all(cue.end - cue.start <= LONGEST_SECONDS for cue in found)


def test_text_without_words_is_cut_too() -> None:
    said = Segment(5.0, 25.0, CHINESE, "zh", "unknown", (), 0.9, ())
    found = cues([said])
    assert "".join(line for cue in found for line in cue.lines) == CHINESE
    assert (found[0].start, found[-1].end) == (5.0, 25.0)
    assert all(_width(line) <= LINE_WIDTH for cue in found for line in cue.lines)


def test_text_is_never_markup() -> None:
    said = segment("<script>alert(1)</script> --> A & B\nnext")
    vtt = to_vtt([said])
    assert "&lt;script&gt;" in vtt
    assert "A &amp; B next" in vtt
    assert "<" not in vtt.removeprefix("WEBVTT")
    assert len(times(vtt)) == len(times(to_srt([said]))) == len(re.findall("-->", to_srt([said])))


def test_short_cues_stay_until_the_next_one_at_most() -> None:
    said = (("No.", 0.0), ("Yes.", 0.5), ("Why?", 4.0))
    found = cues([segment(text, at, each=0.2, spaces=True) for text, at in said])
    assert [(cue.start, cue.end) for cue in found] == [(0.0, 0.5), (0.5, 1.333), (4.0, 4.15)]


@given(
    st.lists(
        st.tuples(
            st.text("ab c,.。あっー漢<&\n-→>", max_size=120),
            st.floats(0, 5),
            st.sampled_from([0.0, 0.01, 0.2, 2.0]),
        ),
        max_size=6,
    )
)
def test_whatever_is_said_the_file_is_well_formed(
    parts: list[tuple[str, float, float]],
) -> None:
    said, now = [], 0.0
    for text, gap, each in parts:
        said.append(segment(text, now + gap, each=each) if each else segment(text, now + gap, each=0.0))
        now = max(now, said[-1].end)
    found = cues(said)
    for cue in found:
        assert cue.end > cue.start
        assert all(line and "\n" not in line for line in cue.lines)
    for one, two in itertools.pairwise(found):
        assert one.end <= two.start
    shown = "".join(line for cue in found for line in cue.lines)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", "".join(s.text for s in said))
    for written in (to_srt(said), to_vtt(said)):
        assert len(times(written)) == len(found)
