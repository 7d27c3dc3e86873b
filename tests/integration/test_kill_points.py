"""Kills, stops and second thoughts, at every step of a roll and under load."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from load import Report, head
from rolling import TRIES, Operated, begin_half, known_clips, operated, traffic, watching
from service import wait_for
from waiting import PATIENCE

from asrsvc.release.store import Version
from asrsvc.serving.compose import MOST_REQUESTS
from asrsvc.serving.status import WorkerStatus

STEPS = [("first", "loading"), ("soak", "ready"), ("replace", "ready")]
"""steps of a roll, and the state of its newest worker there"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """Two workers, and time enough in each step to do something."""
    folder: Path = tmp_path_factory.mktemp("kills")
    configuration = folder / "asr.conf"
    write_soak(configuration, 1.5)
    settings = {"ASR_SOAK_SECONDS": "", "ASR_SOAK_REQUESTS": "1000000", "ASR_CONFIG": str(configuration)}
    with operated(folder, **settings) as started:
        yield started


def write_soak(configuration: Path, seconds: float) -> None:
    configuration.write_text(f"ASR_SOAK_SECONDS={seconds}\n")


@pytest.fixture
def no_end_of_soak(service: Operated, step: str) -> Iterator[None]:
    """A soak that does not end before its worker does, from the next SIGHUP to the one after the test."""
    configuration = Path(service.environ["ASR_CONFIG"])
    if step == "soak":
        write_soak(configuration, 3600)
    yield
    write_soak(configuration, 1.5)


def check_lost(service: Operated, report: Report, lost_before: int) -> None:
    """Not more failed than a killed worker had in hand, as the status says."""
    lost = service.status.counters.lost_requests - lost_before
    assert len(report.lost()) <= lost <= MOST_REQUESTS, report.summary()


@pytest.mark.usefixtures("no_end_of_soak")
@pytest.mark.parametrize(("step", "state"), STEPS)
def test_the_death_of_a_new_worker_ends_the_roll_and_nothing_else(
    service: Operated, step: str, state: str
) -> None:
    lost = service.status.counters.lost_requests
    with watching(service) as watch, traffic(service, 25.0, early_share=0.0) as flow:
        last, worker = service.kill_at(
            step, to=service.other, state=state, version=service.other, number=signal.SIGKILL
        )
        roll = service.end_of_roll(last)
        now = service.wait_whole(service.good)
        flow.wait_answered(10)
        report = flow.end()
    assert (roll.result, roll.target) == ("failed", service.other.id)
    assert roll.error == f"worker {worker.pid} was killed by SIGKILL"
    assert now.version == service.good.id
    assert service.store.current() == service.good
    assert service.store.pointer("next") is None
    # In the middle of the replacement the one that was killed is one of those who serve.
    assert watch.fewest_ready >= (1 if step == "replace" else 2)
    check_lost(service, report, lost)


@pytest.mark.parametrize("step", [step for step, _ in STEPS])
def test_the_death_of_an_old_worker_does_not_stop_the_roll(service: Operated, step: str) -> None:
    lost = service.status.counters.lost_requests
    source = service.status.version
    target = service.other if source == service.good.id else service.good
    old = service.good if target == service.other else service.other
    with watching(service) as watch, traffic(service, 25.0, early_share=0.0) as flow:
        last, _ = service.kill_at(step, to=target, state="ready", version=old, number=signal.SIGKILL)
        roll = service.end_of_roll(last)
        service.wait_whole(target)
        flow.wait_answered(10)
        report = flow.end()
    assert (roll.result, roll.error) == ("succeeded", None)
    assert service.store.current() == target
    assert watch.fewest_ready >= 1
    assert watch.most_processes <= 3
    check_lost(service, report, lost)


def test_the_death_of_the_tool_does_not_stop_the_roll(service: Operated) -> None:
    with traffic(service, 25.0) as flow:
        for _ in range(TRIES):
            target = another(service)
            roll = service.status.roll
            last = roll.id if roll else 0
            service.store.set_next(target)
            with service.tool("reload") as tool:
                service.wait_status("the roll", lambda now, last=last: now.roll and now.roll.id > last)
                tool.kill()
            assert service.end_of_roll(last).result == "succeeded"
            if tool.returncode == -signal.SIGKILL:
                break  # else it was over before it was seen to have begun
        else:
            raise AssertionError("the tool has always ended by itself")
        report = flow.end()
    assert not report.failures(), report.summary()
    service.wait_whole(target)


def another(service: Operated) -> Version:
    return service.other if service.status.version == service.good.id else service.good


def test_two_reloads_at_once_both_see_the_end(service: Operated) -> None:
    target = another(service)
    service.store.set_next(target)
    with traffic(service, 25.0) as flow, service.tool("reload") as one, service.tool("reload") as two:
        for tool in (one, two):
            output, errors = tool.communicate(timeout=2 * PATIENCE)
            assert tool.returncode == 0, errors.decode()
            assert output.decode().startswith(f"{target.id} serves")
        report = flow.end()
    assert not report.failures(), report.summary()
    service.wait_whole(target)


def test_of_twenty_wishes_in_a_row_the_last_one_wins(service: Operated) -> None:
    with watching(service) as watch, traffic(service, 25.0) as flow:
        for _ in range(TRIES):
            wishes = [service.other, service.good] * 10
            if service.status.version == service.good.id:
                wishes.append(service.other)
            for version in wishes:
                service.store.set_next(version)
                service.hang_up()
            if service.status.version != wishes[-1].id:
                break
            service.wait_whole()  # a roll has ended between two wishes, and the last one changes nothing
        else:
            raise AssertionError("the wishes have never come one right after the other")
        service.wait_whole(wishes[-1])
        wait_for("the end of the wish", lambda: service.store.pointer("next") is None)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert service.store.current() == wishes[-1]
    assert watch.fewest_ready >= 2


def test_twenty_hang_ups_in_a_row_are_two_rolls_at_most(service: Operated) -> None:
    now = service.wait_whole()
    before = now.roll.id if now.roll else 0
    with watching(service) as watch, traffic(service, 25.0) as flow:
        for _ in range(20):
            service.hang_up()
        service.end_of_roll(before)
        now = service.wait_whole()
        report = flow.end()
    assert not report.failures(), report.summary()
    assert now.roll is not None
    # The first begins one; those that come while it is under way are remembered once.
    assert before < now.roll.id <= before + 3
    assert watch.fewest_ready >= 2


def test_one_more_and_one_fewer_worker(service: Operated) -> None:
    service.wait_whole()
    with watching(service) as watch, traffic(service, 25.0) as flow:
        service.master.send_signal(signal.SIGTTIN)
        service.wait_status("three workers", lambda now: now.wanted == 3)
        assert count_ready(service) == 3
        service.master.send_signal(signal.SIGTTOU)
        service.wait_status("two workers", lambda now: now.wanted == 2)
        wait_for("the end of the third", lambda: len(service.worker_pids()) == 2)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert count_ready(service) == 2
    assert watch.fewest_ready >= 2


def count_ready(service: Operated) -> int:
    now = service.wait_whole()
    return sum(worker.state == "ready" for worker in now.workers)


def test_settings_from_the_file_are_taken_at_a_hang_up_and_broken_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "asr.conf"
    file.write_text("ASR_WORKERS=2\nASR_QUEUE_LIMIT=900\n")
    with operated(tmp_path / "service", ASR_WORKERS="", ASR_CONFIG=str(file)) as service:
        assert count_ready(service) == 2
        with watching(service) as watch, traffic(service, 25.0) as flow:
            for broken in ("ASR_WORKERS=many\n", "ASR_WROKERS=3\n", "no line of settings\n"):
                pids, before = service.worker_pids(), service.status.refused
                file.write_text(broken)
                service.hang_up()
                assert str(file) in service.wait_refused(before)
                assert service.worker_pids() == pids
            file.unlink()
            before = service.status.refused
            service.hang_up()
            assert str(file) in service.wait_refused(before)
            for workers in (3, 1):
                file.write_text(f"ASR_WORKERS={workers}\n")
                assert service.reload().result == "succeeded"
                assert service.status.wanted == workers
                assert count_ready(service) == workers
            wait_for("the end of those before", lambda: len(service.worker_pids()) == 1)
            report = flow.end()
        assert service.status.refused is None
        assert not report.failures(), report.summary()
        assert watch.fewest_ready >= 1


def test_workers_that_have_answered_enough_are_replaced_first(tmp_path: Path) -> None:
    with operated(tmp_path, ASR_WORKER_MAX_REQUESTS="40") as service:
        first = service.worker_pids()
        seen = set(first)
        with watching(service) as watch, traffic(service, 30.0) as flow:

            def replaced() -> bool:
                seen.update(service.worker_pids())
                return len(seen) >= 6 and all(w.pid not in first for w in service.status.workers)

            wait_for("four replacements, of the first two too", replaced)
            report = flow.end()
        service.wait_whole(service.good)
        assert not report.failures(), report.summary()
        assert watch.fewest_ready >= 2
        service.wait_status("the first have left", lambda now: not first & {w.pid for w in now.workers})
        assert service.status.counters.restarts == 0


@pytest.mark.parametrize("rolling", [False, True], ids=["in peace", "in a roll"])
def test_the_death_of_the_master_leaves_no_orphan_and_a_new_start_serves(
    tmp_path: Path, rolling: bool
) -> None:
    with operated(tmp_path, ASR_SOAK_SECONDS="30") as service:
        half = begin_half(service)
        if rolling:
            service.wish(service.other)
            service.wait_worker("soak", state="ready", version=service.other)
        workers = service.master.children(recursive=True)
        assert service.process is not None
        service.process.kill()
        service.process.wait(PATIENCE)
        # The listeners are let go at once; what is in hand goes on.
        wait_for("the listener to be closed", lambda: not listens(service.port))
        assert any(worker.is_running() for worker in workers)
        assert half.finish().startswith(b"HTTP/1.1 200 ")
        wait_for("the end of all workers", lambda: not any(w.is_running() for w in workers))
        service.start()
        if rolling:  # the wish is still there
            service.wait_worker("soak", state="ready", version=service.other)
            assert service.store.current() == service.good
        else:
            service.wait_whole(service.good)
        assert service.transcribe("a.flac", FLAC.read_bytes()).status_code == 200


FLAC = Path(__file__).resolve().parents[1] / "data" / "clips" / "en_1.flac"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_a_stop_answers_all_that_was_accepted(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        halves = [begin_half(service)]
        clip = known_clips(service)[0]
        waiting = []
        for _ in range(40):
            connection = socket.create_connection(("127.0.0.1", service.port), timeout=2 * PATIENCE)
            connection.sendall(head(clip.body, keep_alive=False) + clip.body)
            waiting.append(connection)
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        answers = [halves[0].finish()]
        for connection in waiting:
            with connection, connection.makefile("rb") as reader:
                answers.append(reader.read())
        assert service.process.wait(PATIENCE) == 0
    texts = [text.encode() for text in clip.texts]
    assert all(a.startswith(b"HTTP/1.1 200 ") and any(t in a for t in texts) for a in answers)
    assert len(answers) == 41


def test_a_stop_under_load_fails_only_what_came_after_it(tmp_path: Path) -> None:
    with operated(tmp_path) as service, traffic(service, 40.0, early_share=0.0) as flow:
        flow.wait_answered(40)
        assert service.process is not None
        told = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
        report = flow.end()
    # A connection may be made by the kernel in the instant between the last look at the listener
    # and its end; it was not accepted.
    failed = [r for r in report.failures() if r.sent < told and "Refused" not in r.error]
    assert not failed, failed
    assert all(r.error.startswith("Connection") for r in report.failures()), report.summary()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_quickly(tmp_path: Path, number: signal.Signals) -> None:
    with operated(tmp_path, ASR_BODY_IDLE_TIMEOUT="600", ASR_BODY_TIMEOUT="600") as service:
        half = begin_half(service)
        everybody: list[psutil.Process] = service.master.children(recursive=True)
        assert service.process is not None
        service.process.send_signal(number)
        service.wait_status("the stop", lambda now: now.state == "stopping")
        service.process.send_signal(number)
        assert service.process.wait(PATIENCE) == 0  # the request would have had ten minutes
        wait_for("the end of all workers", lambda: not any(p.is_running() for p in everybody))
        half.close()


@pytest.mark.parametrize("step", ["first", "soak", "replace"])
def test_a_stop_in_the_middle_of_a_roll_loses_nothing(tmp_path: Path, step: str) -> None:
    state = "loading" if step in {"first", "replace"} else "ready"
    seconds = "0.2" if step == "replace" else "30"
    with operated(tmp_path, ASR_SOAK_SECONDS=seconds) as service:
        half = begin_half(service)
        service.kill_at(
            step, to=service.other, state=state, version=service.other, number=signal.SIGTERM, master=True
        )
        assert service.process is not None
        service.wait_status("the stop", lambda now: now.state == "stopping")
        assert half.finish().startswith(b"HTTP/1.1 200 ")
        assert service.process.wait(PATIENCE) == 0
        assert service.store.current() == service.good
        assert service.store.pointer("next") == service.other
        service.start()
        pid = service.process.pid
        service.wait_status("the roll of the wish", lambda now: now.master.pid == pid and now.roll)


def test_requests_that_are_stuck_do_not_hold_up_a_roll(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        halves = [begin_half(service) for _ in range(4)]
        with watching(service) as watch, traffic(service, 15.0) as flow:
            assert service.roll_to(service.other).result == "succeeded"
            report = flow.end()
        states = [worker.state for worker in service.status.workers]
        assert states.count("ready") == 2
        assert "draining" in states
        assert all(half.finish().startswith(b"HTTP/1.1 200 ") for half in halves)
        service.wait_status("the end of the drain", lambda now: len(now.workers) == 2)
        assert not report.failures(), report.summary()
        assert watch.fewest_ready == 2
        assert service.status.counters.lost_requests == 0


def test_a_request_longer_than_the_drain_is_cut_and_counted_and_nothing_else(tmp_path: Path) -> None:
    # Short, and still enough for all that is in hand beside the half, on a machine that pauses.
    with operated(tmp_path, ASR_DRAIN_TIMEOUT="20") as service:
        half = begin_half(service)
        with traffic(service, 15.0, early_share=0.0) as flow:
            service.roll_to(service.other)
            service.wait_status("the end of the drain", lambda now: len(now.workers) == 2)
            flow.wait_answered(5)
            report = flow.end()
        assert not report.failures(), report.summary()
        counters = service.wait_status(
            "the count", lambda now: now.counters if now.counters.lost_requests else None
        )
        assert (counters.killed_draining, counters.lost_requests, counters.restarts) == (1, 1, 0)
        half.close()


def only(found: list[WorkerStatus]) -> WorkerStatus | None:
    return found[0] if len(found) == 1 else None


def test_the_death_of_a_worker_that_drains_loses_what_it_had_in_hand(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        half = begin_half(service)
        with watching(service) as watch, traffic(service, 15.0, early_share=0.0) as flow:
            assert service.roll_to(service.other).result == "succeeded"
            # What it has begun to answer when it is told to leave is no loss that is looked for.
            begun = list(flow.report.records)
            wait_for("the answers to what came before", lambda: all(r.seconds for r in begun))
            # The other old worker drains too, for a moment: only the one with the half request stays.
            worker = service.wait_status(
                "the worker that drains", lambda now: only([w for w in now.workers if w.state == "draining"])
            )
            os.kill(worker.pid, signal.SIGKILL)
            service.wait_status("its end", lambda now: len(now.workers) == 2)
            flow.wait_answered(5)
            report = flow.end()
        assert not report.failures(), report.summary()
        assert watch.fewest_ready == 2
        counters = service.wait_status(
            "the count", lambda now: now.counters if now.counters.lost_requests else None
        )
        assert (counters.lost_requests, counters.restarts) == (1, 0)
        half.close()
