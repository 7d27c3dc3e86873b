"""The last look at a model before its worker serves: real clips, what they should say, what it costs.

A model that says wrong things, nothing, numbers that are not finite, or that is many times slower
than the one that serves, fails here.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.model import Model
from asrsvc.speech.text import read

CLIPS: Final = Path(__file__).resolve().parent.parent / "clips"
"""clips that come with the service, and manifest.json with what is said in them"""

MIN_LIKENESS: Final = 0.5
"""of the texts to the known ones, 0 to 1 (difflib's ratio, mean over the clips)"""
MAX_SLOWDOWN: Final = 5.0
"""CPU time against that of the serving version"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the warm-up found."""

    likeness: float
    """mean likeness of the texts to the known ones, 0 to 1"""
    cost: float
    """CPU seconds of the engine for a second of sound; the least of two runs"""


def warm_up(model: Model) -> Findings:
    """Run the clips twice.

    Raises:
        ModelError: a clip cannot be read.
        InferenceFailed: the network does not run, or its numbers are not finite.
    """
    likeness: list[float] = []
    costs: list[float] = []
    for clip in _clips():
        samples, _rate = soundfile.read(CLIPS / clip["file"], dtype="float32")
        features = model.extractor.features(samples)
        runs = []
        for _ in range(2):
            started = time.process_time()
            (logits,) = model.engine.run([features], ["auto"], [True])
            runs.append(time.process_time() - started)
        if not np.isfinite(logits).all():
            raise InferenceFailed(f"the engine gives numbers that are not finite for the clip {clip['file']}")
        text = read(logits, model.vocabulary).text
        likeness.append(SequenceMatcher(None, text, clip["withitn"], autojunk=False).ratio())
        costs.append(min(runs) / clip["seconds"])
    return Findings(sum(likeness) / len(likeness), min(costs))


def check(findings: Findings, reference_cost: float | None) -> None:
    """Compare with what is known.

    Args:
        findings: of this version.
        reference_cost: of the version that serves, or None if none does.

    Raises:
        ModelError: the texts are too far off, or the cost is; says by how much.
    """
    if findings.likeness < MIN_LIKENESS:
        raise ModelError(
            f"the model says wrong things: its texts of the warm-up clips are {findings.likeness:.0%} like "
            f"the known ones; {MIN_LIKENESS:.0%} is the least"
        )
    if reference_cost and findings.cost > MAX_SLOWDOWN * reference_cost:
        raise ModelError(
            f"the model is slow: {findings.cost / reference_cost:.1f} times the CPU time of the version that "
            f"serves; {MAX_SLOWDOWN:g} times is the limit"
        )


def _clips() -> list[dict[str, Any]]:
    try:
        clips: list[dict[str, Any]] = json.loads((CLIPS / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{CLIPS / 'manifest.json'} cannot be read: {error}") from error
    return clips
