"""The last look at a model before its worker serves: real clips, what they should say, what it costs.

What a model must say is what it said in its trial. Without a trial of these files on such a machine,
texts like the known ones will do, at a cost like that of the version that serves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import ModelError, StoreError
from asrsvc.release.records import Records
from asrsvc.release.speed import milliseconds, slow
from asrsvc.speech.sample import Heard, garbage

log = logging.getLogger(__name__)

MAX_SLOWDOWN: Final = 5.0
"""CPU time against that of the serving version, or of the trial"""
MAX_COST: Final = 1.0
"""CPU seconds for a second of sound, of a version without a trial that could be compared with"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the same files gave in their trial, in the same engine."""

    texts: Mapping[str, str]
    """file name of each clip → its text"""
    cost: float
    """CPU seconds of the engine for a second of sound"""


def has_served(store: Path, version: str) -> bool:
    """Whether a version has served well before, by its record.

    Args:
        store: root folder of the store.
        version: id of the version.
    """
    try:
        return Records(store).read(version).last_served is not None
    except StoreError:
        return False


def expected(
    store: Path, version: str, digests: Mapping[str, str], engine: Mapping[str, str]
) -> Expected | None:
    """What the record of a version lets one expect; None without a passed trial that can be compared.

    Args:
        store: root folder of the store.
        version: id of the version.
        digests: SHA-256 of each file that was loaded.
        engine: see `sample.engine_key`.
    """
    try:
        trial = Records(store).read(version).trial
    except StoreError as error:
        log.warning("no trial to compare with: %s", error.message, extra={"version": version})
        return None
    if trial is None or trial.get("passed") is not True:
        return None
    files, heard = trial.get("files"), trial.get("embedded")
    if not isinstance(files, Mapping) or not isinstance(heard, Mapping):
        return None
    if dict(files) != dict(digests) or trial.get("engine") != dict(engine):
        return None
    return _expected(heard)


def _expected(heard: Mapping[str, Any]) -> Expected | None:
    texts, cost = heard.get("texts"), heard.get("cost")
    if not isinstance(texts, dict) or not texts or not isinstance(cost, int | float):
        return None
    return Expected({str(file): str(text) for file, text in texts.items()}, float(cost))


def check(findings: Heard, reference_cost: float | None, trial: Expected | None) -> None:
    """Compare with what is known.

    Args:
        findings: of this version.
        reference_cost: of the version that serves, or None if none does.
        trial: what this version's own trial gave, or None.

    Raises:
        ModelError: the texts are too far off, or the cost is; says by how much.
    """
    if trial is not None:
        _check_texts(findings.texts, trial.texts)
    elif problem := garbage(findings.likeness):
        raise ModelError(problem)
    if problem := too_slow(findings.cost, findings.runs, reference_cost, trial):
        raise ModelError(problem)


def too_slow(cost: float, runs: int, reference_cost: float | None, trial: Expected | None) -> str | None:
    """Why a version is not to serve by its cost; None if it may. Before it is refused, measure again.

    Args:
        cost: CPU seconds for a second of sound, the best of some runs.
        runs: how many they were.
        reference_cost: as for `check`.
        trial: as for `check`.
    """
    took = f"the model is slow: at best of {runs} runs it took {milliseconds(cost)} of CPU time for a second"
    if trial is None and cost > MAX_COST:
        return f"{took} of sound; it must be faster than the sound"
    # A version that is slower by nature has been let through by its trial: it is its own measure.
    known = max(reference_cost or 0.0, trial.cost if trial is not None else 0.0)
    if not known or not slow(cost, known, MAX_SLOWDOWN):
        return None
    of_trial = trial is not None and known == trial.cost
    whose = "it took in its trial" if of_trial else "the version that serves takes"
    return (
        f"{took} of sound, {cost / known:.1f} times the CPU time that {whose} ({milliseconds(known)});"
        f" {MAX_SLOWDOWN:g} times is the limit"
    )


def _check_texts(texts: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Letter by letter: the same files in the same engine give the same numbers."""
    heard = [file for file in known if file in texts]  # a known version hears the shortest alone
    for file in heard or known:
        said, text = texts.get(file), known[file]
        if said != text:
            raise ModelError(
                f"the model says other things than in its trial: {said!r} for the clip {file},"
                f" where it said {text!r}: try it again (bin/swap-model try)"
            )
