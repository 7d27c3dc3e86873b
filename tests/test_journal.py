from __future__ import annotations

import json
from pathlib import Path

import pytest

from asrsvc.errors import StoreError
from asrsvc.release import journal as journals
from asrsvc.release.journal import Journal
from asrsvc.release.lock import myself


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_a_change_is_noted_with_who_what_and_how_it_ended(journal: Journal) -> None:
    with journal.change("activate", myself("alice"), "a", "b") as change:
        change.reason = "forced"
    (entry,) = journal.entries()
    assert (entry.command, entry.source, entry.target, entry.result, entry.reason) == (
        "activate",
        "a",
        "b",
        "succeeded",
        "forced",
    )
    assert entry.actor == myself("alice")
    assert entry.ended is not None
    assert entry.when <= entry.ended


def test_a_failure_and_an_interruption_are_noted_and_raised(journal: Journal) -> None:
    with pytest.raises(StoreError, match="no disk"), journal.change("prune", myself()):
        raise StoreError("no disk")
    with pytest.raises(KeyboardInterrupt), journal.change("activate", myself()):
        raise KeyboardInterrupt
    assert [(entry.result, entry.reason) for entry in journal.entries()] == [
        ("failed", "no disk"),
        ("interrupted", ""),
    ]


def test_a_change_that_is_done_does_not_fail_for_its_history(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal.change("activate", myself()) as change:
        path.rename(tmp_path / "aside")
        path.mkdir()
    assert "journal.jsonl cannot be written" in change.unwritten


def test_asking_creates_nothing(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").entries() == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("cut", range(2, 40, 3))
def test_a_torn_last_line_costs_itself_alone(journal: Journal, tmp_path: Path, cut: int) -> None:
    for command in ("one", "two"):
        with journal.change(command, myself()):
            pass
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [(e.command, e.result) for e in journal.entries()] == [("one", "succeeded"), ("two", None)]
    with journal.change("three", myself()):
        pass
    assert [e.command for e in journal.entries()] == ["one", "two", "three"]
    assert journal.entries()[2].result == "succeeded"


@pytest.mark.parametrize(
    "line", ["[]", "{}", "7", '{"id": "x"}', "\x00", '{"id": "x", "when": 1, "actor": 3}']
)
def test_lines_that_are_none_of_ours_are_passed_over(journal: Journal, tmp_path: Path, line: str) -> None:
    (tmp_path / "journal.jsonl").write_text(line + "\n")
    with journal.change("one", myself()):
        pass
    assert [entry.command for entry in journal.entries()] == ["one"]


def test_the_files_are_bounded_and_the_newest_is_kept(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_MOST_BYTES", 2000)
    for number in range(50):
        with journal.change("activate", myself(), target=f"v{number}"):
            pass
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5500
    entries = journal.entries()
    assert entries[-1].target == "v49"
    assert all(entry.result == "succeeded" for entry in entries)
    for path in tmp_path.iterdir():
        for line in path.read_text().splitlines():
            json.loads(line)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    change = Journal(tmp_path / "none").change("one", myself())
    with pytest.raises(StoreError, match="none/journal.jsonl cannot be written"), change:
        pytest.fail("it must not begin")
