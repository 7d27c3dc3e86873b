"""Bad models, each tried: it fails its trial with the true reason, in bounded time, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bad_models import MAKERS
from broken_models import NANO, copy_of_nano
from service import wait_for
from waiting import PATIENCE

from asrsvc.release.store import Store, Version
from asrsvc.release.trial import Trial, TrialOptions, run_trial
from asrsvc.release.trial import run as story
from asrsvc.release.trial.subject import Subject

LOAD_SECONDS = PATIENCE
HANG_SECONDS = 20.0
"""for each step of a model that is known to hang: those before it take long on a busy machine, too"""
TRIAL_SECONDS = 400.0
MEMORY = 600 * 2**20

SAYS = {
    "truncated": "ONNX Runtime cannot load it",
    "wrong": "says wrong things.*character error rate",
    "empty": "says wrong things.*character error rate is 1.0000",
    "nan": "not finite",
    "nan-of-sound": "not finite",
    "slow": r"It is slow: .*, \d+\.\d times .* which serves; 5 times is the limit",
    "endless": f"It gave no answer within {HANG_SECONDS:g} s while it loaded",
    "hungry": "(?i)memory|allocate",
    # It holds it in each run, for a moment: the first that is seen is told.
    "glutton": r"It held \d+ MiB of memory (while it|at request) .*; 600 MiB is the limit",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("trials") / "store")


@pytest.fixture(scope="module")
def good(store: Store) -> Version:
    return store.add_folder(NANO, "good")


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no file is there afterwards that was not there before."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    me = psutil.Process()
    before = set(me.children(recursive=True))
    yield
    # They were killed; a process is there for a moment longer.
    wait_for("no process is left", lambda: not set(me.children(recursive=True)) - before)
    wait_for("no trial is at work", lambda: not trials_at_work())
    # .ses belongs to ONNX Runtime: an id, the same file for every process of this user.
    assert [path.name for path in scratch.rglob("*") if path.name != ".ses"] == []


def trials_at_work() -> list[str]:
    """Command lines of processes of trials of this store, wherever they hang in the tree."""
    mine = str(os.getpid())
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [" ".join(line) for line in lines if "asrsvc.release.trial" in " ".join(line) and line[-1] == mine]


def tried(
    store: Store, version: Version, good: Version, *, load_timeout: float = LOAD_SECONDS, said: list[str]
) -> Trial:
    options = TrialOptions(
        load_timeout=load_timeout, memory_bytes=MEMORY, timeout=TRIAL_SECONDS, reference=False
    )
    return run_trial(store, version, baseline=good, options=options, progress=said.append)


def check_failed(store: Store, version: Version, trial: Trial) -> None:
    """The record says what the trial said, and the version is not vouched for."""
    assert not trial.passed
    record = store.record(version.id)
    assert record.trial is not None
    assert (record.trial["passed"], record.trial["reason"]) == (False, trial.reason)
    assert not record.vouched
    assert "Traceback" not in trial.reason


@pytest.mark.parametrize("name", SAYS)
def test_a_bad_model_fails_its_trial_and_says_why(
    store: Store, good: Version, name: str, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / name)
    MAKERS[name](folder)
    bad = store.add_folder(folder, name)
    began = time.monotonic()
    limit = HANG_SECONDS if name == "endless" else LOAD_SECONDS
    trial = tried(store, bad, good, load_timeout=limit, said=[])
    assert time.monotonic() - began < TRIAL_SECONDS + PATIENCE
    check_failed(store, bad, trial)
    assert re.search(SAYS[name], trial.reason), trial.reason


def aliases(head: str, tail: str) -> str:
    """400 bytes that stand for gigabytes."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return head + "\n".join(lines) + tail


