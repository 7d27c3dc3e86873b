"""Rolls between two good versions, under load that never stops: nothing is lost, nothing is wrong."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from load import Load, measure_capacity
from rolling import Operated, Watch, known_clips, late_answers, nginx, operated, traffic, watching
from service import PROJECT, free_port, wait_for

RECORDS = PROJECT / "var" / "soak"
"""what the long runs found, one JSON file each"""
BETWEEN_SECONDS = 15.0
"""from one roll to the next: loading costs the same at any rate, and 70 % with rolls must stay below 100 %"""


def roll_to_and_fro(
    service: Operated, rolls: int, requests: int, rate: float, folder: Path, *, between: float = 0.0
) -> dict[str, Any]:
    """Roll under load, a third of it through nginx, and check every answer; what was found."""
    versions = (service.other, service.good)
    kept = {"keep_alive_share": 0.5, "early_share": 0.2, "early_seconds": 3.0}
    began = time.monotonic()
    with (
        nginx(folder, free_port(), service.port) as front,
        watching(service) as watch,
        traffic(service, rate, service.port, service.port, front, **kept) as flow,
    ):
        earliest = time.monotonic()
        for number in range(rolls):
            # Spread over the run; some requests between two rolls are needed in any case.
            goal = max(requests * number // rolls, flow.answered + 10)
            wait_for("the time of the next roll", lambda goal=goal: flow.answered >= goal, 120)
            time.sleep(max(0.0, earliest - time.monotonic()))
            earliest = time.monotonic() + between
            roll = service.roll_to(versions[number % 2])
            assert (roll.result, roll.error) == ("succeeded", None)
        wait_for(f"{requests} answers", lambda: flow.answered >= requests, 240)
        report = flow.end()
    service.wait_whole(versions[(rolls - 1) % 2])
    found = {
        "rolls": len(watch.ends),
        "requests": len(report.records),
        "failed": len(report.failures()),
        "late": len(late_answers(report, watch)),
        "fewest_ready": watch.fewest_ready,
        "seconds": round(time.monotonic() - began, 1),
        "rate": rate,
        "kinds": dict(Counter(record.kind for record in report.records)),
        "versions": dict(Counter(record.version for record in report.records)),
        "p50_ms": round(report.quantile(0.5) * 1000, 1),
        "p99_ms": round(report.quantile(0.99) * 1000, 1),
    }
    assert not report.failures(), report.summary()
    check(watch, service)
    assert not late_answers(report, watch)
    assert set(found["versions"]) == {version.id for version in versions}
    return found


def check(watch: Watch, service: Operated) -> None:
    wanted = service.status.wanted
    assert watch.looks > 0
    assert watch.fewest_ready >= wanted
    assert watch.most_processes <= wanted + 1
    assert service.status.counters.lost_requests == 0


@pytest.mark.timeout(1800)
def test_twenty_rolls_lose_none_of_five_thousand_requests(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        found = roll_to_and_fro(service, 20, 5000, 45.0, tmp_path / "nginx")
        assert found["rolls"] == 20
        current = service.store.current()
        assert current is not None
        assert current.id == service.good.id
        previous = service.store.pointer("previous")
        assert previous is not None
        assert previous.id == service.other.id
        assert service.store.pointer("next") is None
        assert service.store.record(service.other.id).last_served is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run", range(10))
def test_thirty_rolls_lose_none_of_thirty_thousand_requests(tmp_path: Path, run: int) -> None:
    """Ten runs: 300 rolls and 300,000 requests in all, each run at 70 % of what the service can take."""
    with operated(tmp_path) as service:
        known = known_clips(service)

        def make(number: int) -> Load:
            return Load([service.port], known, rate=1, keep_alive_share=0, early_share=0, seed=number)

        measure_capacity(make, at_once=4, seconds=2)  # the first runs are slow
        capacity = measure_capacity(make, at_once=4, seconds=10)
        found = roll_to_and_fro(
            service, 30, 30_000, 0.7 * capacity, tmp_path / "nginx", between=BETWEEN_SECONDS
        )
    RECORDS.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{run}.json"
    content = {"capacity": capacity, **found}
    (RECORDS / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
