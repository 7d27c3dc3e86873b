"""What the master writes into the store at the end of a roll, and what it leaves alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from stores import add, served
from waiting import PATIENCE

from asrsvc.release.store import Store, Version
from asrsvc.serving.ledger import Ledger
from asrsvc.serving.roll import Result, Settle


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def base(store: Store) -> Version:
    version = served(store, "base")
    store.set_current(version)
    return version


def end(ledger: Ledger, version: Version, result: Result, base: Version) -> None:
    error = None if result is Result.SUCCEEDED else "so it is"
    ledger.settle(Settle(1, version.id, result, error), source=base.id, base=base.id)


def test_a_wish_that_failed_is_dropped_and_its_reason_kept(store: Store, base: Version) -> None:
    bad, ledger = add(store, "bad"), Ledger(store)
    store.set_next(bad)
    assert ledger.take_wish(base.id) == bad
    end(ledger, bad, Result.FAILED, base)
    assert store.pointer("next") is None
    assert store.current() == base
    refused = store.record(bad.id).refused
    assert refused is not None
    assert "so it is" in str(refused)


def test_the_same_wish_made_again_outlives_the_failure_of_the_first(store: Store, base: Version) -> None:
    version, ledger = add(store, "a"), Ledger(store)
    store.set_next(version)
    ledger.take_wish(base.id)
    store.set_next(version)  # its SIGHUP has not come yet
    end(ledger, version, Result.FAILED, base)
    assert store.pointer("next") == version


def test_a_wish_made_again_after_it_was_called_off_stays(store: Store, base: Version) -> None:
    version, other, ledger = add(store, "a"), add(store, "b"), Ledger(store)
    for wish in (version, other):
        store.set_next(wish)
        ledger.take_wish(base.id)
    store.set_next(version)
    end(ledger, version, Result.ABORTED, base)
    assert store.pointer("next") == version


def test_a_wish_that_comes_while_another_is_dropped_stays(store: Store, base: Version) -> None:
    old, new, ledger = add(store, "old"), add(store, "new"), Ledger(store)
    tool = Store(store.root)
    for _ in range(200):
        store.set_next(old)
        ledger.take_wish(base.id)
        wishing = threading.Thread(target=tool.set_next, args=(new,))
        wishing.start()
        store.drop_next(old)
        wishing.join(PATIENCE)
        assert store.pointer("next") == new