HOSTILE = {
    "MODEL_CARD.md": (aliases("---\n", "\nlicense: *a8\n---\n"), "has an anchor"),
    "config.yaml": (aliases("", "\nmax_span_seconds: *a8\n"), "has an anchor"),
    "tokens.json": ("[" + "[]," * 2**19 + "1]", "has more than 262144 values"),
    "am.mvn": ("<AddShift> 1 1\n<LearnRateCoef> 0 [ " + "1 " * 2**20 + "]\n", "262144 is the limit"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_beside_the_network_fails_its_trial_by_name_and_costs_little(
    store: Store, good: Version, name: str, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / "hostile")
    content, says = HOSTILE[name]
    (folder / name).write_text(content)
    bad = store.add_folder(folder, f"hostile-{name.partition('.')[0].lower().replace('_', '-')}")
    said: list[str] = []
    trial = tried(store, bad, good, said=said)
    check_failed(store, bad, trial)
    assert f"{bad.path / name}: " in trial.reason
    assert says in trial.reason
    assert trial.record["memory_mib"] < 300


def test_files_that_were_changed_after_they_had_been_stored_fail(
    store: Store, good: Version, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / "changed")
    (folder / "MODEL_CARD.md").write_text("another one")
    (folder / "am.mvn").write_text((folder / "am.mvn").read_text() + " ")
    bad = store.add_folder(folder, "changed")
    stored = bad.path / "am.mvn"
    stored.unlink()
    stored.write_text("0")
    trial = tried(store, bad, good, said=[])
    check_failed(store, bad, trial)
    assert "am.mvn is not the file that was stored" in trial.reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_model_that_takes_its_process_along_while_it_loads(
    store: Store, good: Version, number: signal.Signals, tmp_path: Path
) -> None:
    """What a crash in native code, or the kernel's want of memory, does; given from outside."""
    folder = copy_of_nano(tmp_path / "endless")
    MAKERS["endless"](folder)
    bad = store.add_folder(folder, "endless")
    before = set(psutil.Process().children())

    def kill() -> None:
        (child,) = set(psutil.Process().children()) - before
        # Once it loads, and before it would be stopped.
        before_it = child.cpu_times().user
        wait_for("the load", lambda: child.cpu_times().user > before_it + 1.0)
        os.kill(child.pid, number)

    killer = threading.Thread(target=kill)

    def progress(text: str) -> None:
        if text.startswith("loads"):
            killer.start()

    options = TrialOptions(load_timeout=LOAD_SECONDS, timeout=TRIAL_SECONDS, reference=False)
    trial = run_trial(store, bad, baseline=good, options=options, progress=progress)
    killer.join()
    check_failed(store, bad, trial)
    assert f"Its process was killed by {number.name}" in trial.reason
    assert "while it loaded" in trial.reason


def test_a_model_that_kills_its_process_at_the_fiftieth_request(
    store: Store, good: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of_nano(tmp_path / "fifty")
    (folder / "tokens.json").write_text((folder / "tokens.json").read_text() + " ")
    bad = store.add_folder(folder, "fifty")
    transcribe = Subject.transcribe

    def killed(self: Subject, *arguments: object, **options: object) -> None:
        if self.version == bad and self.found.requests == 49:
            os.kill(self._child.pid, signal.SIGSEGV)
        transcribe(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Subject, "transcribe", killed)
    trial = tried(store, bad, good, said=[])
    check_failed(store, bad, trial)
    assert "Its process was killed by SIGSEGV at request 50 (" in trial.reason
    assert trial.record["requests"] == 50


def test_a_trial_ends_at_its_deadline_whatever_it_waits_for(
    store: Store, good: Version, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / "endless")
    MAKERS["endless"](folder)
    bad = store.add_folder(folder, "endless")
    # Time enough to come to the load, on a busy machine too; that alone has more than there is.
    options = TrialOptions(load_timeout=TRIAL_SECONDS, timeout=30, reference=False)
    began = time.monotonic()
    trial = run_trial(store, bad, baseline=good, options=options, progress=lambda _: None)
    assert time.monotonic() - began < 30 + PATIENCE
    check_failed(store, bad, trial)
    assert trial.reason == "The time for the whole trial was over while it loaded."


def test_a_serving_version_that_cannot_be_loaded_is_told_and_held_against_nobody(
    store: Store, good: Version, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / "truncated")
    MAKERS["truncated"](folder)
    bad = store.add_folder(folder, "truncated")
    trial = tried(store, good, bad, said=[])
    assert trial.passed, trial.reason
    assert trial.record["serving"]["problem"]
    assert "no serving version to compare with" in trial.reason


def test_a_trial_that_is_interrupted_leaves_no_process_and_no_record(
    store: Store, good: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of_nano(tmp_path / "interrupted")
    (folder / "tokens.json").write_text((folder / "tokens.json").read_text() + "  ")
    other = store.add_folder(folder, "interrupted")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(story, "_hear_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tried(store, other, good, said=[])
    assert store.record(other.id).trial is None
