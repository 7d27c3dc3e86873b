"""Bad models, each tried by a roll under load: nothing is lost, the service says why, and stays good."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bad_models import MAKERS
from broken_models import NANO, copy_of_nano, edit_network
from rolling import PREVIOUS_MODEL, TRIES, Operated, operated, stopped, traffic, watching
from service import wait_for

from asrsvc.release.store import REQUIRED_FILES, Version
from asrsvc.serving.compose import MOST_REQUESTS
from asrsvc.serving.status import Status

MODEL_FILE = REQUIRED_FILES[0]
PATIENCE_SECONDS = 300
HANG_SECONDS = 20
"""the patience with a model that is known to hang; good ones load in it when all is started again"""


SAYS = {
    "truncated": "ONNX Runtime cannot load it",
    "wrong": "says wrong things",
    "empty": "says wrong things",
    "nan": "not finite",
    "nan-of-sound": "not finite",
    "slow": "is slow",
    "endless": f"was not ready within {HANG_SECONDS} s",
    "hungry": "memory",
}
"""name of a bad model → what a worker says of it"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder: Path = tmp_path_factory.mktemp("bad")
    configuration = folder / "asr.conf"
    write_patience(configuration, PATIENCE_SECONDS)
    with operated(folder, ASR_CONFIG=str(configuration)) as started:
        yield started


def write_patience(configuration: Path, seconds: int) -> None:
    configuration.write_text(f"ASR_READY_TIMEOUT={seconds}\n")


@pytest.fixture
def impatience(service: Operated) -> Iterator[None]:
    """A short time for loading, from the next SIGHUP on: only where the model hangs."""
    configuration = Path(service.environ["ASR_CONFIG"])
    write_patience(configuration, HANG_SECONDS)
    yield
    write_patience(configuration, PATIENCE_SECONDS)
    service.reload()


def add_bad(service: Operated, name: str, folder: Path) -> Version:
    MAKERS[name](copy_of_nano(folder))
    return service.store.add_folder(folder, name)


def check_refused(service: Operated, bad: Version, says: str) -> None:
    """The roll has failed, for this reason, and the good version is what serves and what is named."""
    now = service.wait_whole(service.good)
    assert now.roll is not None
    assert (now.roll.target, now.roll.result) == (bad.id, "failed")
    assert now.roll.error is not None
    assert says in now.roll.error
    refused = service.store.record(bad.id).refused
    assert refused is not None
    assert refused.reason == now.roll.error
    check_good(service)


def check_good(service: Operated) -> None:
    assert service.store.current() == service.good
    assert service.store.pointer("next") is None


@pytest.mark.parametrize("name", [name for name in SAYS if name != "endless"])
def test_a_bad_model_fails_its_roll_and_costs_no_request(
    service: Operated, name: str, tmp_path: Path
) -> None:
    check_bad(service, name, tmp_path)


@pytest.mark.usefixtures("impatience")
def test_a_model_that_hangs_fails_its_roll_and_costs_no_request(service: Operated, tmp_path: Path) -> None:
    check_bad(service, "endless", tmp_path)


def check_bad(service: Operated, name: str, tmp_path: Path) -> None:
    bad = add_bad(service, name, tmp_path / name)
    with watching(service) as watch, traffic(service, 15.0) as flow:
        flow.wait_answered(5)
        service.roll_to(bad)
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert {record.version for record in report.records} == {service.good.id}
    assert watch.fewest_ready == 2
    assert watch.most_processes <= 3
    check_refused(service, bad, SAYS[name])


