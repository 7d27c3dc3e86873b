"""What a child process does around its answers: it limits itself, and answers until it is left.

    python -m MODULE DESCRIPTOR MEMORY_BYTES CPU_SECONDS PARENT

A question is a JSON object in a line, `{"do": …}`; its answer is `{"ok": {…}}` or
`{"error": {"kind", "message"}}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import AsrError

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]

_NICE: Final = 10
"""about a tenth of a busy core: those who serve come first, and the trial still comes to an end"""
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
# The parent looks at the memory; should it be stopped, this is the end of it. Reserved memory counts here
# too, touched or not.
_DATA_TIMES: Final = 2
_DATA_MORE: Final = 2**30


def main(answers: Mapping[str, Answer]) -> None:
    """Answer questions until the parent has gone.

    Args:
        answers: what `do` may be, beside `hello`: that all is there which it needs.
    """
    descriptor, memory, cpu_seconds, parent = (int(text) for text in sys.argv[1:5])
    _limit(memory, cpu_seconds)
    if os.getppid() != parent:
        return  # it ended before its end could be noticed
    with socket.socket(fileno=descriptor) as ours, ours.makefile("rwb") as stream:
        for line in stream:
            try:
                question = json.loads(line)
                reply = {"ok": {} if question["do"] == "hello" else answers[question["do"]](question)}
            except AsrError as error:
                reply = _error(type(error).__name__, error.message)
            except MemoryError:
                reply = _error("MemoryError", "it needs more memory than there is")
            except Exception as error:  # noqa: BLE001 - whatever it is, the parent hears it
                traceback.print_exc()
                reply = _error(type(error).__name__, f"{type(error).__name__}: {error}")
            stream.write(json.dumps(reply).encode() + b"\n")
            stream.flush()


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message[:2000]}}


def _limit(memory: int, cpu_seconds: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
    for kind, wanted in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_DATA, _DATA_TIMES * memory + _DATA_MORE),
    ):
        _, most = resource.getrlimit(kind)
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (value, most))
    with contextlib.suppress(OSError):  # should memory be wanted elsewhere, this is what can be done without
        Path("/proc/self/oom_score_adj").write_text("1000")
