"""Twins: made whole or not at all, the same bit for bit, and never served when they are not as made."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from broken_models import NANO, copy_of_nano, edit_network, set_weight
from waiting import PATIENCE

from asrsvc.errors import BakeFailed
from asrsvc.release import prune as pruning
from asrsvc.release.bake import Found, MakeLimits, find, host_key, make, make_if_missing, making, twins
from asrsvc.release.bake.child import same
from asrsvc.release.store import Store, Version
from asrsvc.speech.features import FEATURE_SIZE
from asrsvc.speech.model import Model
from asrsvc.speech.session import BAKED_MODEL_FILE, BAKED_WEIGHTS_FILE

LIMITS = MakeLimits(seconds=3 * PATIENCE)


def bake(store: Store, version: Version, limits: MakeLimits = LIMITS) -> Found:
    return make_if_missing(store.root, version, "auto", limits=limits, progress=lambda _text: None)


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Version]:
    """A store with a baked version; what changes it works on a copy."""
    store = Store(tmp_path_factory.mktemp("baked") / "store")
    version = store.add_folder(NANO, "nano")
    assert bake(store, version).state == "ready"
    return store, version


@pytest.fixture
def copied(baked: tuple[Store, Version], tmp_path: Path) -> tuple[Store, Version]:
    shutil.copytree(baked[0].root, tmp_path / "store", symlinks=True)
    store = Store(tmp_path / "store")
    return store, store.version(baked[1].id)


def test_a_twin_gives_bit_for_bit_what_the_published_file_gives(baked: tuple[Store, Version]) -> None:
    store, version = baked
    found = find(store.root, version.id, "auto")
    assert found.state == "ready"
    assert found.usable == store.root / "baked" / version.id / host_key("auto")
    random = np.random.default_rng(7)
    noise = [random.standard_normal((n, FEATURE_SIZE)).astype(np.float32) for n in (30, 1, 11)]
    asks = list(zip(noise, ("auto", "ko", "zh"), (True, False, True), strict=True))
    runs = []
    for folder in (None, found.usable):
        model = Model.load(version.path, version=version.id, threads=1, baked=folder)
        runs.append([model.engine.logits([span], [language], [itn]) for span, language, itn in asks])
        runs[-1] += [
            [(frames.ids, frames.best) for frames in model.engine.run([span], [language], [itn])]
            for span, language, itn in asks
        ]
    assert same(*runs)


def test_what_is_baked_is_not_baked_again_unless_it_is_asked_for(copied: tuple[Store, Version]) -> None:
    store, version = copied
    before = find(store.root, version.id, "auto")
    again = bake(store, version)
    assert again == before
    remade = make(store.root, version, "auto", limits=LIMITS, progress=lambda _text: None)
    assert remade.twin is not None
    assert before.twin is not None
    assert remade.twin.created > before.twin.created
    assert find(store.root, version.id, "auto").state == "ready"
    assert sorted(path.name for path in before.path.parent.iterdir()) == [host_key("auto")]


def test_no_twin_is_found_before_one_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.add_folder(NANO, "nano")
    found = find(store.root, version.id, "auto")
    assert (found.state, found.usable, found.due) == ("missing", None, True)


def flip(path: Path, position: int, bit: int = 0) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        place = file.tell()
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def cut(path: Path, size: int) -> None:
    path.chmod(0o644)
    os.truncate(path, size)


def edited(path: Path, **changes: object) -> None:
    """Change what a manifest says, in a way that its seal is right again."""
    found = path.with_name("found.json")
    path.chmod(0o644)
    content = json.loads(path.read_text())
    content.pop("seal")
    files = {name: twins.FileDigest(**record) for name, record in content.pop("files").items()}
    path.write_bytes(twins.manifest_bytes(replace(twins.Twin(files=files, **content), **changes)))  # type: ignore[arg-type]
    found.unlink(missing_ok=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first bit of the weights": lambda folder: flip(folder / BAKED_WEIGHTS_FILE, 0),
    "a bit of the weights": lambda folder: flip(folder / BAKED_WEIGHTS_FILE, 5_000_001, 6),
    "last bit of the weights": lambda folder: flip(folder / BAKED_WEIGHTS_FILE, -1, 7),
    "a bit of the graph": lambda folder: flip(folder / BAKED_MODEL_FILE, 100_000, 3),
    "a bit of the manifest": lambda folder: flip(folder / twins.MANIFEST_FILE, 40),
    "weights cut": lambda folder: cut(folder / BAKED_WEIGHTS_FILE, 5_000_000),
    "weights cut by a byte": lambda folder: cut(
        folder / BAKED_WEIGHTS_FILE, (folder / BAKED_WEIGHTS_FILE).stat().st_size - 1
    ),
    "graph empty": lambda folder: cut(folder / BAKED_MODEL_FILE, 0),
    "manifest cut": lambda folder: cut(folder / twins.MANIFEST_FILE, 100),
    "manifest empty": lambda folder: cut(folder / twins.MANIFEST_FILE, 0),
    "weights gone": lambda folder: (folder / BAKED_WEIGHTS_FILE).unlink(),
    "manifest gone": lambda folder: (folder / twins.MANIFEST_FILE).unlink(),
    "of no files": lambda folder: edited(folder / twins.MANIFEST_FILE, files={}),
    "of another host": lambda folder: edited(folder / twins.MANIFEST_FILE, key="ort1.0-x86_64-00000000-b1"),
    "of another version": lambda folder: edited(folder / twins.MANIFEST_FILE, version="other-01234567"),
    "of another published file": lambda folder: edited(folder / twins.MANIFEST_FILE, source="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_twin_that_is_not_as_it_was_made_is_never_served(
    damage: str, copied: tuple[Store, Version]
) -> None:
    store, version = copied
    known = find(store.root, version.id, "auto")
    assert known.twin is not None
    DAMAGES[damage](known.path)
    found = find(store.root, version.id, "auto", known.twin.source)
    assert (found.state, found.usable, found.due) == ("damaged", None, True)
    assert str(known.path) in str(found.problem)


def test_a_damaged_twin_is_made_again(copied: tuple[Store, Version]) -> None:
    store, version = copied
    flip(find(store.root, version.id, "auto").path / BAKED_WEIGHTS_FILE, 1234)
    assert bake(store, version).state == "ready"
    assert find(store.root, version.id, "auto").state == "ready"


def test_other_hosts_and_modes_have_twins_of_their_own(
    copied: tuple[Store, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, version = copied
    assert find(store.root, version.id, "uint8").state == "missing"
    monkeypatch.setattr(twins, "cpu_features", lambda: "fedcba9876543210")
    assert find(store.root, version.id, "auto").state == "missing"


def test_without_int8_the_twin_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.add_folder(NANO, "nano")
    made = make(store.root, version, "uint8", limits=LIMITS, progress=lambda _text: None)
    assert made.twin is not None
    assert (made.twin.int8, made.twin.matrices) == (0, 37)
    assert made.path.name.endswith("-uint8")


def test_a_version_that_cannot_be_baked_is_remembered_and_left_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = copy_of_nano(tmp_path)
    (folder / "model_quant.onnx").chmod(0o644)
    (folder / "model_quant.onnx").write_bytes(b"no graph")
    version = store.add_folder(folder, "broken")
    with pytest.raises(BakeFailed, match="ONNX Runtime cannot load it"):
        bake(store, version)
    found = bake(store, version)
    assert (found.state, found.usable, found.due) == ("refused", None, False)
    assert sorted(path.name for path in found.path.iterdir()) == [twins.MANIFEST_FILE]
    with pytest.raises(BakeFailed):
        make(store.root, version, "auto", limits=LIMITS, progress=lambda _text: None)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MakeLimits(seconds=0.05), "no answer within"),
        (MakeLimits(LIMITS.seconds, 2**20), "1 MiB is the limit"),
    ],
)
def test_what_takes_too_long_or_too_much_is_ended(limits: MakeLimits, reason: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.add_folder(NANO, "nano")
    with pytest.raises(BakeFailed, match=reason):
        bake(store, version, limits)
    folder = store.root / "baked" / version.id
    assert [path.name for path in folder.iterdir()] == [host_key("auto")]


def test_numbers_that_are_not_finite_are_compared_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = copy_of_nano(tmp_path)
    edit_network(folder, set_weight("ctc.ctc_lo.bias", float("nan")))
    assert bake(store, store.add_folder(folder, "nan")).state == "ready"


def _hold(root: Path, held: object, enough: object) -> None:
    with making._only_one(root, 0):
        held.set()  # type: ignore[attr-defined]
        enough.wait(3 * PATIENCE)  # type: ignore[attr-defined]


def test_one_is_made_at_a_time_on_a_host(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.add_folder(NANO, "nano")
    (store.root / "baked").mkdir()
    context = multiprocessing.get_context("spawn")
    held, enough = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(store.root, held, enough))
    other.start()
    try:
        assert held.wait(PATIENCE)
        with pytest.raises(BakeFailed, match="another version is being baked") as caught:
            bake(store, version)
        assert caught.value.code == "bake_busy"
    finally:
        enough.set()
        other.join(PATIENCE)
    assert bake(store, version).state == "ready"


def test_prune_removes_twins_with_their_version_and_those_of_an_older_runtime(
    copied: tuple[Store, Version],
) -> None:
    store, version = copied
    store.set_next(version)
    own = find(store.root, version.id, "auto").path
    older = own.with_name(own.name.replace("ort1.", "ort0."))
    foreign = own.with_name("ort1.32.0-x86_64-00000000-b1")
    shutil.copytree(own, older)
    shutil.copytree(own, foreign)
    gone = store.root / "baked" / "gone-01234567" / own.name
    shutil.copytree(own, gone)
    with store.lock():
        pruning.prune(store, 0, frozenset())
    assert sorted(path.name for path in own.parent.iterdir()) == sorted([own.name, foreign.name])
    assert not gone.parent.exists()


def test_a_version_whose_twin_is_mapped_is_not_removed(copied: tuple[Store, Version]) -> None:
    store, version = copied
    found = find(store.root, version.id, "auto")
    model = Model.load(version.path, version=version.id, threads=1, baked=found.usable)
    assert version.id in pruning.mapped_versions(store)
    del model
