"""activate, rollback and /admin with the real service, under load: nothing is lost, nothing is wrong."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from broken_models import copy_of_nano, write_network
from rolling import Operated, late_answers, operated, stopped, traffic, watching
from service import PROJECT, wait_for
from waiting import PATIENCE

from asrsvc.release.journal import Journal
from asrsvc.release.store import Store, Version
from asrsvc.release.versions import check_digests

TOKEN = "a-token-of-sixteen-characters"


def passed(service: Operated, version: Version) -> Version:
    """A version whose trial has passed: what trials find is tested elsewhere."""
    service.store.records.note_trial(version.id, {"passed": True, "files": check_digests(version.path)})
    return version


def run(service: Operated, *arguments: str, code: int = 0) -> dict[str, Any]:
    process = service.tool(*arguments, "--json")
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == code, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Operated]:
    with operated(tmp_path, ASR_ADMIN_TOKEN=TOKEN) as found:
        passed(found, found.good)
        passed(found, found.other)
        yield found


@pytest.mark.timeout(600)
def test_to_and_fro_under_load_loses_nothing(service: Operated) -> None:
    good, other = service.good, service.other
    with watching(service) as watch, traffic(service, 25) as flow:
        flow.wait_answered(30)
        done = run(service, "activate", other.id, "--watch", "3")
        assert (done["version"], done["former"]) == (other.id, good.id)
        flow.wait_answered(30)
        for here, there in ((other, good), (good, other), (other, good)):
            done = run(service, "rollback")
            assert (done["former"], done["version"]) == (here.id, there.id)
            flow.wait_answered(30)
        report = flow.end()
    assert not report.failures(), report.summary()
    assert not late_answers(report, watch)
    assert watch.fewest_ready >= service.status.wanted
    assert {record.version for record in report.records} == {good.id, other.id}
    history = [(e.command, e.target, e.result) for e in Journal(service.store.root).entries()]
    assert history == [("activate", other.id, "succeeded")] + [
        ("rollback", there.id, "succeeded") for there in (good, other, good)
    ]
    steps = service.log()
    assert f"to {good.id}: soak" not in steps  # what has served is not to soak beside what is wrong
    answered = sum(record.version == other.id for record in report.records)
    service.wait_status(
        f"{answered} counted",
        lambda now: {n.version: n.requests for n in now.numbers}.get(other.id) == answered,
    )


@pytest.mark.timeout(600)
def test_two_operators_at_once_take_turns(service: Operated) -> None:
    good, other = service.good, service.other
    with traffic(service, 10) as flow:
        tools = [
            service.tool("activate", other.id, "--watch", "1"),
            service.tool("activate", good.id, "--watch", "1"),
            service.tool("activate", other.id, "--watch", "1"),
        ]
        for process in tools:
            _, err = process.communicate(timeout=2 * PATIENCE)
            assert process.returncode == 0, err.decode()
        report = flow.end()
    assert not report.failures(), report.summary()
    entries = Journal(service.store.root).entries()
    assert [entry.result for entry in entries] == ["succeeded"] * 3
    for before, after in itertools.pairwise(entries):
        assert before.ended is not None
        assert before.ended <= after.when
        assert before.target == after.source
    service.wait_whole()
    assert service.status.version == entries[-1].target


@pytest.mark.timeout(600)
def test_a_version_whose_worker_dies_in_the_watch_is_taken_back(service: Operated) -> None:
    good, other = service.good, service.other
    process = service.tool("activate", other.id, "--watch", "60", "--json")
    service.wait_whole(other)
    time.sleep(0.5)  # any moment of the watch
    worker = next(w for w in service.status.workers if (w.version, w.state) == (other.id, "ready"))
    os.kill(worker.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 43, err.decode()
    found = json.loads(out)
    assert "workers died" in found["error"]["message"]
    assert found["serving"] == good.id
    assert service.store.current() == good
    service.wait_whole(good)


@pytest.mark.timeout(600)
def test_a_rollback_is_not_compared_with_the_quick_nonsense_that_it_replaces(
    tmp_path: Path, service: Operated
) -> None:
    write_network(copy_of_nano(tmp_path / "nonsense"))
    bad = service.add(tmp_path / "nonsense")
    run(service, "activate", bad.id, code=41)
    run(service, "activate", bad.id, "--force", "--watch", "0")
    service.wait_whole(bad)
    assert all(worker.forced for worker in service.status.workers if worker.version == bad.id)
    with service.client() as client:
        assert client.get("/health").headers["X-Model-Version"] == bad.id
    done = run(service, "rollback")
    assert done["version"] == service.good.id
    service.wait_whole(service.good)
    assert not any(worker.forced for worker in service.status.workers if worker.version != bad.id)


@pytest.mark.timeout(600)
def test_hosts_that_share_a_store_roll_one_after_the_other(tmp_path: Path) -> None:
    root = tmp_path / "shared"

    def settings(name: str) -> dict[str, str]:
        return {
            "ASR_STORE": str(root),
            "ASR_STORE_POINTERS": str(root / "pointers" / name),
            "ASR_WORKERS": "1",
        }

    with (
        operated(tmp_path / "one", **settings("one")) as one,
        operated(tmp_path / "two", **settings("two")) as two,
    ):
        for name, host in (("one", one), ("two", two)):
            host.store = Store(root, pointers=root / "pointers" / name)
            del host.good  # of a store of its own, which it does not use
        good, other = one.good, passed(one, one.other)
        assert two.good == good
        run(one, "activate", other.id, "--watch", "0")
        assert (one.status.version, two.status.version) == (other.id, good.id)
        kept = {entry["version"]: entry["why"] for entry in run(two, "prune", "--keep", "0")["kept"]}
        assert kept == {good.id: "current, one/previous", other.id: "one/current"}
        run(two, "rollback", other.id, code=41)  # here it has never served
        run(two, "activate", other.id, "--watch", "0")
        run(one, "rollback")
        assert (one.status.version, two.status.version) == (good.id, other.id)


# /admin


def ops(service: Operated) -> httpx.Client:
    socket = str(service.folder / "run" / "ops.sock")
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=socket), base_url="http://ops", timeout=2 * PATIENCE
    )


def ended(service: Operated, where: str, seconds: float = 90) -> dict[str, Any]:
    """Wait for the end of an operation; each look may be answered by another worker."""

    def look() -> dict[str, Any] | None:
        with ops(service) as client:
            answer = client.get(where)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found if found["state"] != "running" else None

    return wait_for(f"the end of {where}", look, seconds)


@pytest.mark.timeout(600)
def test_an_update_over_http_outlives_the_worker_that_was_asked(service: Operated) -> None:
    good, other = service.good, service.other
    before = service.worker_pids()
    with traffic(service, 10) as flow:
        # Without the master no roll begins: the first is under way for certain when the second comes.
        with stopped(service.master), ops(service) as client:
            body = {"version": other.id, "watch": 1}
            answer = client.post("/admin/model/update", json=body)
            assert answer.status_code == 202, answer.text
            where = answer.json()["watch"]
            assert answer.headers["location"] == where
            second = client.post("/admin/model/rollback")
            assert (second.status_code, second.json()["error"]["code"]) == (409, "operation_under_way")
        found = ended(service, where)
        assert (found["state"], found["exit_code"]) == ("succeeded", 0), found
        assert found["result"]["version"] == other.id
        assert any("watching it" in line for line in found["progress"])
        service.wait_whole(other)
        wait_for("the end of the old workers", lambda: not before & service.worker_pids())
        with ops(service) as client:
            models = client.get("/admin/models").json()
            assert models["serving"] == other.id
            pointed = {model["version"]: model["pointers"] for model in models["models"]}
            assert pointed == {good.id: ["previous"], other.id: ["current"]}
            assert client.get("/admin/status").json()["version"] == other.id
            answer = client.post("/admin/model/rollback")
        found = ended(service, answer.json()["watch"])
        assert (found["state"], found["result"]["version"]) == ("succeeded", good.id)
        with ops(service) as client:
            answer = client.post("/admin/model/reload")
        assert ended(service, answer.json()["watch"])["state"] == "succeeded"
        report = flow.end()
    assert not report.failures(), report.summary()
    commands = [(e.command, e.actor and e.actor.on_behalf_of) for e in Journal(service.store.root).entries()]
    behind = "the ops listener, by /admin"
    assert commands == [(name, behind) for name in ("activate", "rollback", "reload")]
    # Whatever has ended is a zombie until its parent has looked; none may stay one.
    ended_now = zombies(service.master)
    wait_for("the last of the dead is reaped", lambda: not ended_now & zombies(service.master))


def zombies(master: psutil.Process) -> set[psutil.Process]:
    """Processes under this one that have ended and that nobody has waited for yet."""

    def is_zombie(process: psutil.Process) -> bool:
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return {process for process in master.children(recursive=True) if is_zombie(process)}


def test_an_operation_has_none_of_the_services_descriptors_and_signals(service: Operated) -> None:
    with stopped(service.master):  # no roll begins, and the operation goes on until it has been looked at
        with ops(service) as client:
            answer = client.post("/admin/model/update", json={"version": service.other.id, "watch": 1})
            operation = answer.json()["operation"]["id"]
        content = service.folder / "run" / "operations" / f"{operation}.json"
        pid = wait_for("its process", lambda: json.loads(content.read_text())["pid"])
        process = psutil.Process(pid)
        targets = []
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                targets.append(str(link.readlink()))
        assert not [target for target in targets if "memfd" in target or "pipe" in target], targets
        listeners = [c for c in process.net_connections("all") if c.status == "LISTEN"]
        assert listeners == []
        assert process.nice() == psutil.Process(service.master.pid).nice()
        assert "Umask:\t0022" in Path(f"/proc/{pid}/status").read_text()
    found = ended(service, f"/admin/operations/{operation}")
    assert found["state"] == "succeeded"


def test_an_operation_that_fails_says_why(service: Operated) -> None:
    version = service.good
    (service.store.root / "records" / f"{version.id}.json").unlink()
    with ops(service) as client:
        answer = client.post("/admin/model/update", data={"version": version.id})
        assert answer.status_code == 202, answer.text
    found = ended(service, answer.json()["watch"])
    assert (found["state"], found["exit_code"]) == ("failed", 41)
    assert found["result"]["error"]["code"] == "not_tried"


def test_who_may_use_admin(service: Operated) -> None:
    with service.client() as client:
        refused = client.get("/admin/status")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        for token in ("-", "wrong", TOKEN[:-1], TOKEN + "x"):
            answer = client.get("/admin/models", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
        answer = client.get("/admin/status", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
    with ops(service) as client:
        page = client.post("/admin/model/reload", headers={"Origin": "http://elsewhere"})
        assert (page.status_code, page.json()["error"]["code"]) == (403, "not_permitted")
        assert client.put("/admin/model/reload").status_code == 405


def test_bad_requests_to_admin(service: Operated) -> None:
    update = "/admin/model/update"
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        (update, {}, 400, "version is missing"),
        (update, {"json": {"version": "nobody-01234567"}}, 404, "is not there"),
        (update, {"json": {"version": "../../etc"}}, 404, "is no version id"),
        (update, {"json": {"version": "a\0b"}}, 404, "is no version id"),
        (update, {"json": {"version": ["a"]}}, 400, "the id of a version"),
        (update, {"json": {"version": "x", "force": "maybe"}}, 400, "true or false"),
        (update, {"json": {"version": "x", "watch": -1}}, 400, "seconds from 0"),
        (update, {"json": {"version": "x", "watch": "nan"}}, 400, "seconds from 0"),
        (update, {"json": {"path": "/tmp"}}, 400, "'path' is unknown"),
        (update, {"json": ["version"]}, 400, "JSON object"),
        (update, {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "JSON object"),
        (update, {"content": b"version=x"}, 415, "application/json"),
        (update, {"content": b"x" * 20_000}, 413, "over 16384 bytes"),
        (update, {"data": {"version": ["a", "b"]}}, 400, "given twice"),
        ("/admin/model/reload", {"json": {"version": "x"}}, 400, "the fields are none"),
    ]
    with ops(service) as client:
        for path, options, status, said in cases:
            answer = client.post(path, **options)
            assert answer.status_code == status, (options, answer.text)
            assert said in answer.json()["error"]["message"]
        for key in ("0" * 16, "..%2f..%2fstatus", "x"):
            assert client.get(f"/admin/operations/{key}").status_code == 404
    assert service.status.roll is None


def test_without_a_token_admin_is_not_there_at_the_apis_listener(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        with service.client() as client:
            headers = {"Authorization": "Bearer x"}
            assert client.get("/admin/status", headers=headers).status_code == 404
            assert client.put("/admin/model/reload").status_code == 404
        with ops(service) as client:
            assert client.get("/admin/status").status_code == 200


@pytest.mark.timeout(600)
def test_no_service_is_needed_to_choose_what_the_next_start_serves(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        passed(service, service.other)
        assert service.stop() == 0
        done = run(service, "activate", service.other.id)
        assert done["serves"] is False
        assert f"then rolls to {service.other.id}" in done["next_start"]
        service.start()
        service.wait_whole(service.other)


@pytest.mark.timeout(600)
def test_where_nothing_can_be_loaded_another_version_helps(tmp_path: Path) -> None:
    with operated(tmp_path) as service:
        passed(service, service.other)
        (service.store.root / "records" / f"{service.other.id}.json").rename(tmp_path / "record")
        assert service.stop() == 0
        path = service.good.path / "am.mvn"
        path.chmod(0o644)
        path.write_text("spoilt")
        command = [service.python, "-m", "asrsvc.serving.start"]
        with service.log_path.open("ab") as log:
            service.process = subprocess.Popen(
                command, env=service.environ, stdout=log, stderr=log, cwd=PROJECT
            )
        mine = service.process.pid
        service.wait_status(
            "a worker without a model",
            lambda now: now.master.pid == mine and any(w.version is None for w in now.workers),
        )
        (tmp_path / "record").rename(service.store.root / "records" / f"{service.other.id}.json")
        public = "no model can be loaded; the service's log says why"
        with service.client() as client:
            for path in ("/health", "/health/ready"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()["problems"]) == (503, [public])
            answer = client.get("/v1/models")
            assert (answer.status_code, answer.json()["error"]["message"]) == (503, public)
        with ops(service) as client:
            assert client.get("/health").status_code == 503
            answer = client.post("/admin/model/update", json={"version": service.other.id, "watch": 0})
            assert answer.status_code == 202, answer.text
        found = ended(service, answer.json()["watch"])
        assert found["state"] == "succeeded", found
        service.wait_whole(service.other)
