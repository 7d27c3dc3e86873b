"""Small stores for tests: versions without a model in them."""

from __future__ import annotations

from asrsvc.release import records
from asrsvc.release.store import REQUIRED_FILES, Pointer, Store, Version


def add(store: Store, name: str) -> Version:
    source = store.root.with_name(f"source of {name}")
    if not source.is_dir():
        source.mkdir(parents=True)
        for file in (*REQUIRED_FILES, "some.bpe.model"):
            (source / file).write_text(f"{name} {file}")
    return store.add_folder(source, name)


def served(store: Store, name: str) -> Version:
    """A version that has served well, later than all others: records tell milliseconds apart."""
    version = add(store, name)
    now = records._now()
    while records._now() == now:
        pass
    store.records.note_served(version.id)
    return version


def point(store: Store, name: Pointer, target: str | Version) -> None:
    """Move a pointer by hand."""
    link = store.root / name
    link.unlink(missing_ok=True)
    link.symlink_to(f"versions/{target.id}" if isinstance(target, Version) else target)
