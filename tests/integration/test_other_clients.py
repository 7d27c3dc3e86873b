"""Vercel's AI SDK and LiteLLM as they are, against the real service, with the options that users set."""

from __future__ import annotations

from typing import Any

import pytest
from other_clients import ai_sdk, litellm
from service import CLIPS, Service

CLIP = str(CLIPS / "en_1.flac")
TEXT = "Book a table at 1:25 a.m."
OTHER_FULL_STOP = "Book a table at 1:25 a.m。"
WORDS = ["Book", "a", "table", "at", "1:25", "a.m."]
WRONG_LANGUAGE = "language is 'fr'; one of auto, zh, en, yue, ja, ko is right"

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "words": {"timestampGranularities": ["word"]},
    "segments": {"timestampGranularities": ["segment"]},
    "all": {
        "language": "en",
        "prompt": "A restaurant.",
        "temperature": 0.2,
        "timestampGranularities": ["word", "segment"],
        "include": ["logprobs"],
    },
    "an empty language": {"language": ""},
    "a tag": {"language": "en-GB"},
    "a name": {"language": "English"},
}
"""providerOptions.openai"""
MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize")


@pytest.fixture(scope="module")
def said(service: Service) -> dict[tuple[str, str], dict[str, Any]]:
    """What the AI SDK returns, by model and options; one process asks for all."""
    asked = [(model, name) for model in MODELS for name in OPTIONS]
    calls = [{"file": CLIP, "model": model, "options": OPTIONS[name]} for model, name in asked]
    return dict(zip(asked, ai_sdk(service.url, calls), strict=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_ai_sdk_gets_the_text_with_every_option(
    said: dict[tuple[str, str], dict[str, Any]], model: str, options: str
) -> None:
    answer = said[model, options]
    assert answer["text"] == TEXT, answer
    assert answer["durationInSeconds"] == pytest.approx(2.83, abs=0.01)
    assert answer["warnings"] == []


def test_the_ai_sdk_has_times_where_it_asks_for_verbose_json(
    said: dict[tuple[str, str], dict[str, Any]],
) -> None:
    assert [segment["text"] for segment in said["whisper-1", "words"]["segments"]] == WORDS
    times = [
        segment[edge]
        for segment in said["whisper-1", "words"]["segments"]
        for edge in ("startSecond", "endSecond")
    ]
    assert times == sorted(times)
    assert [segment["text"] for segment in said["whisper-1", "segments"]["segments"]] == [TEXT]
    assert said["gpt-4o-transcribe", "words"]["segments"] == []


def test_the_ai_sdk_tells_what_is_wrong(service: Service) -> None:
    wrong = [
        {"file": CLIP, "model": "whisper-1", "options": {"language": "fr"}},
        {"file": CLIP, "model": "whisper-2", "options": {}},
    ]
    language, model = ai_sdk(service.url, wrong)
    assert language == {"error": WRONG_LANGUAGE, "status": 400}
    assert model["status"] == 404
    assert "model 'whisper-2' is not served" in model["error"]


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"model": "openai/whisper-1"}, TEXT),
    ({"model": "openai/gpt-4o-transcribe"}, TEXT),
    (
        {
            "model": "openai/gpt-4o-transcribe",
            "language": "en",
            "prompt": "A restaurant.",
            "temperature": 0,
            "timestamp_granularities": ["word"],
        },
        TEXT,
    ),
    ({"model": "openai/whisper-1", "response_format": "text", "timestamp_granularities": ["word"]}, TEXT),
    (
        {"model": "openai/whisper-1", "response_format": "srt", "timestamp_granularities": ["word"]},
        f"1\n00:00:00,150 --> 00:00:02,690\n{TEXT}\n",
    ),
    ({"model": "openai/gpt-4o-transcribe", "chunking_strategy": {"type": "server_vad"}}, TEXT),
    ({"model": "openai/gpt-4o-mini-transcribe", "include": ["logprobs"]}, TEXT),
    ({"model": "openai/whisper-1", "language": "zh-CN"}, OTHER_FULL_STOP),
    ({"model": "openai/whisper-1", "language": "", "temperature": 0.0}, TEXT),
]


def test_litellm_gets_the_text_with_every_option(service: Service) -> None:
    verbose = {
        "model": "openai/whisper-1",
        "response_format": "verbose_json",
        "timestamp_granularities": ["word", "segment"],
    }
    asked = [
        *(arguments for arguments, _ in ARGUMENTS),
        verbose,
        {"model": "openai/whisper-1", "language": "fr"},
    ]
    *plain, whole, wrong = litellm(
        service.url, [{"file": CLIP, "arguments": arguments} for arguments in asked]
    )
    assert [answer.get("text") for answer in plain] == [text for _, text in ARGUMENTS], plain
    assert [word["word"] for word in whole["words"]] == WORDS
    assert [segment["text"] for segment in whole["segments"]] == [TEXT]
    assert whole["duration"] == pytest.approx(2.83, abs=0.01)
    assert wrong["status"] == 400
    assert WRONG_LANGUAGE in wrong["error"]
