"""What the unit takes from the service, and that everything works without it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest
from box import Box, why_not
from formats import FORMATS, TEXT, make
from service import wait_for
from waiting import PATIENCE
from world import World, note

from asrsvc.system import landlock

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

_MOST_EXPOSED = 2.0
_DECODER = "asrsvc.speech.ffmpeg_"
_ONCE = "/etc/systemd/system/asr-once.service"


def _processes(box: Box) -> dict[int, str]:
    """The processes of the service's user: command lines by number."""
    found = box.run("ps", "-ww", "-u", "asr", "-o", "pid=,args=").stdout.splitlines()
    return {int(number): command for number, command in (line.strip().split(" ", 1) for line in found)}


def _states(box: Box, process: int) -> list[dict[str, str]]:
    """What proc(5) says in `status` of each thread of a process; nothing of one that has ended."""
    text = box.run("sh", "-c", f"cat /proc/{process}/task/*/status", check=False).stdout
    threads = re.split(r"^(?=Name:)", text, flags=re.MULTILINE)[1:]
    return [dict(line.split(":\t", 1) for line in thread.splitlines() if ":\t" in line) for thread in threads]


def _filters(box: Box, process: int) -> set[int]:
    """How many filters of system calls each thread has."""
    return {int(thread["Seccomp_filters"]) for thread in _states(box, process)}


def _once(box: Box, command: str) -> str:
    """Run a command with all that the unit takes, to its end; what it has said."""
    unit = box.run("cat", "/etc/systemd/system/asr.service").stdout
    for ours, here in (
        ("Type=notify", "Type=oneshot"),
        (r"ExecStart=.*", f"ExecStart={command}"),
        (r"Restart=always|WatchdogSec=.*|ExecReload=.*|WantedBy=.*", ""),
    ):
        unit, count = re.subn(rf"^(?:{ours})$", here, unit, flags=re.MULTILINE)
        assert count
    box.write(_ONCE, unit)
    box.write(
        f"{_ONCE}.d/test.conf", "[Service]\nEnvironment=PYTHONPATH=/opt/asr PYTHONDONTWRITEBYTECODE=1\n"
    )
    box.run("systemctl", "daemon-reload")
    began = str(time.time())
    done = box.run("systemctl", "start", "asr-once", check=False)
    box.run("journalctl", "--sync")
    said = box.run("journalctl", "-u", "asr-once", "-o", "cat", "--no-pager", f"--since=@{began}").stdout
    assert done.returncode == 0, said
    return said


def test_the_service_can_do_little_beside_its_work(world: World) -> None:
    box = world.box
    found = box.run("systemd-analyze", "security", "--no-pager", "asr.service").stdout
    overall = re.search(r"Overall exposure level for asr.service: ([0-9.]+)", found)
    assert overall is not None, found
    note(overall[0])
    assert float(overall[1]) <= _MOST_EXPOSED, found


def test_memory_and_tasks_have_a_limit(world: World) -> None:
    """As systemd has understood it: the box has no controllers that would keep them."""
    box = world.box
    total = int(re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))[0])
    assert int(box.property("MemoryMax")) == pytest.approx(0.8 * 1024 * total, rel=0.02)
    assert box.property("TasksMax") == "4096"


