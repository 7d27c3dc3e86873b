"""What a kill, a full disk or a power cut at any step leaves of the store."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_points import KILLED, failing_from, killed_at, steps_of
from stores import add, point, served

from asrsvc.errors import StoreError
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.store import Store, Version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


Change = Callable[[Store, dict[str, Version]], object]


def prepared(store: Store) -> dict[str, Version]:
    """`a` serves, `z` did before, `b` is wished for; all but b have served."""
    versions = {name: served(store, name) for name in "za"} | {"b": add(store, "b"), "c": add(store, "c")}
    store.set_current(versions["a"])
    point(store, "previous", versions["z"])
    store.set_next(versions["b"])
    return versions


CHANGES: dict[str, Change] = {
    "set_next": lambda s, v: s.set_next(v["c"]),
    "clear_next": lambda s, _: s.clear_next(),
    "promote": lambda s, v: s.promote(v["b"], settled=v["a"].id),
    "promote, another wish": lambda s, v: s.promote(v["c"], settled=v["a"].id),
    "promote, reload": lambda s, v: s.promote(v["a"], settled=v["a"].id),
    "drop_next": lambda s, v: s.drop_next(v["b"]),
    "restore_current": lambda s, v: s.restore_current(v["z"]),
    "set_current": lambda s, v: s.set_current(v["z"]),
    "note_served": lambda s, v: s.records.note_served(v["b"].id),
    "note_refused": lambda s, v: s.records.note_refused(v["b"].id, "no"),
    "note_trial": lambda s, v: s.records.note_trial(v["b"].id, {"passed": True}),
    "note_forced": lambda s, v: s.records.note_forced(v["b"].id, forced=True),
    "add_folder": lambda s, v: s.add_folder(v["c"].path, "d"),
}


def copied(base: Store, versions: dict[str, Version], folder: Path) -> tuple[Store, dict[str, Version]]:
    store = Store(folder / "store")
    shutil.copytree(base.root, store.root, symlinks=True)
    return store, {name: Version(v.id, store.root / "versions" / v.id) for name, v in versions.items()}


def check(store: Store) -> None:
    """`current` names a whole version that has served well, and so does what a start takes."""
    current = store.current()
    assert current is not None
    assert store.record(current.id).last_served is not None
    found = store.candidates()
    assert found.versions[0] == current
    assert found.problems == ()
    assert store.pointer("previous") is not None
    assert store.wish(current.id) is not None
    for version in store.versions():
        assert (version.path / "manifest.json").is_file()
        store.record(version.id)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_killed_at_any_step_leaves_a_store_that_serves(name: str, tmp_path: Path) -> None:
    base = Store(tmp_path / "store")
    versions = prepared(base)
    for step in range(1, 200):
        store, moved = copied(base, versions, tmp_path / f"s{step}")

        def change(store: Store = store, moved: dict[str, Version] = moved) -> None:
            CHANGES[name](store, moved)

        code = killed_at(step, change)
        check(store)
        assert code in {0, KILLED}
        change()  # and done again, it is done
        check(store)
        if code == 0:
            break
    else:
        pytest.fail("it never ended")
    assert step > 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_disk_that_fills_at_any_step_leaves_a_store_that_serves(name: str, tmp_path: Path) -> None:
    base = Store(tmp_path / "store")
    versions = prepared(base)
    for step in range(1, 200):
        store, moved = copied(base, versions, tmp_path / f"s{step}")
        before = set(store.root.rglob(".*-*"))
        code = failing_from(step, lambda s=store, m=moved: CHANGES[name](s, m), StoreError)  # type: ignore[misc]
        check(store)
        assert set(store.root.rglob(".*-*")) == before
        if code == 0:
            break
        assert code == 2, "it must say so with a StoreError"
    else:
        pytest.fail("it never ended")


def test_a_first_start_killed_at_any_step_can_be_done_again(tmp_path: Path) -> None:
    for step in range(1, 200):
        store = Store(tmp_path / f"s{step}")
        code = killed_at(step, lambda s=store: ensure_embedded(s))  # type: ignore[misc]
        if store.current() is not None:
            assert store.candidates().problems == ()
        version = ensure_embedded(store)
        assert store.current() == version
        assert store.candidates().versions == (version,)
        assert store.candidates().problems == ()
        assert store.versions() == [version]
        shutil.rmtree(store.root)
        if code == 0:
            break
    else:
        pytest.fail("it never ended")


def test_each_pointer_is_on_disk_before_the_next_one_moves(store: Store) -> None:
    versions = prepared(store)
    steps = steps_of(lambda: store.promote(versions["b"], settled=versions["a"].id))
    told = [(kind, re.sub(r"-[0-9a-f]{8}\b", "", name)) for kind, name in steps]
    record = [
        ("open", ".b.json"),
        ("fsync", ".b.json"),
        ("rename", "b.json"),
        ("fsync", "served"),
    ]
    previous, current = (
        [("symlink", f".{name}"), ("rename", name), ("fsync", "store")] for name in ("previous", "current")
    )
    wish = [("rename", ".next"), ("remove", ".next"), ("fsync", "store")]
    assert told == [*record, *previous, *current, *wish]
