"""Root starts the service on the folders of another user, and reloads it: it is that user's service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from another_user import NOBODY, World, in_reach, why_not, world
from service import CLIPS, Service, manifest

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


@dataclass
class Running:
    place: World
    service: Service


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with world() as place:
        place.plant("run/metrics", place.victim)
        place.plant("state/jobs", place.victim)
        folders = {name: place.environ[name] for name in ("ASR_STORE", "ASR_RUNTIME_DIR", "ASR_STATE_DIR")}
        service = Service(place.folder / "service", ASR_WORKERS="1", ASR_THREADS="1", **folders)
        service.environ["TMPDIR"] = "/root"
        try:
            yield Running(
                place, service.start(command=in_reach(sys.executable, "-m", "asrsvc.serving.start"))
            )
        except BaseException:
            sys.stderr.write(service.log()[-20_000:])
            raise
        finally:
            if service.process is not None:
                service.stop()


def test_all_its_processes_and_files_are_the_owners(running: Running) -> None:
    service, place = running.service, running.place
    assert f"goes on as nobody, whom ASR_STORE={place.store} belongs to" in service.log_path.read_text()
    for process in (service.master, *service.master.children(recursive=True)):
        assert set(process.uids()) == {NOBODY}
        assert 0 not in psutil.Process(process.pid).gids()
    for folder in (place.store, place.runtime, place.state):
        assert place.owners(folder) == {(NOBODY, NOBODY)}
    place.unharmed()


def test_it_answers(running: Running) -> None:
    clip = next(clip for clip in manifest(speech_only=True) if clip["language"] == "en")
    answer = running.service.transcribe(clip["file"], (CLIPS / clip["file"]).read_bytes())
    assert answer.status_code == 200
    assert answer.json()["text"] == clip["withitn"]


def test_roots_commands_reach_it(running: Running) -> None:
    place = running.place
    done = place.tool("reload", "--json")
    assert done.returncode == 0, done.stderr
    version = json.loads(done.stdout)["version"]
    assert json.loads(place.tool("status", "--json").stdout)["version"] == version
    assert "1 of 1 workers ready" in place.tool("prune", "no-such-version").stderr
    place.unharmed()


def test_a_second_start_by_root_is_refused_by_the_first(running: Running) -> None:
    done = running.place.serve("--port", str(running.service.port))
    assert done.returncode == 2
    assert "is in use" in done.stderr


def test_a_model_is_brought_at_a_start_by_root(embedded_model: Path) -> None:
    with world() as place:
        done = place.serve("--model", embedded_model, "--host", f"unix:{place.runtime}/none/api.sock")
        assert done.returncode == 2  # there is no such folder: nothing is fetched for that
        # folders that are missing where the store's owner can make none
        folders = {"ASR_RUNTIME_DIR": f"{place.folder}/new/run", "ASR_STATE_DIR": f"{place.folder}/new/state"}
        folders["ASR_STORE"] = str(place.store)
        service = Service(place.folder / "service", ASR_WORKERS="1", ASR_THREADS="1", **folders)
        command = in_reach(sys.executable, "-m", "asrsvc.serving.start", "--model", embedded_model)
        try:
            service.start(command=command)
            assert place.owners(place.store) == {(NOBODY, NOBODY)}
            (version,) = (path.name for path in (place.store / "versions").iterdir())
            assert (place.store / "current").readlink() == Path("versions", version)
        finally:
            if service.process is not None:
                service.stop()
