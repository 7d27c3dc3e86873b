"""What a worker compares its texts with: those of its version's trial."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_models import MAKERS
from broken_models import copy_of_nano, write_network

from asrsvc import settings
from asrsvc.errors import ModelError
from asrsvc.release.bake import MakeLimits, make_if_missing, twins
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.store import Store, Version
from asrsvc.serving import loading
from asrsvc.serving.twin import look
from asrsvc.serving.warmup import Expected, check, expected
from asrsvc.speech.sample import Heard, hear, hear_again

FILES = {"model_quant.onnx": "12", "am.mvn": "34"}
ENGINE = {"onnxruntime": "1", "threads": "1"}
TRIAL: dict[str, Any] = {
    "passed": True,
    "files": FILES,
    "engine": ENGINE,
    "embedded": {"texts": {"a.flac": "hello"}, "likeness": 1.0, "cost": 0.25},
}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, True),
        ({"passed": False}, False),
        ({"files": {**FILES, "am.mvn": "56"}}, False),
        ({"files": None}, False),
        ({"engine": {**ENGINE, "threads": "2"}}, False),
        ({"embedded": None}, False),
        ({"embedded": {"texts": {}, "cost": 1.0}}, False),
        ({"embedded": {"texts": {"a": "b"}, "cost": "much"}}, False),
    ],
)
def test_a_trial_counts_for_the_same_files_in_the_same_engine(
    tmp_path: Path, change: dict[str, Any], found: bool
) -> None:
    store = Store(tmp_path)
    store.records.note_trial("v", {**TRIAL, **change})
    wanted = Expected({"a.flac": "hello"}, 0.25) if found else None
    assert expected(tmp_path, "v", FILES, ENGINE) == wanted


def test_without_a_record_or_with_a_damaged_one_nothing_is_expected(tmp_path: Path) -> None:
    assert expected(tmp_path, "v", FILES, ENGINE) is None
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "v.json").write_text("{")
    assert expected(tmp_path, "v", FILES, ENGINE) is None


def heard(text: str = "hello", likeness: float = 1.0, cost: float = 0.25) -> Heard:
    return Heard({"a.flac": text}, likeness, cost, runs=7)


KNOWN = Expected({"a.flac": "hello"}, 0.25)


@pytest.mark.parametrize(
    ("findings", "reference_cost", "trial", "says"),
    [
        (heard(), None, KNOWN, None),
        (heard(likeness=0.1), None, KNOWN, None),  # its trial let it through
        (heard("Hello"), None, KNOWN, "says other things than in its trial: 'Hello' for the clip a.flac"),
        (Heard({}, 1.0, 0.25), None, KNOWN, "says other things"),
        (heard(), None, Expected({"a.flac": "hello", "b.flac": "world"}, 0.25), None),  # briefly
        (
            heard(cost=1.3),
            None,
            KNOWN,
            (
                r"slow: at best of 7 runs it took 1300 ms of CPU time for a second of sound, 5.2 times the"
                r" CPU time that it took in its trial \(250 ms\); 5 times is the limit"
            ),
        ),
        (heard(cost=0.0049), None, Expected({"a.flac": "hello"}, 0.0001), None),  # too little to tell
        (heard(cost=0.0052), None, Expected({"a.flac": "hello"}, 0.0001), r"5.20 ms of .* \(0.10 ms\)"),
        (heard(cost=1.2), 0.01, KNOWN, None),  # slow by nature
        (heard(cost=1.3), 1.0, KNOWN, None),  # so is everything on this machine now
        (heard(), None, None, None),
        (heard("anything", 0.5), 0.25, None, None),
        (heard("anything", 0.49), None, None, "says wrong things.* 49% like .* 50% is the least"),
        (heard(cost=0.9), 0.15, None, "6.0 times the CPU time that the version that serves takes"),
        (heard(cost=0.9), 0.2, None, None),
        (heard(cost=0.9), None, None, None),
        (heard(cost=1.1), None, None, "1100 ms of CPU time .* faster than the sound"),
        (heard(cost=1.1), 1.0, None, "1100 ms of CPU time .* faster than the sound"),
    ],
)
def test_texts_and_cost_are_compared(
    findings: Heard, reference_cost: float | None, trial: Expected | None, says: str | None
) -> None:
    if says is None:
        check(findings, reference_cost, trial)
    else:
        with pytest.raises(ModelError, match=says):
            check(findings, reference_cost, trial)


def test_a_good_first_measurement_is_enough_and_a_bad_one_is_not(stored: tuple[Store, Version]) -> None:
    model = load(stored).model
    first = hear(model, briefly=True)
    assert 2 <= first.runs <= 10
    assert hear_again(model, first, lambda _cost: False) is first
    # A first measurement that something has disturbed: one more is enough.
    disturbed = replace(first, cost=first.cost * 1000)
    again = hear_again(model, disturbed, lambda cost: cost > first.cost * 900)
    assert again.runs == first.runs + 1
    assert again.cost < first.cost * 900
    # It never gets better.
    refused = hear_again(model, first, lambda _cost: True)
    assert refused.runs >= first.runs + 3
    assert refused.cost <= first.cost


def test_a_model_that_takes_ten_times_as_long_is_not_served(
    stored: tuple[Store, Version], tmp_path: Path
) -> None:
    store, version = stored
    MAKERS["tenfold"](copy_of_nano(tmp_path / "tenfold"))
    slow = store.add_folder(tmp_path / "tenfold", "tenfold")
    cost = min(load(stored).findings.cost for _ in range(3))  # something may disturb one of them
    with pytest.raises(ModelError, match=r"is slow: at best of \d+ runs .* the version that serves takes"):
        load((store, slow), reference_cost=cost)
    assert load((store, version), reference_cost=cost).findings.texts
    assert load((store, slow), reference_cost=cost, tried=False).findings.texts  # forced


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Version]:
    store = Store(tmp_path_factory.mktemp("stored") / "store")
    return store, ensure_embedded(store)


def load(
    stored: tuple[Store, Version], *, tried: bool = True, reference_cost: float | None = None
) -> loading.Loaded:
    store, version = stored
    found = settings.load({}, {"ASR_STORE": str(store.root), "ASR_WORKERS": "1", "ASR_THREADS": "1"})
    return loading.load(
        version.path,
        lambda: look(version.path, version.id, found),
        version=version.id,
        tried=tried,
        reference_cost=reference_cost,
        settings=found,
    )


def test_a_worker_loads_what_said_the_same_in_its_trial_and_no_other(
    stored: tuple[Store, Version],
) -> None:
    from asrsvc.release.trial import TrialOptions, run_trial

    store, version = stored
    trial = run_trial(
        store, version, baseline=None, options=TrialOptions(reference=False), progress=lambda _: None
    )
    assert trial.passed, trial.reason
    texts = trial.record["embedded"]["texts"]
    assert load(stored).findings.texts == texts

    changed = {**trial.record["embedded"], "texts": {**texts, "en_1.flac": "Book a table."}}
    store.records.note_trial(version.id, {**trial.to_record(), "embedded": changed})
    with pytest.raises(ModelError, match="other things than in its trial.* 'Book a table.'"):
        load(stored)
    assert load(stored, tried=False).findings.texts == texts  # forced

    other_engine = {**trial.record["engine"], "onnxruntime": "0.1"}
    store.records.note_trial(version.id, {**trial.to_record(), "embedded": changed, "engine": other_engine})
    assert load(stored).findings.texts == texts


def test_a_twin_that_opens_and_does_not_run_is_left_for_the_published_file(
    tmp_path: Path,
) -> None:
    """Its bytes are as they were made: this is the runtime's fault, or the memory's."""
    store = Store(tmp_path / "store")
    version = ensure_embedded(store)
    twin = make_if_missing(store.root, version, "auto", limits=MakeLimits(), progress=lambda _: None)
    assert twin.usable is not None
    assert load((store, version)).twin == twin
    broken = tmp_path / "broken"
    broken.mkdir()
    write_network(broken, reshape=True)
    shutil.copyfile(broken / "model_quant.onnx", replaced(twin.usable) / "model.onnx")
    digests = {name: twins.measure(twin.usable / name) for name in ("model.onnx", "weights.bin")}
    assert twin.twin is not None
    (twin.usable / "bake.json").write_bytes(twins.manifest_bytes(replace(twin.twin, files=digests)))
    found = load((store, version))
    assert found.twin is not None
    assert found.twin.state == "damaged"
    assert "the engine failed" in (found.twin.problem or "")
    assert found.findings.texts["en_1.flac"] == "Book a table at 1:25 a.m."


def replaced(folder: Path) -> Path:
    """The folder, whose files may be written again."""
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder
