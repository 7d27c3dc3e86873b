"""From figures to a verdict."""

from __future__ import annotations

import re

import pytest

from asrsvc.release.error_rate import Errors
from asrsvc.release.trial.types import ClipResult, Measured, Reference, TrialOptions
from asrsvc.release.trial.verdict import judge

SECONDS = {"x.flac": 2.0}


def measured(
    version: str,
    edits: int,
    cpu: float = 0.2,
    *,
    problem: str | None = None,
    garbage: str | None = None,
) -> Measured:
    clip = ClipResult("x.flac", "en", 2.0, "said", "truth", Errors(edits, 100))
    return Measured(
        version,
        clips=[clip],
        cpu_seconds={"x.flac": cpu},
        rounds=12,
        problem=problem,
        garbage=garbage,
    )


GOOD = measured("a", 2)
SAME = Reference(compared=10, equal=10)


@pytest.mark.parametrize(
    ("tried", "serving", "options", "reference", "says"),
    [
        (measured("b", 7), GOOD, TrialOptions(), SAME, None),
        (
            measured("b", 8),
            GOOD,
            TrialOptions(),
            SAME,
            "is 0.0800 .8 edits for 100 characters of 1 clips.; 0.0700 is",
        ),
        (measured("b", 8), GOOD, TrialOptions(max_cer=0.08), SAME, None),
        (measured("b", 1), GOOD, TrialOptions(max_cer=0.0), SAME, "0.0000 is the limit .as asked for."),
        (measured("b", 50), None, TrialOptions(), SAME, None),
        (measured("b", 51), None, TrialOptions(), SAME, "no serving version to compare with"),
        (measured("b", 51), measured("a", 60, problem="broke"), TrialOptions(), SAME, "no serving version"),
        (measured("b", 61), measured("a", 60), TrialOptions(), SAME, None),
        (measured("b", 2, 1.0), GOOD, TrialOptions(), SAME, None),
        (measured("b", 2, 1.1), GOOD, TrialOptions(), SAME, "is slow: 0.5500 .* 5.5 times the 0.1000 of a"),
        (measured("b", 2, 1.1), GOOD, TrialOptions(max_slowdown=6), SAME, None),
        (measured("b", 2, 1.99), None, TrialOptions(), SAME, None),
        (measured("b", 2, 2.01), None, TrialOptions(), SAME, "slower than real time: 1.0050 CPU .* 1 is the"),
        (measured("b", 2, 7.9), None, TrialOptions(threads=4), SAME, None),
        (measured("b", 2, 9.0), None, TrialOptions(threads=4), SAME, "4 is the limit with 4 threads"),
        (measured("b", 2, 0.0109), measured("a", 2, 0.001), TrialOptions(), SAME, None),  # 5 ms: nothing
        (measured("b", 2, 0.0111), measured("a", 2, 0.001), TrialOptions(), SAME, "at best of 12 runs"),
        (measured("b", 0, garbage="it is rubbish"), GOOD, TrialOptions(), SAME, "^It is rubbish.$"),
        (measured("b", 0, problem="it broke"), GOOD, TrialOptions(), SAME, "^It broke.$"),
        (
            measured("b", 2),
            GOOD,
            TrialOptions(),
            Reference("funasr-onnx 1", 10, 9, 0, ("x.flac",)),
            "1 of 10 answers have other token ids than those of funasr-onnx 1: x.flac",
        ),
        (measured("b", 2), GOOD, TrialOptions(), Reference(skipped="not there"), None),
    ],
)
def test_a_version_is_judged(
    tried: Measured, serving: Measured | None, options: TrialOptions, reference: Reference, says: str | None
) -> None:
    verdict = judge(tried, serving, options, SECONDS, reference)
    assert verdict.passed == (says is None)
    if says is not None:
        assert re.search(says, verdict.reason), verdict.reason
    else:
        assert "character error rate is 0." in verdict.reason


def test_every_reason_is_told() -> None:
    verdict = judge(measured("b", 90, 9.0, garbage="it is rubbish"), GOOD, TrialOptions(), SECONDS, SAME)
    assert len(verdict.reasons) == 3
    assert verdict.slowdown == pytest.approx(45)


@pytest.mark.parametrize("serving", [None, measured("a", 0, problem="broke")])
def test_by_itself_a_version_may_write_the_embedded_clips_in_its_own_way(serving: Measured | None) -> None:
    found = judge(measured("b", 70), serving, TrialOptions(), SECONDS, SAME, own_recordings=False)
    assert found.passed
    assert found.limit is None
    for demand in ("It loads", "finite", "words of the right languages", "faster than real time", "0.7000"):
        assert demand in found.reason
    asked = TrialOptions(max_cer=0.5)
    assert not judge(measured("b", 70), serving, asked, SECONDS, SAME, own_recordings=False).passed
    assert not judge(measured("b", 70), GOOD, TrialOptions(), SECONDS, SAME, own_recordings=False).passed
