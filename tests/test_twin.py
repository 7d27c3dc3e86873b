"""A worker whose version has no twin makes one in the background, where that is worth while."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from broken_models import NANO
from waiting import PATIENCE

from asrsvc import settings
from asrsvc.release.bake import find
from asrsvc.release.store import Store, Version
from asrsvc.serving import twin
from asrsvc.serving.twin import Maker
from asrsvc.settings import Settings


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Settings, Version]:
    store = Store(tmp_path / "store")
    return replace(settings.load(), store=store.root, bake="auto"), store.add_folder(NANO, "nano")


def test_a_small_model_gets_no_twin_at_a_start(stored: tuple[Settings, Version]) -> None:
    known, version = stored
    assert not Maker(known, version, find(known.store, version.id, "auto")).wanted


def test_a_missing_twin_of_a_large_model_is_made(
    stored: tuple[Settings, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, version = stored
    monkeypatch.setattr(twin, "_WORTH_BYTES", 0)
    makers = [Maker(known, version, find(known.store, version.id, "auto")) for _ in range(2)]
    monkeypatch.setattr(twin, "_LOOK_SECONDS", 0.1)
    for maker in makers:  # as two workers would: one makes it, the other one finds it
        assert maker.wanted
        maker.start()
    assert all(maker.made.wait(3 * PATIENCE) for maker in makers)
    assert find(known.store, version.id, "auto").state == "ready"


@pytest.mark.parametrize(
    ("changes", "mode"),
    [({}, "auto"), ({"bake": "uint8"}, "uint8"), ({"bake": "off"}, "off"), ({"device": "cuda"}, "off")],
)
def test_twins_are_for_cpus_and_as_the_setting_says(changes: dict[str, str], mode: str) -> None:
    base = replace(settings.load(), bake="auto", device="cpu")
    assert replace(base, **changes).bake_mode() == mode  # type: ignore[arg-type]
