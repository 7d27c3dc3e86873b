"""What gives way to others, in a service that runs at the lowest priority and may not raise it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from broken_models import NANO
from formats import make
from waiting import PATIENCE

_NICED = """
import json, os, resource, sys
niceness = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
os.setpriority(os.PRIO_PROCESS, 0, niceness)
try:
    os.setpriority(os.PRIO_PROCESS, 0, niceness - 1)
except PermissionError:
    pass
else:
    sys.exit("this process may raise its priority")
"""

_LOWERED = """
import threading
from asrsvc.system.priority import lower_thread
found = []
def work():
    for niceness in (9, 3, 10, 19):
        lower_thread(niceness)
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
thread = threading.Thread(target=work); thread.start(); thread.join()
print(json.dumps(found))
"""

_DECODER = """
from asrsvc.speech.decoded import FileLimits
from asrsvc.speech.helper import Helper, Request
helper = Helper(2**30, gently=True)
limits = FileLimits(max_rate=384_000, max_channels=16, max_seconds=100)
with open(sys.argv[1], "rb") as file:
    helper.request(file.fileno(), Request(limits, 100.0))
kinds = []
while not kinds or kinds[-1] not in "EX":
    kind, _ = helper.receive(float(sys.argv[2]))
    kinds.append(kind.decode())
niceness = os.getpriority(os.PRIO_PROCESS, helper.pid)
print(json.dumps([kinds[-1], niceness, helper.end(float(sys.argv[2])), helper.said()]))
"""

_TWIN = """
from dataclasses import replace
from pathlib import Path
from asrsvc import settings
from asrsvc.release.bake import find
from asrsvc.release.store import Store
from asrsvc.serving.twin import Maker
store = Store(Path(sys.argv[2]))
version = store.add_folder(Path(sys.argv[1]), "nano")
known = replace(settings.load(), store=store.root, bake="auto")
maker = Maker(known, version, find(known.store, version.id, "auto"))
maker.start()
maker.made.wait(float(sys.argv[3]))
print(json.dumps(find(known.store, version.id, "auto").state))
"""


def run(program: str, *arguments: object, niceness: int = 19) -> object:
    """What a program prints that has no right to raise its priority."""
    command = [sys.executable, "-c", _NICED + program, str(niceness)]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv of util-linux is not installed")
        command = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", *command]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_priority_is_lowered_and_never_raised() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found = run(_LOWERED, niceness=max(5, before))
    assert found == [max(9, before), max(9, before), max(10, before), 19]
    assert run(_LOWERED) == [19, 19, 19, 19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_decoder_starts_gently_where_all_have_the_lowest_priority(tmp_path: Path) -> None:
    make("wav-s16", tmp_path)
    (wav,) = tmp_path.glob("wav-s16*")
    assert run(_DECODER, wav, PATIENCE) == ["E", 19, "it exited with 0", ""]


def test_a_twin_is_made_where_all_have_the_lowest_priority(tmp_path: Path) -> None:
    assert run(_TWIN, NANO, tmp_path / "store", 2 * PATIENCE) == "ready"