def test_no_process_of_the_service_has_what_the_unit_takes(running: World) -> None:
    box = running.box
    processes = _processes(box)
    assert int(box.property("MainPID")) in processes
    assert len([command for command in processes.values() if _DECODER not in command]) >= 3  # two workers
    for process in processes:
        for thread in _states(box, process):
            assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2")
            rights = [thread[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
            assert {int(value, 16) for value in rights} == {0}


def test_every_format_is_heard_by_decoders_that_are_confined_further(running: World, tmp_path: Path) -> None:
    box = running.box
    with httpx.Client(base_url=f"http://127.0.0.1:{box.port}", trust_env=False, timeout=PATIENCE) as client:
        for form in FORMATS:
            sound = make(form.name, tmp_path)
            answer = client.post("/api/transcribe", files={"file": (f"clip.{form.suffix}", sound)})
            assert (answer.status_code, answer.json().get("text")) == (200, TEXT), (form.name, answer.text)
    unit_filters = _filters(box, int(box.property("MainPID")))
    assert len(unit_filters) == 1

    def confined() -> bool:
        decoders = [number for number, command in _processes(box).items() if _DECODER in command]
        found = [_filters(box, number) for number in decoders]
        return bool(decoders) and all(filters == {max(unit_filters) + 1} for filters in found)

    wait_for("each decoder has a filter of its own beside those of the unit", confined)
    said = [line for line in box.journal().splitlines() if "are not fully confined" in line]
    assert [line for line in said if "Landlock" not in line] == []
    assert bool(said) != _has_landlock(), said


def _has_landlock() -> bool:
    """Whether this kernel does."""
    try:
        return landlock.version() > 0
    except OSError:
        return False


def test_a_job_is_done(running: World, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{running.box.port}"
    with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as client:
        begun = client.post("/api/jobs", files={"file": ("clip.mp3", make("mp3-xing-cbr", tmp_path))})
        assert begun.status_code == 202, begun.text
        job = begun.json()["links"]["self"]
        wait_for("the job has ended", lambda: client.get(job).json()["status"] not in {"queued", "running"})
        assert client.get(job).json()["status"] == "succeeded"
        assert client.get(f"{job}/result").json()["text"] == TEXT


@pytest.mark.timeout(1800)
def test_a_version_is_tried_and_baked(running: World) -> None:
    """As a worker does with a large one, and a request to the ops listener."""
    box = running.box
    for command in ("try", "bake --again"):
        note(_once(box, f"/opt/asr/bin/swap-model {command} {running.first}").strip())
    twins = box.run("find", "/var/lib/asr/store/baked", "-name", "*.onnx", "-user", "asr").stdout.split()
    assert any(running.first in path for path in twins), twins


def test_nothing_is_written_beside_the_services_own_folders(running: World) -> None:
    """Not even where the modes of files would allow it."""
    box = running.box
    folders = [f"{place}/of-asr" for place in ("/opt/asr", "/etc/asr", "/usr", "/var/lib", "/var/lib/asr")]
    box.run("install", "-d", "-o", "asr", "-g", "asr", *folders)
    try:
        for folder in folders:
            box.run("runuser", "-u", "asr", "--", "touch", f"{folder}/outside")
        said = _once(box, f"/bin/sh -c 'for one in {' '.join(folders)}; do touch $one/inside; done; true'")
        made = box.run("find", *folders, "-name", "inside").stdout.split()
    finally:
        box.run("rm", "-r", *folders)
    assert made == ["/var/lib/asr/of-asr/inside"], said


def test_what_is_written_in_the_services_own_folders_stays(running: World) -> None:
    box = running.box
    for folder in ("/var/lib/asr", "/run/asr"):
        _once(box, f"/bin/sh -c 'echo kept >{folder}/written'")
        seen = box.run("stat", "-c", "%U:%G %a", f"{folder}/written").stdout.strip()
        assert seen == "asr:asr 640"
        box.run("rm", f"{folder}/written")


def test_settings_are_read_and_homes_are_not_seen(running: World) -> None:
    box = running.box
    box.write("/root/secret", "secret\n")
    box.run("chmod", "o+rx", "/root")
    assert box.run("runuser", "-u", "asr", "--", "cat", "/root/secret").stdout == "secret\n"
    try:
        said = _once(box, "/bin/sh -c 'cat /etc/asr/asr.conf; cat /root/secret || echo unseen'")
    finally:
        box.run("chmod", "0700", "/root")
    assert "ASR_WORKERS=2" in said.splitlines()
    assert "unseen" in said.splitlines()
    assert "secret" not in said.splitlines()
