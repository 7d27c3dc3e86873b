"""Changes of the model while busy loops hold all cores and requests come: good ones are let through.

The two good versions are no demonstration models, so that each is compared with the other. The bad one takes
ten times as long for each clip, and says the same: it is the speed alone that it is refused for.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bad_models import MAKERS
from broken_models import copy_of_nano, edit_network
from busy import busy_cores
from load import Load, clips
from rolling import AT_ONCE, PREVIOUS_MODEL, Operated, Traffic, late_answers, watching
from service import PROJECT

from asrsvc.release.store import Version
from asrsvc.release.versions import check_digests

RECORDS = PROJECT / "var" / "soak"
"""what the long run found"""
SOAK_SECONDS = 1
LONG_SOAK_SECONDS = 60
COMMAND_SECONDS = 1500


class Changed(Operated):
    """A service whose cores are held by others, its versions, and the changes of them."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.configuration = folder / "asr.conf"
        self.write_soak(SOAK_SECONDS)
        super().__init__(
            folder,
            ASR_CONFIG=str(self.configuration),
            ASR_WORKERS=str(workers),
            ASR_READY_TIMEOUT="1200",
            ASR_SOAK_MAX_SLOWDOWN="3",
            ASR_QUEUE_LIMIT="10000",
            ASR_QUEUE_TIMEOUT="1200",
        )
        del self.environ["ASR_SOAK_SECONDS"]  # what stands in the file changes with it
        self.first = self.add(variant(folder / "first"))
        self.second = self.add(PREVIOUS_MODEL)
        slow = copy_of_nano(folder / "tenfold")
        MAKERS["tenfold"](slow)
        self.slow = self.add(slow)
        self.store.set_current(self.first)
        for version in (self.first, self.second):
            passed(self, version)

    def write_soak(self, seconds: float) -> None:
        lines = [f"ASR_SOAK_SECONDS={seconds}", "ASR_SOAK_REQUESTS=1000"]
        self.configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str]:
        """A command's exit code and what it said."""
        process = self.tool(*arguments)
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        return process.returncode, (out + err).decode()

    def serves(self) -> str | None:
        return self.status.version


def variant(folder: Path) -> Path:
    """The embedded model as other files: those that come with asrsvc are for demonstration."""
    edit_network(copy_of_nano(folder), lambda model: setattr(model, "doc_string", "another file"))
    return folder


def passed(service: Operated, version: Version, **more: Any) -> None:
    """A version whose trial has passed, and left nothing to compare a worker with but what is given."""
    files = check_digests(version.path)
    service.store.records.note_trial(version.id, {"passed": True, "files": files, **more})


@contextmanager
def loaded(folder: Path, *, workers: int, rate: float, seconds: float) -> Iterator[tuple[Changed, Traffic]]:
    """The service under load; no request has failed, and none was answered late, when the block is left.

    Args:
        folder: for its files.
        workers: of the service.
        rate: requests for each second.
        seconds: that the cores are held for, at most.
    """
    service = Changed(folder, workers)
    texts = {service.first.id: "withitn", service.second.id: "prev", service.slow.id: "withitn"}
    try:
        service.start()
        service.wait_whole(service.first)
        load = Load([service.port], clips(texts), rate=rate, timeout=1200, at_once=AT_ONCE)
        with busy_cores(seconds), watching(service) as watch:
            flow = Traffic(load)
            try:
                flow.wait_answered(20)
                yield service, flow
                flow.wait_answered(20, 600)
            finally:
                report = flow.end()
        assert not report.failures(), report.summary()
        assert not late_answers(report, watch)
        assert watch.fewest_ready >= workers
    except BaseException as error:
        error.add_note("the service's last words:\n" + service.log()[-6000:])
        raise
    finally:
        if service.process is not None:
            service.stop(120)


