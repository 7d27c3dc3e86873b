"""Versions tried with the real models, and bin/swap-model try."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import reference_funasr
import soundfile
from bad_models import MAKERS
from broken_models import copy_of_nano
from rolling import PREVIOUS_MODEL
from service import CLIPS, PROJECT, manifest, wait_for
from waiting import PATIENCE

from asrsvc.errors import ClipsError, TrialImpossible
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.store import Store, Version
from asrsvc.release.trial import Trial, TrialOptions, quality, run_trial

QUICK = TrialOptions(reference=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("trials") / "store")


@pytest.fixture(scope="module")
def good(store: Store) -> Version:
    """What serves, by its pointer; an operator has chosen it, so others are measured by it."""
    version = ensure_embedded(store)
    store.records.note_source(version.id, str(version.path))
    return version


@pytest.fixture(scope="module")
def earlier(store: Store) -> Version:
    return store.add_folder(PREVIOUS_MODEL, "earlier")


@pytest.fixture
def golden(store: Store) -> Iterator[Path]:
    """The store's own acceptance set: all clips with speech, in folders of their languages."""
    folder = store.root / "golden"
    for clip in manifest(speech_only=True):
        place = folder / clip["language"] / clip["file"]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLIPS / clip["file"], place)
        place.with_suffix(".txt").write_text(clip["withitn"] + "\n", encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


def tried(store: Store, version: Version, baseline: Version | None, options: TrialOptions = QUICK) -> Trial:
    return run_trial(store, version, baseline=baseline, options=options, progress=lambda _: None)


def test_the_earlier_build_says_more_wrong_things_and_is_refused_by_default(
    store: Store, good: Version, earlier: Version
) -> None:
    trial = tried(store, earlier, good)
    assert not trial.passed
    assert "Its character error rate is 0.0806 (5 edits for 62 characters of 5 clips)" in trial.reason
    assert f"0.05 above the 0.0000 of {good.id}, which serves" in trial.reason
    rates = trial.record["error_rate"]
    assert {name: row["cer"] for name, row in rates["languages"].items()} == {
        "en": 0,
        "ja": 0.2667,
        "ko": 0,
        "yue": 0,
        "zh": 0.1111,
    }
    assert store.record(earlier.id).trial is not None
    assert not store.record(earlier.id).vouched


def test_a_higher_limit_lets_it_through_and_a_lower_one_does_not(
    store: Store, good: Version, earlier: Version
) -> None:
    assert tried(store, earlier, good, TrialOptions(max_cer=0.09, reference=False)).passed
    assert store.record(earlier.id).vouched
    assert not tried(store, earlier, good, TrialOptions(max_cer=0.08, reference=False)).passed


def test_the_record_says_all_that_was_found(store: Store, good: Version, earlier: Version) -> None:
    trial = tried(store, good, earlier)
    assert trial.passed, trial.reason
    record = store.record(good.id).trial
    assert record is not None
    assert {**record, "when": ""} == {**trial.to_record(), "when": ""}
    manifest_files = json.loads((good.path / "manifest.json").read_text())["files"]
    assert record["files"] == {
        name: manifest_files[name]["sha256"] for name in manifest_files if name != "MODEL_CARD.md"
    }
    assert record["requests"] == 60
    assert record["embedded"]["texts"]["en_1.flac"] == "Book a table at 1:25 a.m."
    assert record["embedded"]["likeness"] == 1
    assert 0.3 < record["slowdown"] < 3
    assert 0 < record["cost"] < 1
    assert 10 < record["memory_mib"] < 300
    assert record["serving"]["version"] == earlier.id
    assert record["serving"]["error_rate"]["edits"] == 5
    assert record["reference"]["skipped"] == "it was not asked for"
    assert len(json.dumps(record)) < 20_000


@pytest.mark.usefixtures("golden")
def test_the_stores_own_recordings_are_used_and_rates_kept_apart_by_their_digest(
    store: Store, good: Version, earlier: Version
) -> None:
    trial = tried(store, earlier, good)
    assert not trial.passed
    rates = trial.record["error_rate"]
    assert rates["clips"] == 10
    assert rates["languages"]["zh"]["clips"] == 2
    assert 0.08 < rates["cer"] < 0.15
    assert trial.record["serving"]["error_rate"]["cer"] == 0
    assert trial.record["requests"] == 70
    rows = [row for row in quality(store) if row.version == earlier.id]
    assert rows[-1].rate == rates["cer"]
    assert rows[-1].set_digest != rows[0].set_digest


def test_recordings_of_any_format_are_taken(store: Store, good: Version, tmp_path: Path) -> None:
    for name in ("m4a", "mp3", "wav"):
        source = CLIPS / "en_1.flac"
        target = tmp_path / f"{name}.{name}"
        subprocess.run(
            ["ffmpeg", "-loglevel", "error", "-i", source, "-ar", "44100", target],
            check=True,
            timeout=PATIENCE,
        )
        target.with_suffix(".txt").write_text("Book a table at 1:25 AM")
    options = TrialOptions(clips=tmp_path, max_cer=0.2, reference=False)
    trial = tried(store, good, None, options)
    assert trial.passed, trial.reason
    assert {clip["name"] for clip in trial.record["clips"]} == {"m4a.m4a", "mp3.mp3", "wav.wav"}
    # They were killed; a process is there for a moment longer.
    wait_for("no process is left", lambda: not helpers_of_trial())


def helpers_of_trial() -> list[list[str]]:
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [c for c in commands if "asrsvc.release.trial.child" in c and c[-1] == str(os.getpid())]


def test_recordings_that_cannot_be_decoded_are_told_all_and_held_against_no_model(
    store: Store, good: Version, tmp_path: Path
) -> None:
    before = store.record(good.id).trial
    for name in ("noise.wav", "cut.flac", "part.wav", "good.flac"):
        (tmp_path / name).with_suffix(".txt").write_text("hello")
    (tmp_path / "noise.wav").write_bytes(random.Random(1).randbytes(5000))
    whole = (CLIPS / "en_1.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    samples, rate = soundfile.read(CLIPS / "en_1.flac", dtype="int16")
    soundfile.write(tmp_path / "part.wav", samples, rate)
    os.truncate(
        tmp_path / "part.wav", 2 * len(samples) // 3
    )  # a client's would be transcribed as far as it goes
    (tmp_path / "good.flac").write_bytes(whole)
    with pytest.raises(ClipsError) as caught:
        tried(store, good, None, TrialOptions(clips=tmp_path))
    assert "noise.wav: file" in caught.value.message
    assert "cut.flac: file" in caught.value.message
    assert "part.wav: file" in caught.value.message
    assert "good.flac" not in caught.value.message
    assert store.record(good.id).trial == before


@pytest.mark.skipif(reference_funasr.MISSING is not None, reason=str(reference_funasr.MISSING))
def test_token_ids_are_those_of_the_reference(store: Store, good: Version, earlier: Version) -> None:
    for version in (good, earlier):
        reference = tried(store, version, None, TrialOptions()).record["reference"]
        assert reference["name"].startswith("funasr-onnx 0.")
        assert reference["compared"] == 10
        assert reference["equal"] + reference["rounded"] == 10
        assert reference["skipped"] is None


def test_without_the_reference_the_report_says_so(
    store: Store, good: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "funasr_onnx.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PROJECT}")
    trial = tried(store, good, None, TrialOptions())
    assert trial.passed
    assert "not installed" in trial.record["reference"]["skipped"]


def test_without_packages_nothing_can_be_tried_and_no_model_is_blamed(
    store: Store, good: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('No module named numpy')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PROJECT}")
    with pytest.raises(TrialImpossible, match="No module named numpy"):
        tried(store, good, None)


def test_the_parent_loads_nothing_heavy() -> None:
    code = (
        "import sys, asrsvc.release.trial, asrsvc.release.cli.main\n"
        "heavy = {'numpy', 'onnxruntime', 'soundfile', 'funasr_onnx', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=PATIENCE)


# bin/swap-model try


def tool(store: Store, *arguments: str | Path) -> subprocess.Popen[str]:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("ASR_")}
    environ = {
        **plain,
        "ASR_STORE": str(store.root),
        "ASR_RUNTIME_DIR": str(store.root / "run"),
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-P", "-m", "asrsvc.release.cli", *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(store: Store, *arguments: str | Path) -> tuple[int, str, str]:
    process = tool(store, *arguments)
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def test_try_prints_a_report_and_fails_with_a_code_of_its_own(
    store: Store, good: Version, earlier: Version
) -> None:
    code, out, err = run(store, "try", earlier.id)
    assert code == 30
    assert out.startswith(f"{earlier.id} failed its trial: Its character error rate is 0.0806")
    assert "  language  clips  seconds  characters  error rate  serving\n" in out
    assert "  all           5     13.2          62      0.0806   0.0000\n" in out
    assert "zh_1.flac: 晚上1点半提醒我。  instead of  晚上11点半提醒我。\n" in out
    lines = err.splitlines()
    assert lines[0].endswith("listens to the recordings")
    assert lines[-3].startswith(f"asrsvc: {earlier.id} failed its trial: ")
    assert lines[-2] == f"serving now: nothing; the next start serves {good.id}"
    assert "--max-cer" in lines[-1]
    code, out, _ = run(store, "try", earlier.id, "--max-cer", "0.2")
    assert code == 0
    assert out.startswith(f"{earlier.id} passed its trial: ")
    assert store.current() == good


def test_try_as_json_prints_one_object_either_way(store: Store, good: Version, earlier: Version) -> None:
    code, out, _ = run(store, "try", good.id, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    assert (found["version"], found["passed"]) == (good.id, True)
    code, out, _ = run(store, "try", earlier.id, "--json")
    assert code == 30
    failed = json.loads(out)
    assert (failed["error"]["code"], failed["error"]["trial"]["passed"]) == ("trial_failed", False)


def test_try_names_recordings_that_will_not_do(store: Store, good: Version, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    code, out, err = run(store, "try", good.id, "--clips", tmp_path)
    assert (code, out) == (31, "")
    assert f"asrsvc: the acceptance set cannot be used: {tmp_path}/a.txt has no recording" in err


@pytest.mark.parametrize("arguments", [["--max-cer", "2"], ["--max-cer", "x"], ["--max-slowdown", "0.5"]])
def test_limits_that_make_no_sense_are_refused(store: Store, good: Version, arguments: list[str]) -> None:
    code, _, err = run(store, "try", good.id, *arguments)
    assert code == 2
    assert "invalid" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_trial_that_is_broken_off_leaves_no_process(
    store: Store, good: Version, number: signal.Signals, tmp_path: Path
) -> None:
    assert good
    folder = copy_of_nano(tmp_path / "endless")
    MAKERS["endless"](folder)
    bad = store.add_folder(folder, "endless")
    process = tool(store, "try", bad.id)
    command = psutil.Process(process.pid)

    def at_work() -> list[psutil.Process] | None:
        """All its processes, once one of them is in the network that never ends."""
        found = command.children(recursive=True)
        try:
            return found if any(child.cpu_times().user > 3.0 for child in found) else None
        except psutil.NoSuchProcess:  # one has just ended
            return None

    try:
        children = wait_for("a run of the network", at_work)
    except BaseException:
        process.kill()
        raise
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert "the trial was broken off" in err
    psutil.wait_procs(children, timeout=PATIENCE)
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    assert store.record(bad.id).trial is None
