"""The story of a change, step by step, with a service that is told what to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from stores import add, served
from waiting import PATIENCE

from asrsvc.errors import NotTried, RollAborted, RollFailed, TrialFailed, WatchFailed
from asrsvc.release import swap
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.numbers import NOTHING, Numbers, Thresholds
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import Swapped
from asrsvc.release.swap_types import Serving, Terms
from asrsvc.release.versions import check_digests

TERMS = Terms(watch_seconds=0.6)
LONG = Terms(watch_seconds=PATIENCE, forced=True)
"""for what is found in the watch, which ends with that: a machine that pauses would end a short one"""


@dataclass
class Told:
    """A service that rolls at once, and whose versions do as well as they are told to."""

    store: Store
    version: str | None
    runs: bool = True
    fails: set[str] = field(default_factory=set)
    after: dict[str, Numbers] = field(default_factory=dict)
    """what a version has answered once it serves"""
    rolls: list[str] = field(default_factory=list)

    def serving(self) -> Serving | None:
        known = {version: self.after.get(version, NOTHING) for version in self.rolls}
        return Serving(self.version, None, known, {}) if self.runs else None

    def roll(self, version: Version) -> None:
        assert self.store.pointer("next") == version
        if version.id in self.fails:
            self.store.drop_next(version)
            raise RollFailed("it crashed")
        self.store.promote(version, settled=self.version)
        self.version = version.id
        self.rolls.append(version.id)

    def thresholds(self) -> Thresholds:
        return Thresholds(20, 0.05, 0.2, 3)


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str = "20% errors, 10% at most"

    def to_record(self) -> dict[str, Any]:
        return {"passed": self.passed, "reason": self.reason}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "store")
    found.promote(served(found, "a"))
    with found.lock():
        yield found


def current(store: Store) -> Version:
    found = store.current()
    assert found is not None
    return found


def deploy(store: Store, service: Told, verdict: Verdict, done: list[str]) -> Swapped:
    def pull() -> Version:
        done.append("pull")
        return add(store, "b")

    def try_out(version: Version, baseline: Version | None) -> Verdict:
        done.append(f"try against {baseline.id if baseline else None}")
        trial = {"passed": verdict.passed, "reason": verdict.reason, "files": check_digests(version.path)}
        store.records.note_trial(version.id, trial)
        return verdict

    def bake(_version: Version) -> None:
        done.append("bake")

    return swap.deploy(store, service, TERMS, pull=pull, bake=bake, try_out=try_out)


def test_a_deploy_pulls_bakes_tries_and_activates(store: Store) -> None:
    a, done = current(store), list[str]()
    service = Told(store, a.id)
    found = deploy(store, service, Verdict(passed=True), done)
    assert done == ["pull", "bake", f"try against {a.id}"]
    assert (found.former, found.serves) == (a.id, True)
    assert current(store) == found.version
    assert store.pointer("previous") == a


def test_a_version_that_its_trial_refuses_stays_in_the_store(store: Store) -> None:
    a = current(store)
    service = Told(store, a.id)
    with pytest.raises(TrialFailed, match="20% errors, 10% at most") as caught:
        deploy(store, service, Verdict(passed=False), [])
    assert caught.value.report["passed"] is False
    assert service.rolls == []
    assert store.pointer("next") is None
    (b,) = (version for version in store.versions() if version != a)
    trial = store.record(b.id).trial
    assert trial is not None
    assert trial["reason"] == "20% errors, 10% at most"
    with pytest.raises(NotTried, match="failed its trial: 20% errors"):
        swap.activate(store, service, b, TERMS)


def test_without_a_service_a_deploy_is_tried_against_what_would_start(store: Store) -> None:
    a, done = current(store), list[str]()
    found = deploy(store, Told(store, None, runs=False), Verdict(passed=True), done)
    assert done[-1] == f"try against {a.id}"
    assert not found.serves
    assert store.pointer("next") == found.version


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (replace(NOTHING, requests=40, errors=4), r"10% errors \(4 of 40 answers\)"),
        (replace(NOTHING, requests=40, empty=40), None),  # nothing is known of the old one's texts
    ],
)
def test_where_little_is_known_of_the_old_version_errors_alone_count(
    store: Store, numbers: Numbers, said: str | None
) -> None:
    a, b = current(store), add(store, "b")
    service = Told(store, a.id, after={b.id: numbers})
    if said is None:
        assert swap.activate(store, service, b, replace(TERMS, forced=True)).serves
        return
    with pytest.raises(WatchFailed, match=f"{said}.*; {a.id} serves again"):
        swap.activate(store, service, b, LONG)
    assert service.rolls == [b.id, a.id]
    assert current(store) == a
    withdrawn = store.record(b.id).withdrawn
    assert withdrawn is not None
    assert re.search(said, withdrawn.reason)


def test_where_going_back_fails_both_reasons_are_told(store: Store) -> None:
    a, b = current(store), add(store, "b")
    service = Told(store, a.id, fails={a.id}, after={b.id: replace(NOTHING, requests=40, errors=40)})
    with pytest.raises(WatchFailed, match=f"100% errors.*going back to {a.id} failed: it crashed"):
        swap.activate(store, service, b, LONG)
    assert current(store) == b


def test_the_only_version_serves_on_however_it_does(store: Store) -> None:
    a = current(store)
    service = Told(store, a.id)
    service.rolls.append(a.id)

    def roll(version: Version) -> None:
        service.after[version.id] = replace(NOTHING, requests=40, errors=40)

    service.roll = roll  # type: ignore[method-assign]
    with pytest.raises(WatchFailed, match="no other version served before, so it serves on"):
        swap.activate(store, service, a, LONG)


def test_a_service_that_ends_in_the_watch_is_told(store: Store) -> None:
    a, b = current(store), add(store, "b")
    service = Told(store, a.id)
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        service.runs = False

    with pytest.raises(RollAborted, match="the service has ended"):
        swap.activate(store, service, b, replace(LONG, say=hear))
    assert said == [f"{b.id} serves; watching it for {PATIENCE:g} s"]


def test_a_failed_rollback_leaves_what_serves(store: Store) -> None:
    a, b = current(store), served(store, "b")
    store.promote(b, settled=a.id)
    with pytest.raises(RollFailed):
        swap.rollback(store, Told(store, b.id, fails={a.id}), None, TERMS)
    assert current(store) == b


@pytest.fixture
def demonstration(tmp_path: Path) -> Iterator[Store]:
    """A store as a first start leaves it."""
    found = Store(tmp_path / "first")
    found.promote(ensure_embedded(found))
    with found.lock():
        yield found


def test_nothing_is_tried_against_the_embedded_model(demonstration: Store) -> None:
    embedded, done = current(demonstration), list[str]()
    deploy(demonstration, Told(demonstration, embedded.id), Verdict(passed=True), done)
    assert done == ["pull", "bake", "try against None"]
    assert deploy_again(demonstration) == f"try against {current(demonstration).id}"


def deploy_again(store: Store) -> str:
    done: list[str] = []
    deploy(store, Told(store, current(store).id), Verdict(passed=True), done)
    return done[-1]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (Numbers(0, 40, 0, 40, 40_000, 400_000), None),
        (Numbers(0, 40, 20, 0, 40_000, 400), "50% errors"),
    ],
)
def test_a_watch_compares_neither_text_nor_speed_with_the_embedded_model(
    demonstration: Store, numbers: Numbers, said: str | None
) -> None:
    a, b = current(demonstration), add(demonstration, "b")
    service = Told(demonstration, a.id, after={a.id: Numbers(0, 40, 0, 0, 40_000, 400), b.id: numbers})
    service.rolls.append(a.id)
    demonstration.records.note_trial(b.id, {"passed": True, "files": check_digests(b.path)})
    if said is None:
        assert swap.activate(demonstration, service, b, TERMS).serves
    else:
        with pytest.raises(WatchFailed, match=said):
            swap.activate(demonstration, service, b, replace(LONG, forced=False))