@pytest.mark.parametrize("name", ["truncated", "endless", "wrong"])
def test_a_restart_in_the_middle_of_the_roll_serves_the_good_version(
    service: Operated, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "endless":
        request.getfixturevalue("impatience")
    bad = add_bad(service, name, tmp_path / name)
    kill_in_roll(service, bad)
    service.start()
    # The wish is still there: it is tried once more, behind the gate, and refused.
    service.wait_status("the second try", lambda now: refused_again(now, bad))
    check_refused(service, bad, SAYS[name])


def kill_in_roll(service: Operated, bad: Version) -> None:
    """Kill all in the middle of a roll; one that has ended before is begun again."""
    for _ in range(TRIES):
        last = service.wish(bad)
        service.wait_status("the roll", lambda now, last=last: now.roll and now.roll.id > last)
        with stopped(service.master):
            if service.status.rolling and service.store.pointer("next") == bad:
                service.kill_all()
                return
        service.end_of_roll(last)
    raise AssertionError("the roll has always ended before it was seen")


def refused_again(now: Status, bad: Version) -> bool:
    return now.roll is not None and now.roll.target == bad.id and now.roll.ended is not None


def test_a_restart_after_a_failed_roll_serves_the_good_version(service: Operated, tmp_path: Path) -> None:
    service.roll_to(add_bad(service, "empty", tmp_path / "empty"))
    service.stop()
    service.start()
    now = service.wait_whole(service.good)
    assert now.roll is None
    assert now.problems == ()
    check_good(service)


def test_other_files_than_the_manifest_says_are_refused(service: Operated, tmp_path: Path) -> None:
    """A file that was changed after it had been stored: good or not, it is not what was tried."""
    folder = copy_of_nano(tmp_path / "changed")
    edit_network(folder, lambda model: setattr(model, "doc_string", "another file"))
    bad = service.store.add_folder(folder, "changed")
    stored = bad.path / MODEL_FILE
    stored.unlink()
    shutil.copy(PREVIOUS_MODEL / MODEL_FILE, stored)
    with traffic(service, 15.0) as flow:
        service.roll_to(bad)
        report = flow.end()
    assert not report.failures(), report.summary()
    check_refused(service, bad, "is not the file that was stored")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
@pytest.mark.usefixtures("impatience")
def test_a_model_that_takes_its_process_along_while_it_loads(
    service: Operated, number: signal.Signals, tmp_path: Path
) -> None:
    """What a crash in native code, or the kernel's want of memory, does; given from outside."""
    bad = add_bad(service, "endless", tmp_path / f"crash-{number.name}")
    with watching(service) as watch, traffic(service, 15.0) as flow:
        last = service.wish(bad)
        worker = service.wait_worker("first", state="loading", version=bad)
        os.kill(worker.pid, number)
        service.end_of_roll(last)
        flow.wait_answered(10)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert watch.fewest_ready == 2
    stopped = f"was not ready within {HANG_SECONDS} s"
    check_refused(service, bad, stopped if number is signal.SIGSTOP else f"was killed by {number.name}")


def test_a_model_that_kills_its_process_at_the_fiftieth_request(tmp_path: Path) -> None:
    """It passes every look at the start; what it takes along is what it had in hand, and is counted."""
    with operated(tmp_path, ASR_SOAK_SECONDS="3600", ASR_SOAK_REQUESTS="1000000") as service:
        with watching(service) as watch, traffic(service, 30.0, early_share=0.0) as flow:
            last = service.wish(service.other)
            worker = service.wait_worker("soak", state="ready", version=service.other)

            def answers() -> int:
                return sum(r.version == service.other.id for r in list(flow.report.records))

            wait_for("its fiftieth answer", lambda: answers() >= 50)
            os.kill(worker.pid, signal.SIGKILL)
            service.end_of_roll(last)
            flow.wait_answered(30)
            report = flow.end()
        check_refused(service, service.other, "was killed by SIGKILL")
        assert len(report.lost()) <= service.status.counters.lost_requests <= MOST_REQUESTS
        assert watch.fewest_ready >= 2


def test_a_forced_model_without_words_fails_in_the_soak(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_SOAK_SECONDS="3600", ASR_SOAK_REQUESTS="1000000") as service:
        bad = add_bad(service, "empty", tmp_path / "empty")
        with service.store.lock():
            service.store.records.note_forced(bad.id, forced=True)
        with traffic(service, 30.0) as flow:
            service.roll_to(bad)
            report = flow.end()
        # While it soaked it did answer, without a word: those answers are its own.
        others = [r for r in report.failures() if not r.error.startswith("unknown version")]
        assert not others
        check_refused(service, bad, "empty texts")


def test_a_forced_model_of_no_numbers_is_refused_all_the_same(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_WORKERS="1") as service:
        bad = add_bad(service, "nan-of-sound", tmp_path / "nan")
        with service.store.lock():
            service.store.records.note_forced(bad.id, forced=True)
        service.roll_to(bad)
        check_refused(service, bad, "not finite")


Break = Callable[[Path], None]


def leads_nowhere(link: Path) -> None:
    link.symlink_to("versions/never-there")


def is_a_file(link: Path) -> None:
    link.write_text("sensevoice-nano")


def is_a_loop(link: Path) -> None:
    link.symlink_to(link.name)


def leads_out_of_the_store(link: Path) -> None:
    link.symlink_to(NANO)


def leads_to_half_a_version(link: Path) -> None:
    half = link.parent / "versions" / "half"
    half.mkdir(exist_ok=True)
    link.symlink_to("versions/half")


BREAKS: list[Break] = [leads_nowhere, is_a_file, is_a_loop, leads_out_of_the_store, leads_to_half_a_version]


@pytest.mark.parametrize("pointer", ["next", "current"])
def test_a_broken_pointer_is_refused_and_harms_nothing(service: Operated, pointer: str) -> None:
    link = service.store.root / pointer
    ready = ready_pids(service)
    with traffic(service, 15.0) as flow:
        for break_ in BREAKS:
            before = service.status.refused
            link.unlink(missing_ok=True)
            break_(link)
            service.hang_up()
            assert str(link) in service.wait_refused(before), break_.__name__
            assert service.status.state == "serving"
            assert ready_pids(service) == ready
        link.unlink()
        if pointer == "current":
            service.store.set_current(service.good)
        assert service.reload().result == "succeeded"
        report = flow.end()
    assert not report.failures(), report.summary()
    assert service.wait_whole(service.good).refused is None


def ready_pids(service: Operated) -> set[int]:
    now = service.wait_whole(service.good)
    return {worker.pid for worker in now.workers if worker.state == "ready"}


def test_a_missing_current_is_put_back_by_the_next_roll(service: Operated) -> None:
    service.wait_whole(service.good)
    (service.store.root / "current").unlink()
    assert service.reload().result == "succeeded"
    check_good(service)
