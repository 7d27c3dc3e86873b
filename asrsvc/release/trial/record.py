"""What the record of a version keeps of a trial, and its text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from asrsvc.release.golden import ClipSet
from asrsvc.release.process import plain
from asrsvc.release.trial.types import ClipResult, Measured, Reference, figures
from asrsvc.release.trial.verdict import Verdict

_MOST_CLIPS: Final = 200
"""whose texts are kept, those with the most errors first"""
_LONGEST_TEXT: Final = 500
_SHOWN_CLIPS: Final = 5
_MIB: Final = 2**20


def make_record(
    tried: Measured,
    serving: Measured | None,
    verdict: Verdict,
    reference: Reference,
    *,
    clips: ClipSet,
    embedded_seconds: Mapping[str, float],
    seconds: float,
) -> dict[str, Any]:
    """All that a trial found, as JSON can say it.

    Args:
        tried: the version.
        serving: the one that serves.
        verdict: of the two.
        reference: token ids.
        clips: the acceptance set.
        embedded_seconds: name of an embedded clip → its length.
        seconds: that the trial took.
    """
    worst = sorted(tried.clips, key=lambda clip: (-clip.errors.edits, clip.name))
    return {
        "passed": verdict.passed,
        "reason": verdict.reason,
        "seconds": round(seconds, 1),
        "files": dict(tried.files),
        "engine": dict(tried.engine),
        "baked": dict(tried.baked),
        "set": {"name": clips.name, "digest": clips.digest, "clips": len(clips.clips)},
        "error_rate": {
            **figures(tried.clips),
            "languages": tried.languages(),
            "limit": round(verdict.limit, 4) if verdict.limit is not None else None,
            "limit_from": verdict.limit_from,
        },
        "slowdown": _rounded(verdict.slowdown),
        **_measures(tried, embedded_seconds),
        "serving": _serving(serving, embedded_seconds),
        "embedded": asdict(tried.embedded) if tried.embedded is not None else None,
        "reference": {**asdict(reference), "differ": list(reference.differ)},
        "clips": [_clip(clip) for clip in worst[:_MOST_CLIPS]],
    }


def describe(version: str, record: Mapping[str, Any]) -> str:
    """A trial in lines of text."""
    rate, serving, reference = record["error_rate"], record["serving"], record["reference"]
    lines = [f"{version} {'passed' if record['passed'] else 'failed'} its trial: {record['reason']}"]
    if rate["clips"]:
        lines += ["", *_rates(rate, serving)]
        wrong = [clip for clip in record["clips"] if clip["edits"]][:_SHOWN_CLIPS]
        for clip in wrong:
            lines.append(
                f"  {clip['name']}: {plain(clip['said']) or '(nothing)'}  instead of  {clip['truth']}"
            )
        lines.append("")
    lines.append(f"recordings: {record['set']['name']} (set {record['set']['digest']})")
    for name, text in (
        ("CPU seconds for a second of sound", _pair(record, serving, "cost", "{:.4f}")),
        ("memory, MiB", _pair(record, serving, "memory_mib", "{:.0f}")),
        ("seconds to load", _pair(record, serving, "load_seconds", "{:.2f}")),
    ):
        if text:
            lines.append(f"{name}: {text}")
    lines.append(f"{reference['name']}: {_reference(reference)}")
    if serving is not None and serving["problem"]:
        lines.append(f"{serving['version']}, which serves, could not be measured: {serving['problem']}")
    return "\n".join(lines)


def _measures(found: Measured, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "cost": _rounded(found.cost(seconds)),
        "memory_mib": round(found.memory_bytes / _MIB, 1),
        "load_seconds": _rounded(found.load_seconds),
        "requests": found.requests,
    }


def _serving(found: Measured | None, seconds: Mapping[str, float]) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "version": found.version,
        "error_rate": {**figures(found.clips), "languages": found.languages()},
        **_measures(found, seconds),
        "problem": found.problem,
    }


def _clip(clip: ClipResult) -> dict[str, Any]:
    return {
        "name": clip.name,
        "language": clip.language,
        "edits": clip.errors.edits,
        "characters": clip.errors.characters,
        "said": clip.said[:_LONGEST_TEXT],
        "truth": clip.truth[:_LONGEST_TEXT],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _rates(rate: Mapping[str, Any], serving: Mapping[str, Any] | None) -> list[str]:
    known = serving["error_rate"] if serving is not None and not serving["problem"] else None
    lines = ["  language  clips  seconds  characters  error rate" + ("  serving" if known else "")]
    rows = [*rate["languages"].items(), ("all", rate)]
    for language, row in rows:
        line = f"  {language:8}  {row['clips']:5}  {row['seconds']:7.1f}  {row['characters']:10}"
        line += f"  {row['cer']:10.4f}"
        if known:
            other = known if language == "all" else known["languages"][language]
            line += f"  {other['cer']:7.4f}"
        lines.append(line)
    return lines


def _pair(record: Mapping[str, Any], serving: Mapping[str, Any] | None, name: str, form: str) -> str:
    if record[name] is None:
        return ""
    text = form.format(record[name])
    if serving is not None and serving[name] is not None:
        text += f" ({serving['version']}: {form.format(serving[name])})"
    return text


def _reference(found: Mapping[str, Any]) -> str:
    if found["skipped"]:
        return f"not compared: {found['skipped']}"
    more = f", {found['rounded']} equal from the same features" if found["rounded"] else ""
    return f"token ids equal for {found['equal']} of {found['compared']} answers{more}"
