"""A child process that answers questions under limits: of memory, of time for each, of CPU time.

It has a session of its own, and is killed with all that it started. Whatever it does, the parent
gets an answer or a sentence that says what happened.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asrsvc.system.documents import parse_json
from asrsvc.system.printable import printable

_LOOK_SECONDS: Final = 0.02
"""how often memory is looked at: what a process writes meanwhile is a few hundred MiB at most"""
_LONGEST_ANSWER: Final = 16 * 2**20
_MOST_VALUES: Final = 500_000
"""of an answer: a child that a model has taken over may send anything"""
_KEPT_WORDS: Final = 4000
"""bytes of its standard error"""
_END_SECONDS: Final = 5.0
_MIB: Final = 2**20


class ChildBroke(Exception):
    """The child did not answer; the message is a sentence without its end."""


class ChildRefused(Exception):
    """The child answered with an error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """name of the class of the error"""
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one child."""

    memory_bytes: int
    """anonymous memory"""
    deadline: float
    """time.monotonic() by which all has to be done"""

    @property
    def seconds_left(self) -> float:
        """Until the deadline; not below 0."""
        return max(0.0, self.deadline - time.monotonic())


class Child:
    """One process, and the socket to it; to be ended by `end`, always."""

    def __init__(self, module: str, limits: Limits) -> None:
        """Start it.

        Args:
            module: its main module; it is given the descriptor of a socket, the limit of memory and
                that of CPU time as arguments, and limits itself (`asrsvc.release.answering`).
            limits: which hold from now on.
        """
        self._limits = limits
        self._words = b""
        self.peak_bytes = 0
        """anonymous memory, as far as it was seen"""
        ours, theirs = socket.socketpair()
        cpu_seconds = int(limits.seconds_left * (os.cpu_count() or 1)) + 1
        # -P: a folder that happens to hold a module of the same name does no harm
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(limits.memory_bytes)]
        try:
            self._process = subprocess.Popen(
                [*command, str(cpu_seconds), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        ours.setblocking(False)  # noqa: FBT003 - its only argument
        self._socket = ours
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)
        self._selector.register(self._stderr, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Process id, also that of its group."""
        return self._process.pid

    def ask(self, question: Mapping[str, Any], *, doing: str, seconds: float) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Args:
            question: as JSON can say it.
            doing: for the message of an error, as in "while it loaded".
            seconds: for the answer, at most.

        Raises:
            ChildBroke: it ended, took too long or too much, or its answer is none.
            ChildRefused: its answer is an error.
        """
        whole = self._limits.seconds_left
        deadline = time.monotonic() + min(seconds, whole)
        self._send(json.dumps(question).encode() + b"\n", deadline, doing)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            self._watch_memory(doing)
            if time.monotonic() >= deadline:
                if seconds < whole:
                    raise ChildBroke(f"it gave no answer within {seconds:g} s {doing}")
                raise ChildBroke(f"the time for the whole trial was over {doing}")
            for key, _ in self._selector.select(_LOOK_SECONDS):
                if key.fileobj is self._stderr:
                    self._read_words()
                    continue
                block = self._receive()
                if block is None:
                    continue
                if not block:
                    raise ChildBroke(f"its process {self._how_it_ended()} {doing}")
                answer += block
                if len(answer) > _LONGEST_ANSWER:
                    raise ChildBroke(f"its answer is longer than {_LONGEST_ANSWER // _MIB} MiB {doing}")
        self._watch_memory(doing)
        return _understood(bytes(answer), doing)

    def end(self) -> None:
        """Kill it with all that it has started, and wait until it is gone."""
        self._selector.close()
        self._socket.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
        except ProcessLookupError:
            pass
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # the kernel holds it, and lets it go when it can
        self._stderr.close()

    def _send(self, data: bytes, deadline: float, doing: str) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise ChildBroke(f"it took no question {doing}") from None
        except OSError:
            pass  # it has ended; why is found where its answer is read
        finally:
            self._socket.settimeout(0)

    def _receive(self) -> bytes | None:
        """What has come; nothing at all: it has ended."""
        try:
            return self._socket.recv(2**16)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _watch_memory(self, doing: str) -> None:
        held = _anonymous_bytes(self._process.pid)
        self.peak_bytes = max(self.peak_bytes, held)
        if held > self._limits.memory_bytes:
            limit = self._limits.memory_bytes // _MIB
            raise ChildBroke(f"it held {held // _MIB} MiB of memory {doing}; {limit} MiB is the limit")

    def _read_words(self) -> None:
        try:
            block = os.read(self._stderr.fileno(), 2**16)
        except BlockingIOError:
            return
        if not block:
            self._selector.unregister(self._stderr)
        self._words = (self._words + block)[-_KEPT_WORDS:]

    def _how_it_ended(self) -> str:
        """After its socket was closed: why, with its last words."""
        deadline = time.monotonic() + _END_SECONDS
        while (found := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
            if time.monotonic() >= deadline:
                return "hung while it ended"
            time.sleep(_LOOK_SECONDS)
        for key, _ in self._selector.select(0):
            if key.fileobj is self._stderr:
                self._read_words()
        lines = self._words.decode(errors="replace").strip().splitlines()
        said = f" ({plain(lines[-1])[:300]})" if lines else ""
        if found.si_code == os.CLD_EXITED:
            return f"ended with exit code {found.si_status}{said}"
        name = signal.Signals(found.si_status).name
        why = {"SIGKILL": ", as the kernel does for want of memory", "SIGXCPU": ": too much CPU time"}
        return f"was killed by {name}{why.get(name, '')}{said}"


def plain(text: str) -> str:
    """A text for a line of a terminal and a log: what controls either is shown, not done."""
    return printable(" ".join(text.splitlines()).replace("\t", " "))


def _understood(line: bytes, doing: str) -> dict[str, Any]:
    try:
        found = parse_json(line, most_values=_MOST_VALUES)
        if "error" in found:
            raise ChildRefused(str(found["error"]["kind"]), plain(str(found["error"]["message"])))
        answer = found["ok"]
        if not isinstance(answer, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ChildBroke(f"its answer makes no sense {doing}") from None
    return answer


def _anonymous_bytes(pid: int) -> int:
    """Memory of a process that belongs to it alone, resident or swapped out; proc_pid_status(5)."""
    total = 0
    try:
        with Path(f"/proc/{pid}/status").open("rb") as reader:
            for line in reader:
                if line.startswith((b"RssAnon:", b"VmSwap:")):
                    total += int(line.split()[1]) * 1024
    except (OSError, ProcessLookupError):
        pass  # it has ended, which its socket tells
    return total
