"""deploy, rollback and history with the real service and real trials, under load."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rolling import PREVIOUS_MODEL, Operated, late_answers, operated, traffic, watching
from waiting import PATIENCE

from asrsvc.release.bake import find
from asrsvc.release.journal import Journal


def run(service: Operated, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """What a command prints with --json, and what it says meanwhile."""
    process = service.tool(*arguments, "--json")
    out, err = process.communicate(timeout=4 * PATIENCE)
    assert process.returncode == code, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found, err.decode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Operated]:
    with operated(tmp_path, ASR_BAKE="auto") as found:
        yield found


@pytest.mark.timeout(3000)
def test_to_the_earlier_build_and_back_by_deploy_and_rollback_under_load(
    service: Operated, record_property: Callable[[str, object], None]
) -> None:
    good, source = service.good, str(PREVIOUS_MODEL)
    earlier = service.other.id  # that the load's texts are known by
    shutil.rmtree(service.other.path)
    with watching(service) as watch, traffic(service, 10) as flow:
        assert service.store.versions() == [good]
        flow.wait_answered(20)

        # Its error rate is too high: shown, and refused; nothing has changed but that it is in the store.
        found, said = run(service, "deploy", source, code=30)
        assert "Its character error rate is 0.0806 (5 edits for 62 characters of 5 clips)" in said
        assert re.search(r"  all +5 +\S+ +62 +0\.0806 +0\.0000$", said, re.MULTILINE), said
        assert found["serving"] == good.id
        assert found["error"]["trial"]["error_rate"]["cer"] == 0.0806
        (other,) = (version for version in service.store.versions() if version != good)
        assert other.id == earlier
        assert (service.store.current(), service.store.pointer("next")) == (good, None)
        assert service.status.roll is None

        # Those who know allow it more.
        found, said = run(service, "deploy", source, "--max-cer", "0.1", "--watch", "2")
        assert (found["version"], found["former"], found["serves"]) == (other.id, good.id, True)
        assert f"{other.id} serves; watching it for 2 s" in said
        flow.wait_answered(20)
        found, _ = run(service, "rollback")
        assert (found["version"], found["former"]) == (good.id, other.id)
        flow.wait_answered(20)
        report = flow.end()

    # It was its twin that was tried; what came with asrsvc is small, and has none before it is tried.
    trial = service.store.record(other.id).trial
    assert trial is not None
    assert trial["baked"]["matrices"] == 37
    assert find(service.store.root, other.id, "auto").state == "ready"
    assert not any(worker.baked for worker in service.status.workers)

    # Each answer's text is the one that its X-Model-Version says; see `Load`.
    assert not report.failures(), report.summary()
    assert not late_answers(report, watch)
    assert watch.fewest_ready >= service.status.wanted
    assert next(record.version for record in report.records) == good.id
    assert {record.version for record in report.records} == {good.id, other.id}
    record_property("requests over two rolls and two trials, none failed", len(report.records))

    history = [(e.command, e.source, e.target, e.result) for e in Journal(service.store.root).entries()]
    assert history == [
        ("deploy", good.id, other.id, "failed"),
        ("deploy", good.id, other.id, "succeeded"),
        ("rollback", other.id, good.id, "succeeded"),
    ]
    text = service.tool("history").communicate(timeout=PATIENCE)[0].decode()
    assert "its trial refuses it: Its character error rate is 0.0806" in text
    rows = run(service, "history", "--quality")[0]["quality"]
    assert [(row["version"], row["passed"], row["cer"]) for row in rows] == [
        (other.id, False, 0.0806),
        (other.id, True, 0.0806),
    ]
    table = service.tool("history", "--quality").communicate(timeout=PATIENCE)[0].decode()
    assert re.search(rf"{other.id} +failed +0\.0806", table), table
    listed = {row["version"]: row for row in run(service, "list")[0]["versions"]}
    assert listed[other.id]["trial"]["passed"] is True
    assert listed[good.id]["pointers"] == ["current"]
    assert listed[other.id]["pointers"] == ["previous"]


@pytest.mark.timeout(1800)
def test_a_killed_deploy_is_done_by_the_next_one(service: Operated) -> None:
    """Its trial's processes end with it, and the lock is free."""
    process = service.tool("deploy", str(PREVIOUS_MODEL), "--max-cer", "0.1", "--watch", "0")
    assert process.stderr is not None
    for line in process.stderr:
        if b"listens to the recordings" in line:
            break
    process.kill()
    process.communicate()
    found, _ = run(service, "deploy", str(PREVIOUS_MODEL), "--max-cer", "0.1", "--watch", "0", "--no-wait")
    assert found["version"].startswith(PREVIOUS_MODEL.name)
    assert [e.result for e in Journal(service.store.root).entries()] == [None, "succeeded"]
    assert not (service.store.root / "staging").exists()
