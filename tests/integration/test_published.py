"""`bin/serve --model` and `deploy` from a hub: the first thing that an operator does, with real processes.

The hub is this machine's. Behind it are the embedded model's files under another name, models that do
what no model should, and a model of the published one's size with the published `am.mvn` and `config.yaml`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from bad_models import MAKERS
from broken_models import NANO, copy_of_nano
from hub import Hub, running_hub
from rolling import PREVIOUS_MODEL, Operated
from service import PROJECT, free_port, wait_for
from waiting import PATIENCE

from asrsvc.release import pinned
from asrsvc.release.bake import find
from asrsvc.release.embedded import ensure_embedded, is_demonstration
from asrsvc.release.journal import Journal
from asrsvc.speech.features import FbankExtractor
from asrsvc.speech.model import DEFAULT_MAX_SPAN_SECONDS, Model
from benchmarks.full_size import make_full_size

PUBLISHED = PROJECT / "tests" / "data" / "published"
EN = PROJECT / "tests" / "data" / "clips" / "en_1.flac"
SOURCE = "modelscope:org/nano"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        found.repositories["org/nano"] = files_of(NANO)
        yield found


@pytest.fixture
def service(tmp_path: Path, hub: Hub) -> Operated:
    return Operated(tmp_path, ASR_WORKERS="1", ASR_MODELSCOPE_ENDPOINT=hub.url, ASR_HF_ENDPOINT=hub.url)


def command(service: Operated, *arguments: str) -> list[str]:
    return [service.python, "-m", "asrsvc.serving.start", *arguments]


def refused(service: Operated, *arguments: str, seconds: float = 300) -> tuple[int, list[str]]:
    """A start that comes to nothing: its exit code, and what it says on stderr."""
    done = subprocess.run(
        command(service, *arguments),
        env=service.environ,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.stdout == "", done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.splitlines()


@contextmanager
def started(service: Operated, *arguments: str, seconds: float = 300) -> Iterator[str]:
    """A start that succeeds; the id of the version that answers."""
    before = len(service.log())
    service.start(command=command(service, *arguments), seconds=seconds)
    try:
        answer = service.transcribe("a.flac", EN.read_bytes())
        assert answer.status_code == 200, answer.text
        version = str(answer.headers["x-model-version"])
        assert f"(loading {version})" in service.log()[before:]
        service.wait_whole()
        yield version
    except BaseException as error:
        error.add_note("the service's last words:\n" + service.log()[-6000:])
        raise
    finally:
        service.stop()


def pointers(service: Operated) -> tuple[str | None, ...]:
    found = (service.store.pointer(name) for name in ("next", "current", "previous"))
    return tuple(version.id if version else None for version in found)


@pytest.mark.timeout(600)
def test_a_model_is_brought_baked_tried_and_served_and_later_starts_find_it(
    service: Operated, hub: Hub
) -> None:
    service.environ["ASR_BAKE"] = "auto"
    with started(service, "--model", SOURCE) as version:
        assert version.startswith("nano-")
        assert service.status.problems == ()
        assert all(worker.baked for worker in service.status.workers)
    assert pointers(service) == (None, version, None)
    trial = service.store.record(version).trial
    assert trial is not None
    assert trial["passed"] is True
    for demand in ("It loads", "finite", "words of the right languages", "faster than real time"):
        assert demand in trial["reason"]
    assert find(service.store.root, version, "auto").state == "ready"
    assert [v.id for v in service.store.versions()] == [version]  # not the embedded one: nobody asked for it
    said = service.log()
    assert re.search(r"^ +\d+\.\d s  model_quant\.onnx: 4\.9 MiB, whole$", said, re.MULTILINE)
    (entry,) = Journal(service.store.root).entries()
    assert (entry.command, entry.target, entry.result) == ("serve", version, "succeeded")

    hub.log.clear()
    service.environ["ASR_MODELSCOPE_ENDPOINT"] = "http://127.0.0.1:9"  # refused
    for arguments in (["--model", SOURCE], []):
        with started(service, *arguments) as again:
            assert again == version
    assert hub.log == []
    assert service.log().count("passed its trial") == 1
    assert len(Journal(service.store.root).entries()) == 1


@pytest.mark.timeout(300)
def test_a_download_that_was_cut_goes_on_when_the_same_command_runs_again(
    service: Operated, hub: Hub
) -> None:
    hub.fail("storage /blob/org/nano/model_quant.onnx", cut=3_000_000, times=1)
    fault = hub.fail("storage /blob/org/nano/model_quant.onnx", status=503)
    code, said = refused(service, "--model", SOURCE)
    assert code == 21
    failed, serving, then = said[-3:]
    assert "503" in failed
    assert serving == "serving now: nothing; the next start serves the embedded model"
    assert then.startswith("next: the same again: it goes on where it stopped")
    assert pointers(service) == (None, None, None)
    fault.times = 0
    hub.log.clear()
    with started(service, "--model", SOURCE) as version:
        assert version.startswith("nano-")
    assert [request.range for request in hub.asked("model_quant.onnx", storage=True)] == ["bytes=3000000-"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_who_is_at_work_and_nothing_is_served(service: Operated, hub: Hub, number: str) -> None:
    hub.fail("storage /blob/org/nano/model_quant.onnx", silent=True)
    process = subprocess.Popen(
        command(service, "--model", SOURCE), env=service.environ, cwd=PROJECT, stderr=subprocess.PIPE
    )
    wait_for("the download", lambda: hub.asked("model_quant.onnx", storage=True), 60)
    assert psutil.Process(process.pid).children() == []
    process.send_signal({"SIGINT": 2, "SIGTERM": 15}[number])
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": -15}[number]
    assert (b"interrupted; the same again goes on" in said) == (number == "SIGINT")
    assert pointers(service) == (None, None, None)


@pytest.mark.timeout(600)
def test_a_model_that_fails_its_trial_is_served_by_force_alone(
    service: Operated, hub: Hub, tmp_path: Path
) -> None:
    folder = copy_of_nano(tmp_path / "wrong")
    MAKERS["wrong"](folder)
    hub.repositories["org/wrong"] = files_of(folder)
    source = "hf:org/wrong"
    for _ in range(2):  # it stays in the store, and is refused again
        code, said = refused(service, "--model", source)
        assert code == 30
        failed, serving, then = said[-3:]
        assert re.match(
            r"asrsvc: wrong-\w+ is in the store, and its trial refuses it: The model says", failed
        )
        assert serving == "serving now: nothing; the next start serves the embedded model"
        assert then == "next: another model; or the same with --force, which serves it all the same"
        assert pointers(service) == (None, None, None)
    assert len(hub.asked("model_quant.onnx", storage=True)) == 1
    (version,) = service.store.versions()
    trial = service.store.record(version.id).trial
    assert trial is not None
    assert "character error rate" not in trial["reason"]  # it fails on words alone, not by a comparison
    assert "slow" not in trial["reason"]
    with started(service, "--model", source, "--force") as served:
        assert served == version.id
        assert "forced" in service.tool("status").communicate(timeout=PATIENCE)[0].decode()
    assert pointers(service) == (None, version.id, None)
    for arguments in (["--model", source], []):  # it has served: it is what a start serves
        with started(service, *arguments) as served:
            assert served == version.id


@pytest.mark.timeout(600)
def test_it_takes_the_place_of_what_would_have_served_and_one_can_go_back(service: Operated) -> None:
    embedded = ensure_embedded(service.store)
    service.store.promote(embedded)
    service.store.set_next(service.add(PREVIOUS_MODEL))  # a wish that the command line goes before
    with started(service, "--model", SOURCE) as version:
        assert version.startswith("nano-")
        assert pointers(service) == (None, version, embedded.id)
        code, said = refused(service, "--model", SOURCE, "--port", str(free_port()))
        assert code == 2
        pid = service.master.pid
        assert f"{service.folder}/run belongs to a service that runs already, process {pid}" in said[-1]
        assert "bin/swap-model deploy" in said[-1]
        tool = service.tool("rollback", "--json")
        out, err = tool.communicate(timeout=2 * PATIENCE)
        assert tool.returncode == 0, err.decode()
        assert json.loads(out)["version"] == embedded.id


@pytest.mark.timeout(600)
def test_a_real_model_takes_the_embedded_ones_place_and_is_what_the_next_is_measured_by(
    service: Operated, hub: Hub, tmp_path: Path
) -> None:
    """The earlier build has the higher error rate, and a copy of it that is slow has the same."""
    hub.repositories["org/earlier"] = files_of(PREVIOUS_MODEL)
    slow = tmp_path / "slow"
    shutil.copytree(PREVIOUS_MODEL, slow)
    MAKERS["slow"](slow)
    hub.repositories["org/slow"] = files_of(slow)
    with started(service) as embedded:
        assert is_demonstration(service.store, embedded)
        found = run(service, "deploy", "modelscope:org/earlier", "--watch", "1")
        assert found["former"] == embedded
        trial = service.store.record(found["version"]).trial
        assert trial is not None
        assert trial["serving"] is None
        assert trial["slowdown"] is None
        assert "faster than real time" in trial["reason"]
        refusal = run(service, "deploy", "modelscope:org/slow", code=30)
        assert "times the" in refusal["error"]["message"]
        assert found["version"] in refusal["error"]["message"]
        assert service.status.version == found["version"]


def run(service: Operated, *arguments: str, code: int = 0) -> dict[str, Any]:
    process = service.tool(*arguments, "--json")
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


# The published model's own files


def test_the_published_files_are_those_that_are_pinned_and_are_read_as_they_are() -> None:
    for name in ("am.mvn", "config.yaml"):
        content = (PUBLISHED / name).read_bytes()
        record = pinned.FILES[name]
        assert (len(content), sha256(content).hexdigest()) == (record.size, record.sha256)
    second = np.zeros(16_000, np.float32)
    assert FbankExtractor(PUBLISHED / "am.mvn").features(second).shape == (17, 560)


def test_a_model_with_the_published_files_loads(tmp_path: Path) -> None:
    folder = copy_of_nano(tmp_path / "nano")
    for name in ("am.mvn", "config.yaml"):
        shutil.copy(PUBLISHED / name, folder / name)
    assert Model.load(folder, version="nano-1", threads=1).max_span_seconds == DEFAULT_MAX_SPAN_SECONDS


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_model_of_the_published_ones_size_fails_on_words_alone_and_is_served_by_force(
    service: Operated, hub: Hub, record_property: Callable[[str, object], None]
) -> None:
    files = files_of(make_full_size())
    hub.repositories["org/full"] = {
        name: content for name, content in files.items() if name != "full-size.json"
    } | files_of(PUBLISHED)
    del files
    service.environ["ASR_BAKE"] = "auto"
    with started(service) as embedded:
        began = time.monotonic()
        found = run(service, "deploy", "modelscope:org/full", code=30)
        record_property("brought, baked and tried, seconds", round(time.monotonic() - began))
        trial = found["error"]["trial"]
        wrong = r"The model says wrong things: [^.]* 0% like the known ones; 50% is the least\."
        assert re.fullmatch(wrong, trial["reason"])
        assert trial["baked"]["matrices"] == 281
        assert 0 < trial["cost"] < 1
        assert trial["serving"] is None
        version = trial["version"]
        assert service.status.version == embedded
        forced = run(service, "activate", "full", "--force", "--watch", "1")
        assert (forced["version"], forced["former"]) == (version, embedded)
        assert service.transcribe("a.flac", EN.read_bytes()).headers["x-model-version"] == version
        assert all(worker.baked for worker in service.wait_whole().workers if worker.state == "ready")
    with started(service, "--model", "modelscope:org/full") as served:
        assert served == version
