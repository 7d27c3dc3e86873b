"""The pointers of the store: what a start and a reload take."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from stores import add, point, served

from asrsvc.errors import StoreError, StoreLocked
from asrsvc.release import files
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.store import Pointer, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def names(store: Store) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    pointers: tuple[Pointer, ...] = ("next", "current", "previous")
    for name in pointers:
        version = store.pointer(name)
        found[name] = version.id.rpartition("-")[0] if version else None
    return found


def break_pointer(store: Store, name: Pointer, how: str) -> None:
    path = store.root / name
    path.unlink(missing_ok=True)
    if how == "a file":
        path.write_text("x")
    elif how == "a folder":
        path.mkdir()
    else:
        targets = {"dangling": "versions/gone", "a loop": name, "outside": "..", "the root": "versions"}
        path.symlink_to(targets[how])


BROKEN = ["dangling", "a file", "a folder", "a loop", "outside", "the root"]


@pytest.mark.parametrize("name", ["next", "current", "previous"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_pointer_is_named(store: Store, name: Pointer, how: str) -> None:
    add(store, "a")
    break_pointer(store, name, how)
    with pytest.raises(StoreError, match=re.escape(str(store.root / name))):
        store.pointer(name)


def test_a_pointer_to_half_a_version_is_named_with_what_is_missing(store: Store) -> None:
    version = add(store, "a")
    store.set_next(version)
    (version.path / "am.mvn").unlink()
    with pytest.raises(StoreError, match=r"next points to no whole version: .*am\.mvn is missing"):
        store.pointer("next")


def test_pointers_that_are_not_there_are_none(store: Store) -> None:
    assert names(store) == {"next": None, "current": None, "previous": None}
    assert not store.clear_next()
    assert not store.root.exists()


def test_a_wish_comes_under_the_lock_and_goes_without(store: Store) -> None:
    version = add(store, "a")
    store.set_next(version)
    assert store.pointer("next") == version
    with Store(store.root).lock():
        waiting = Store(store.root, lock_timeout=0)
        with pytest.raises(StoreLocked, match="is held by"):
            waiting.set_next(version)
        assert waiting.clear_next()
    assert store.pointer("next") is None
    assert not store.clear_next()


def test_a_broken_wish_can_be_taken_back(store: Store) -> None:
    add(store, "a")
    break_pointer(store, "next", "dangling")
    assert store.clear_next()
    break_pointer(store, "next", "a file")
    with pytest.raises(StoreError, match="move it away"):
        store.clear_next()


def test_promote_moves_previous_and_current_and_takes_the_wish(store: Store) -> None:
    a, b, c = served(store, "a"), add(store, "b"), add(store, "c")
    store.set_current(a)
    for version in (b, c):
        store.set_next(version)
        store.promote(version)
        assert store.record(version.id).vouched
    assert names(store) == {"next": None, "current": "c", "previous": "b"}


def test_promote_leaves_a_later_wish(store: Store) -> None:
    a, b, c = served(store, "a"), add(store, "b"), add(store, "c")
    store.set_current(a)
    store.set_next(c)
    store.promote(b)
    assert names(store) == {"next": "c", "current": "b", "previous": "a"}


def test_a_reload_of_the_same_version_leaves_previous(store: Store) -> None:
    a, b = served(store, "a"), served(store, "b")
    store.set_current(a)
    store.promote(b)
    store.promote(b, settled=b.id)
    assert names(store) == {"next": None, "current": "b", "previous": "a"}


def test_after_a_move_by_hand_previous_is_what_served(store: Store) -> None:
    a, b = served(store, "a"), add(store, "b")
    point(store, "current", b)
    store.promote(b, settled=a.id)
    assert names(store) == {"next": None, "current": "b", "previous": "a"}


def test_promote_mends_a_broken_current_and_bears_a_removed_settled(store: Store) -> None:
    b = add(store, "b")
    break_pointer(store, "current", "dangling")
    store.promote(b, settled="gone-01234567")
    assert names(store) == {"next": None, "current": "b", "previous": None}


def test_the_master_needs_no_lock(store: Store) -> None:
    a, b = served(store, "a"), add(store, "b")
    store.set_current(a)
    store.set_next(b)
    with store.lock():
        master = Store(store.root, lock_timeout=0)
        master.promote(b, settled=a.id)
        master.restore_current(a)
        point(store, "next", b)
        assert master.drop_next(b)
        master.records.note_refused(b.id, "no")
    assert names(store) == {"next": None, "current": "a", "previous": "a"}


def test_a_wish_that_changes_while_it_is_taken_away_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = add(store, "a"), add(store, "b"), add(store, "c")
    store.set_next(a)
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path.name == "next":
            point(store, "next", b)  # the tool, between the look and the step
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    assert not store.drop_next(a)
    assert store.pointer("next") == b
    link = os.link

    def later(*arguments: object, **options: object) -> None:
        point(store, "next", c)
        link(*arguments, **options)  # type: ignore[arg-type]

    point(store, "next", a)
    monkeypatch.setattr(files.os, "link", later)
    assert not store.drop_next(a)
    assert store.pointer("next") == c

    def never(*_: object, **__: object) -> None:
        raise PermissionError

    point(store, "next", a)
    monkeypatch.setattr(files.os, "link", never)  # as on a file system that cannot link to links
    assert not store.drop_next(a)
    assert store.pointer("next") == b
    assert not list(store.root.glob(".next-*"))


@pytest.mark.parametrize(
    ("wish", "current", "settled", "wanted"),
    [
        ("b", "a", "a", "b"),
        ("b", "c", "a", "b"),
        (None, "a", "a", "a"),
        (None, "c", "a", "c"),
        (None, "a", None, "a"),
        (None, None, "a", "a"),
        (None, None, None, None),
        ("b", None, None, "b"),
    ],
)
def test_what_a_reload_rolls_to(
    store: Store, wish: str | None, current: str | None, settled: str | None, wanted: str | None
) -> None:
    versions = {name: add(store, name) for name in "abc"}
    if wish:
        point(store, "next", versions[wish])
    if current:
        point(store, "current", versions[current])
    found = store.wish(versions[settled].id if settled else None)
    assert found == (versions[wanted] if wanted else None)


@pytest.mark.parametrize("name", ["next", "current"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_reload_with_a_broken_pointer_is_refused(store: Store, name: Pointer, how: str) -> None:
    a = served(store, "a")
    store.set_current(a)
    break_pointer(store, name, how)
    with pytest.raises(StoreError, match=re.escape(str(store.root / name))):
        store.wish(a.id)


def test_a_reload_of_a_version_that_was_removed_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="is not there"):
        store.wish("gone-01234567")
    with pytest.raises(StoreError, match="no version id"):
        store.wish("../versions")


def test_a_start_takes_current_and_has_previous_and_others_in_reserve(store: Store) -> None:
    a, b, c, d = (served(store, name) for name in "abcd")
    add(store, "untried")
    store.records.note_trial(add(store, "tried").id, {"passed": True, "when": "2001-01-01T00:00:00+00:00"})
    store.records.note_trial(add(store, "failed").id, {"passed": False})
    store.records.note_refused(d.id, "crashed at once")
    store.set_current(c)
    point(store, "previous", a)
    found = store.candidates()
    assert [version.id.split("-")[0] for version in found.versions] == ["c", "a", "b", "tried"]
    assert found.problems == ()
    assert b in found.versions


@pytest.mark.parametrize("how", BROKEN)
def test_a_start_with_a_broken_current_takes_previous_and_says_why(store: Store, how: str) -> None:
    a, b = served(store, "a"), served(store, "b")
    point(store, "previous", a)
    break_pointer(store, "current", how)
    found = store.candidates()
    assert found.versions == (a, b)
    (problem,) = found.problems
    assert str(store.root / "current") in problem


def test_a_start_with_nothing_but_a_served_version_takes_that(store: Store) -> None:
    a = served(store, "a")
    found = store.candidates()
    assert found.versions == (a,)
    assert len(found.problems) == 2


def test_a_current_moved_by_hand_is_a_wish_until_it_has_served(store: Store) -> None:
    a, b = served(store, "a"), add(store, "b")
    store.promote(a)
    point(store, "current", b)
    point(store, "previous", a)
    found = store.candidates()
    assert found.versions == (a,)
    assert "neither served nor passed a trial" in found.problems[0]
    assert store.wish(a.id) == b
    store.promote(b, settled=a.id)
    assert store.candidates().versions == (b, a)
    assert store.candidates().problems == ()


def test_a_wish_made_by_hand_that_fails_is_put_back(store: Store) -> None:
    a, b = served(store, "a"), add(store, "b")
    store.set_current(a)
    point(store, "current", b)
    store.records.note_refused(b.id, "says the wrong thing")
    store.restore_current(a)
    assert names(store) == {"next": None, "current": "a", "previous": None}
    refused = store.record(b.id).refused
    assert refused is not None
    assert refused.reason == "says the wrong thing"


def test_a_damaged_record_vouches_for_nothing(store: Store) -> None:
    a, b = served(store, "a"), served(store, "b")
    store.set_current(b)
    point(store, "previous", a)
    (store.root / "served" / f"{b.id}.json").write_text("{")
    found = store.candidates()
    assert found.versions == (a,)
    assert "is not a record" in found.problems[0]


def test_an_empty_store_has_no_candidates(store: Store) -> None:
    found = store.candidates()
    assert found.versions == ()
    assert len(found.problems) == 2
    assert not store.root.exists()


def test_the_embedded_model_is_trusted(store: Store) -> None:
    version = ensure_embedded(store)
    assert store.record(version.id).vouched
    assert store.candidates().versions == (version,)


def test_a_start_goes_on_with_another_version_where_current_is_broken(store: Store) -> None:
    a = served(store, "a")
    break_pointer(store, "current", "dangling")
    assert ensure_embedded(store) == a
    assert store.versions() == [a]
    (store.root / "current").unlink()
    assert ensure_embedded(store) == a
    assert store.current() == a


def test_what_root_makes_belongs_to_the_owner_of_the_store(store: Store) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    store.root.mkdir()
    os.chown(store.root, 12345, 12345)
    version = served(store, "a")
    store.set_next(version)
    paths = [store.root / "next", store.root / "lock", *store.root.rglob("served*"), version.path]
    for path in [*paths, *store.root.glob("served/*"), store.root / "versions"]:
        assert path.lstat().st_uid == 12345, path


# Hosts that share a store


def hosts(root: Path) -> tuple[Store, Store]:
    one, two = (Store(root, pointers=root / "pointers" / name) for name in ("asr-1", "asr-2"))
    return one, two


def test_hosts_that_share_a_store_have_pointers_and_records_of_their_own(store: Store) -> None:
    one, two = hosts(store.root)
    a, b = add(one, "a"), add(one, "b")
    one.promote(a)
    one.set_next(b)
    one.promote(b, settled=a.id)
    assert names(two) == {"next": None, "current": None, "previous": None}
    assert names(one) == {"next": None, "current": "b", "previous": "a"}
    two.promote(a)
    assert names(two) == {"next": None, "current": "a", "previous": None}
    assert two.record(b.id).last_served is None
    assert (one.pointers / "current").readlink() == Path("../../versions", b.id)
    assert store.named() == {b.id: ["asr-1/current"], a.id: ["asr-1/previous", "asr-2/current"]}
    assert one.named() == {b.id: ["current"], a.id: ["previous", "asr-2/current"]}


def test_a_host_that_comes_later_starts_with_what_is_proven(store: Store) -> None:
    one, two = hosts(store.root)
    a = add(one, "a")
    one.records.note_trial(a.id, {"passed": True})
    assert ensure_embedded(two) == a
    assert two.current() == a
    assert one.current() is None


def test_a_store_may_be_moved_with_its_pointers(store: Store, tmp_path: Path) -> None:
    one, _ = hosts(store.root)
    one.promote(add(one, "a"))
    store.root.rename(tmp_path / "moved")
    moved, _ = hosts(tmp_path / "moved")
    assert names(moved)["current"] == "a"


# What was taken back


def test_what_was_taken_back_is_not_gone_back_to(store: Store) -> None:
    z, a, b = (served(store, name) for name in "zab")
    store.promote(z)
    store.promote(a, settled=z.id)
    store.promote(b, settled=a.id)
    assert store.former(b.id) == a
    store.records.note_withdrawn(b.id, "50% errors")
    assert store.record(b.id).fallen
    store.promote(a, settled=b.id)
    assert names(store) == {"next": None, "current": "a", "previous": "z"}
    assert store.former(a.id) == z
    store.records.note_withdrawn(b.id, None)
    assert not store.record(b.id).fallen


def test_without_previous_a_rollback_takes_what_served_last(store: Store) -> None:
    a, b, c = (served(store, name) for name in "abc")
    store.set_current(c)
    assert store.former(c.id) == b
    add(store, "d")
    store.records.note_trial(add(store, "tried").id, {"passed": True})
    assert store.former(c.id) == b
    store.records.note_withdrawn(b.id, "no")
    assert store.former(c.id) == a
