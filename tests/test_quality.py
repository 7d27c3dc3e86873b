from __future__ import annotations

from pathlib import Path
from typing import Any

from stores import add

from asrsvc.release.quality import quality, quality_table
from asrsvc.release.records import _TRIALS_KEPT
from asrsvc.release.store import Store


def trial(when: str, cer: float, digest: str = "d1", **more: Any) -> dict[str, Any]:
    languages = {"en": {"cer": cer / 2}, "zh": {"cer": cer * 2}}
    return {
        "when": when,
        "passed": cer < 0.1,
        "set": {"name": f"set {digest}", "digest": digest, "clips": 2},
        "error_rate": {"cer": cer, "clips": 2, "languages": languages},
        "slowdown": 1.5,
        "clips": [{"said": "much"}],
        **more,
    }


def test_error_rates_of_all_versions_stand_in_the_order_of_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    a, b = add(store, "a"), add(store, "b")
    store.records.note_trial(a.id, trial("2026-01-01T00:00:00", 0.02))
    store.records.note_trial(b.id, trial("2026-01-02T00:00:00", 0.2))
    store.records.note_trial(a.id, trial("2026-01-03T00:00:00", 0.03))
    store.records.note_trial(b.id, trial("2026-01-04T00:00:00", 0.05, "d2"))
    store.records.note_trial(b.id, {"passed": True, "when": "2026-01-05T00:00:00"})
    store.records.note_trial(b.id, {**trial("2026-01-06T00:00:00", 0.0), "set": "by hand"})
    rows = quality(store)
    assert [(row.version, row.rate, row.passed) for row in rows] == [
        (a.id, 0.02, True),
        (b.id, 0.2, False),
        (a.id, 0.03, True),
        (b.id, 0.05, True),
    ]
    assert rows[0].to_json()["languages"] == {"en": 0.01, "zh": 0.04}
    first, second = quality_table(rows).split("\n\n")
    assert first.splitlines()[0] == "character error rates on set d1: 2 recordings, set d1"
    assert first.splitlines()[2].split() == [
        "2026-01-01T00:00:00",
        a.id,
        "passed",
        "0.0200",
        "0.0100",
        "0.0400",
    ]
    assert len(first.splitlines()) == 5
    assert "set d2" in second


def test_without_trials_the_table_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert quality(store) == []
    assert "bin/swap-model try VERSION" in quality_table([])


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    a, b = add(store, "a"), add(store, "b")
    store.records.note_trial(a.id, trial("2026-01-01T00:00:00", 0.02))
    (store.root / "records" / f"{b.id}.json").write_text("{")
    assert [row.version for row in quality(store)] == [a.id]


def test_the_history_of_trials_is_short_and_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = add(store, "a")
    for number in range(_TRIALS_KEPT + 5):
        store.records.note_trial(version.id, trial(f"2026-01-01T00:00:{number:02}", 0.01))
    record = store.record(version.id)
    assert [found["when"][-2:] for found in record.trials] == [f"{n:02}" for n in range(5, _TRIALS_KEPT + 5)]
    assert "clips" not in record.trials[-1]
    assert record.trial is not None
    assert record.trial["clips"] == [{"said": "much"}]