def change_to_and_fro(service: Changed, flow: Traffic, changes: int) -> list[str]:
    """Try both good versions, then activate one after the other; what went wrong."""
    refused = []
    for version in (service.second, service.first):
        code, said = service.run("try", version.id, "--max-cer", "0.1")
        if code:
            refused.append(f"try {version.id}: {said[-600:]}")
    for number in range(changes):
        version = (service.second, service.first)[number % 2]
        code, said = service.run("activate", version.id, "--watch", "2")
        if code or service.serves() != version.id:
            refused.append(f"change {number + 1} to {version.id}: {said[-600:]}")
        flow.wait_answered(2, 600)
    return refused


def by_trial(service: Changed) -> tuple[int, str]:
    return service.run("try", service.slow.id, "--max-cer", "0.1")


def by_warm_up(service: Changed) -> tuple[int, str]:
    """Its record says that it has passed, and not what it costs: what serves is its measure."""
    passed(service, service.slow)
    return service.run("activate", service.slow.id, "--watch", "2")


def by_soak(service: Changed) -> tuple[int, str]:
    """It is forced upon the workers, which compare no speed; what it answers beside the others is."""
    service.write_soak(LONG_SOAK_SECONDS)
    try:
        return service.run("activate", service.slow.id, "--force", "--watch", "2")
    finally:
        service.write_soak(SOAK_SECONDS)


def by_watch(service: Changed) -> tuple[int, str]:
    """Its trial had let it through, slow as it is, and there is no time for a soak."""
    code, said = service.run("try", service.slow.id, "--max-cer", "0.1", "--max-slowdown", "100")
    assert code == 0, said
    return service.run("activate", service.slow.id, "--watch", "60")


Gate = Callable[[Changed], tuple[int, str]]

GATES: dict[str, tuple[Gate, str]] = {
    "trial": (by_trial, "It is slow: "),
    "warm-up": (by_warm_up, "the model is slow: at best of "),
    "soak": (by_soak, "times the engine's CPU time of the old version"),
    "watch": (by_watch, "times the engine's CPU time of the old version"),
}
"""name of a gate → how the slow model comes to it, and what is said of it there"""


def refuse_slow(service: Changed, gates: list[str]) -> list[str]:
    """Change to the slow version, before each of these gates; what went wrong."""
    let_through = []
    for gate in gates:
        before = service.serves()
        code, said = GATES[gate][0](service)
        if not code or GATES[gate][1] not in said or service.serves() != before:
            let_through.append(f"{gate}: exit code {code}, {service.serves()} serves: {said[-600:]}")
        service.wait_status("the end of the roll", lambda now: not now.rolling, 600)
    return let_through


@pytest.mark.timeout(1800)
def test_on_a_busy_machine_good_versions_are_let_through_and_a_slow_one_is_not(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with loaded(tmp_path, workers=1, rate=8, seconds=1800) as (service, flow):
        assert change_to_and_fro(service, flow, 4) == []
        assert refuse_slow(service, ["warm-up"]) == []
    record_property("requests", len(flow.report.records))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_changes_on_a_busy_machine_and_ten_to_a_slow_version(tmp_path: Path) -> None:
    """A worker that loads gets a tenth of a core that is held: this takes the better part of an hour."""
    began = time.monotonic()
    gates = ["trial", *["warm-up"] * 5, *["soak"] * 2, *["watch"] * 2]
    with loaded(tmp_path, workers=1, rate=25, seconds=7000) as (service, flow):
        refused = change_to_and_fro(service, flow, 100)
        seconds = time.monotonic() - began
        let_through = refuse_slow(service, gates)
        report = flow.report
        found = {
            "changes": 100,
            "refused": refused,
            "seconds of these changes": round(seconds),
            "changes to the slow version": len(gates),
            "let through": let_through,
            "seconds": round(time.monotonic() - began),
            "requests": len(report.records),
            "failed": len(report.failures()),
            "versions": dict(Counter(record.version for record in report.records)),
            "p50_ms": round(report.quantile(0.5) * 1000, 1),
            "p99_ms": round(report.quantile(0.99) * 1000, 1),
        }
        RECORDS.mkdir(parents=True, exist_ok=True)
        path = RECORDS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-gates.json"
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        assert (refused, let_through) == ([], [])
