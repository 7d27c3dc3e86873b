"""Which version of a store a source has given before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stores import add, served

from asrsvc.errors import BadArgument
from asrsvc.release.embedded import ensure_embedded, is_demonstration
from asrsvc.release.known import known_version
from asrsvc.release.manifest import FileRecord, Origin
from asrsvc.release.sources import identity, parse
from asrsvc.release.store import Store, Version
from asrsvc.release.writing import copy_file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def note(store: Store, version: Version, source: str) -> None:
    store.records.note_source(version.id, identity(parse(source)))


def from_hub(store: Store, name: str, origin: Origin) -> Version:
    """A version as an earlier release has pulled it: its manifest alone says where it is from."""
    source = add(store, f"files-of-{name}").path
    with store.staged("test") as stage:
        files: dict[str, FileRecord] = {
            path.name: copy_file(path, stage.files / path.name)
            for path in source.iterdir()
            if path.name != "manifest.json"
        }
        return store.commit(stage, name, origin, files)


@pytest.mark.parametrize(
    ("noted", "asked"),
    [
        ("modelscope:org/name", "modelscope:org/name"),
        ("hf:org/name@main", "hf:org/name@main"),
        ("https://host/a.tar.gz", "https://host/a.tar.gz#fragment"),
        ("https://host/a.tar.gz?x=1", "https://host/a.tar.gz?x=1"),
    ],
)
def test_what_was_pulled_from_a_source_is_found_by_it(store: Store, noted: str, asked: str) -> None:
    version = add(store, "a")
    assert known_version(store, asked) is None
    note(store, version, noted)
    assert known_version(store, asked) == version


@pytest.mark.parametrize(
    ("noted", "asked"),
    [
        ("modelscope:org/name", "hf:org/name"),
        ("modelscope:org/name", "modelscope:org/name@v2"),
        ("modelscope:org/name@v1", "modelscope:org/name@v2"),
        ("modelscope:org/name@v1", "modelscope:org/name"),
        ("https://host/a.tar.gz?x=1", "https://host/a.tar.gz?x=2"),
        ("https://host/a.tar.gz?x=1", "https://host/a.tar.gz"),
    ],
)
def test_another_source_is_not_mistaken_for_it(store: Store, noted: str, asked: str) -> None:
    note(store, add(store, "a"), noted)
    assert known_version(store, asked) is None


def test_of_several_the_last_one_pulled_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = add(store, "a"), add(store, "b")
    times = iter(["2026-01-02", "2026-01-03", "2026-01-04"])
    monkeypatch.setattr("asrsvc.release.records._now", lambda: next(times))
    for version, expected in ((b, b), (a, a), (b, b)):
        note(store, version, "hf:org/name")
        assert known_version(store, "hf:org/name") == expected


def test_a_damaged_version_is_not_known(store: Store) -> None:
    version = add(store, "a")
    note(store, version, "hf:org/name")
    (version.path / "am.mvn").unlink()
    assert known_version(store, "hf:org/name") is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("hf:org/name", True),
        ("hf:org/name@abc", True),
        ("hf:org/name@main", False),
        ("modelscope:org/name", False),
    ],
)
def test_a_version_of_an_earlier_release_is_known_by_its_manifest(
    store: Store, asked: str, found: bool
) -> None:
    version = from_hub(store, "old", Origin("hf:org/name", "abc"))
    assert known_version(store, asked) == (version if found else None)


def test_a_folder_that_has_changed_is_pulled_again_and_one_that_is_gone_is_not(store: Store) -> None:
    version = add(store, "a")
    source = store.root.with_name("source of a")
    note(store, version, str(source))
    assert known_version(store, str(source)) == version
    (source / "notes.txt").write_text("no part of a model")
    assert known_version(store, str(source)) == version
    (source / "am.mvn").write_text("another")
    assert known_version(store, str(source)) is None
    (source / "am.mvn").unlink()
    assert known_version(store, str(source)) is None
    shutil.rmtree(source)
    assert known_version(store, str(source)) == version


@pytest.mark.parametrize("text", ["", "nowhere", "hf:a", "a\0b", "http://example.com/a.tar.gz"])
def test_what_is_no_source_is_refused(store: Store, text: str) -> None:
    add(store, "a")
    with pytest.raises(BadArgument):
        known_version(store, text)


def test_what_a_start_put_into_the_store_is_for_demonstration_until_an_operator_pulls_it(
    store: Store,
) -> None:
    version = ensure_embedded(store)
    other = served(store, "sensevoice-nano")  # by its source, not by its name
    assert is_demonstration(store, version.id)
    assert not is_demonstration(store, other.id)
    assert not is_demonstration(store, None)
    assert not is_demonstration(store, "gone-01234567")
    note(store, version, "hf:org/name")
    assert not is_demonstration(store, version.id)


def test_it_is_known_wherever_it_was_installed_from(store: Store, tmp_path: Path) -> None:
    place = tmp_path / "old" / "asrsvc" / "models" / "sensevoice-nano"
    place.parent.mkdir(parents=True)
    shutil.copytree(add(store, "a").path, place)
    assert is_demonstration(store, store.add_folder(place, "earlier").id)


# What the next start serves


def names(store: Store) -> dict[str, str | None]:
    found = {name: store.pointer(name) for name in ("next", "current", "previous")}  # type: ignore[arg-type]
    return {name: version.id[0] if version else None for name, version in found.items()}


def test_a_start_with_a_proven_version_serves_it_and_can_go_back(store: Store) -> None:
    a, b, c = served(store, "a"), add(store, "b"), add(store, "c")
    store.promote(a)
    store.set_next(c)
    store.records.note_trial(b.id, {"passed": True})
    store.start_with(b)
    assert names(store) == {"next": None, "current": "b", "previous": "a"}
    assert store.candidates().versions[:2] == (b, a)
    store.start_with(b)
    assert names(store) == {"next": None, "current": "b", "previous": "a"}


def test_a_start_with_what_is_not_proven_rolls_to_it(store: Store) -> None:
    a, b = served(store, "a"), add(store, "b")
    store.promote(a)
    store.records.note_forced(b.id, forced=True)
    store.start_with(b)
    assert names(store) == {"next": "b", "current": "a", "previous": None}


def test_what_is_forced_is_served_where_there_is_nothing_else(store: Store) -> None:
    b = add(store, "b")
    store.start_with(b)
    assert store.candidates().versions == ()  # moved by hand, as far as anybody knows
    store.records.note_forced(b.id, forced=True)
    assert (store.candidates().versions, store.candidates().problems) == ((b,), ())
    assert ensure_embedded(store) == b
