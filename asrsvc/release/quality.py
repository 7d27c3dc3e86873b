"""The quality of versions over time: the error rates that their trials found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asrsvc.errors import StoreError
from asrsvc.release.store import Store


@dataclass(frozen=True, slots=True)
class Quality:
    """What one trial said of a version's texts."""

    when: str
    """UTC, ISO 8601"""
    version: str
    passed: bool
    set_name: str
    """the recordings, for people"""
    set_digest: str
    """rates on sets of another digest cannot be compared"""
    clips: int
    rate: float
    """character error rate over all recordings"""
    languages: Mapping[str, float]
    """language → character error rate"""
    slowdown: float | None
    """CPU time against the version that served then"""

    def to_json(self) -> dict[str, Any]:
        """As `history --quality --json` prints it."""
        return {
            "when": self.when,
            "version": self.version,
            "passed": self.passed,
            "set": {"name": self.set_name, "digest": self.set_digest, "clips": self.clips},
            "cer": self.rate,
            "languages": dict(self.languages),
            "slowdown": self.slowdown,
        }


def quality(store: Store) -> list[Quality]:
    """What the trials of all versions found, the oldest first; trials that came to no texts are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    found = []
    for version in store.versions():
        try:
            trials = store.record(version.id).trials
        except StoreError:
            continue  # a damaged record is told wherever it matters
        found += [row for trial in trials if (row := _row(version.id, trial)) is not None]
    return sorted(found, key=lambda row: (row.when, row.version))


def quality_table(rows: Iterable[Quality]) -> str:
    """The same as text: a line a trial, a column a language.

    Trials on other recordings stand in blocks of their own, since their rates cannot be compared.
    """
    blocks: dict[str, list[Quality]] = {}
    for row in rows:
        blocks.setdefault(row.set_digest, []).append(row)
    texts = [_block(block) for block in blocks.values()]
    return "\n\n".join(texts) or "no trial has compared texts yet: bin/swap-model try VERSION"


def _block(rows: list[Quality]) -> str:
    last = rows[-1]
    languages = sorted({language for row in rows for language in row.languages})
    table = [("when", "version", "trial", "all", *languages)]
    for row in rows:
        rates = [f"{row.languages[name]:.4f}" if name in row.languages else "" for name in languages]
        verdict = "passed" if row.passed else "failed"
        table.append((row.when[:19], row.version, verdict, f"{row.rate:.4f}", *rates))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    head = f"character error rates on {last.set_name}: {last.clips} recordings, set {last.set_digest}"
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _row(version: str, trial: Mapping[str, Any]) -> Quality | None:
    """A trial as its record has it; None if it has no rates, or was written by hand."""
    try:
        rate, clips = trial["error_rate"], trial["set"]
        if not rate["clips"]:
            return None
        slowdown = trial.get("slowdown")
        return Quality(
            when=str(trial["when"]),
            version=version,
            passed=trial["passed"] is True,
            set_name=str(clips["name"]),
            set_digest=str(clips["digest"]),
            clips=int(clips["clips"]),
            rate=float(rate["cer"]),
            languages={str(name): float(row["cer"]) for name, row in rate["languages"].items()},
            slowdown=None if slowdown is None else float(slowdown),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
