from __future__ import annotations

import json
from pathlib import Path

import pytest

from asrsvc.errors import StoreError
from asrsvc.release.records import Record, Records


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "store")


def test_nothing_is_known_of_a_new_version_and_asking_creates_nothing(
    records: Records, tmp_path: Path
) -> None:
    assert records.read("nano-01234567") == Record("nano-01234567")
    assert not records.read("nano-01234567").vouched
    assert not (tmp_path / "store").exists()


def test_the_first_time_that_it_served_is_kept_and_the_last_moves_on(records: Records) -> None:
    records.note_served("v")
    first = records.read("v")
    assert first.first_served == first.last_served
    assert first.vouched
    while records.read("v").last_served == first.last_served:
        records.note_served("v")
    assert records.read("v").first_served == first.first_served


def test_what_the_tool_and_the_master_know_is_kept_apart_and_read_as_one(
    records: Records, tmp_path: Path
) -> None:
    records.note_trial("v", {"passed": True, "cer": 0.02})
    records.note_forced("v", forced=True)
    records.note_served("v")
    records.note_refused("v", "slow")
    record = records.read("v")
    assert record.trial is not None
    assert (record.trial["passed"], record.trial["cer"]) == (True, 0.02)
    assert record.forced
    assert record.refused is not None
    assert (record.refused.reason, record.fallen) == ("slow", True)
    assert record.first_served is not None
    assert set(json.loads((tmp_path / "store/records/v.json").read_text())) == {"trial", "trials", "forced"}
    assert set(json.loads((tmp_path / "store/served/v.json").read_text())) == {
        "first_served",
        "last_served",
        "refused",
    }
    records.note_forced("v", forced=False)
    assert not records.read("v").forced


def test_a_trial_vouches_only_when_it_was_passed(records: Records) -> None:
    records.note_trial("v", {"passed": False})
    assert not records.read("v").vouched
    records.note_trial("v", {"passed": True})
    assert records.read("v").vouched


def test_a_long_reason_is_cut(records: Records) -> None:
    records.note_refused("v", "x" * 10_000)
    refused = records.read("v").refused
    assert refused is not None
    assert len(refused.reason) == 2000


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"last_served": 1}', '{"refused": "no"}', "\udcff", "[" * 99999]
)
def test_a_damaged_record_is_named(records: Records, tmp_path: Path, text: str) -> None:
    path = tmp_path / "store" / "served" / "v.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match="served/v.json is not a record"):
        records.read("v")
    with pytest.raises(StoreError, match="served/v.json is not a record"):
        records.note_served("v")


@pytest.mark.parametrize("version_id", ["", "..", "a/b", ".hidden", "a\0"])
def test_an_id_that_could_leave_the_folder_is_refused(records: Records, version_id: str) -> None:
    with pytest.raises(StoreError, match="no version id"):
        records.note_served(version_id)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError, match="/proc/asrsvc"):
        Records(Path("/proc/asrsvc")).note_served("v")
