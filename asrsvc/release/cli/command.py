"""What a command is, and what it is given: places, and where to say things.

Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TextIO

from asrsvc import settings
from asrsvc.release.cli.service import Service
from asrsvc.release.lock import myself
from asrsvc.release.store import Store
from asrsvc.system.printable import printable, printable_json, printable_lines

_CONTROLS: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]"
)
"""but for ends of lines and tabs"""


@dataclass(frozen=True)
class Context:
    """What every command is given. Settings are read when they are asked for, one by one."""

    program: str
    """how the tool is called, as in bin/swap-model"""
    as_json: bool
    on_behalf_of: str = ""
    """who asks for it, where that is not the user of this process"""
    began: float = field(default_factory=time.monotonic)

    @cached_property
    def service(self) -> Service:
        """The service of ASR_RUNTIME_DIR, whether it runs or not."""
        folder: Path = settings.value("ASR_RUNTIME_DIR")
        return Service(folder)

    def store(self, *, lock_timeout: float, command: str = "") -> Store:
        """The store of ASR_STORE.

        Args:
            lock_timeout: seconds to wait for another change.
            command: what it is changed for.
        """
        return Store(
            settings.value("ASR_STORE"),
            pointers=settings.value("ASR_STORE_POINTERS"),
            lock_timeout=lock_timeout,
            actor=myself(self.on_behalf_of or settings.behind_sudo()),
            command=command,
            waiting=lambda holder: self.progress(f"waiting for {holder}"),
        )

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self.began

    def result(self, text: str, content: dict[str, Any]) -> None:
        """Print what the command was asked for: the text, or with --json the content."""
        _print(printable_json(content) if self.as_json else printable_lines(text), sys.stdout)

    def progress(self, text: str) -> None:
        """Say on stderr how far it is, with the time since the command began."""
        _print(f"{self.seconds:8.1f} s  {printable(text)}", sys.stderr)

    def complain(self, *lines: str) -> None:
        """Say on stderr what went wrong; each line is one, whatever is in it."""
        _print("\n".join(printable(line) for line in lines), sys.stderr)

    def confess(self, trace: str) -> None:
        """Say on stderr what was not foreseen: a traceback, in lines."""
        _print(printable_lines(trace), sys.stderr)


@dataclass(frozen=True, slots=True)
class Command:
    """One word after the program's name."""

    name: str
    summary: str
    run: Callable[[Context, argparse.Namespace], None]
    """does it, or raises an AsrError"""
    timeout: float | None = None
    """seconds that --timeout is by default; None: the command does not wait"""
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    """adds the arguments that are its own"""
    interrupted: str = "what was begun goes on: {tool} status"
    """what is said after ^C; {tool} is bin/swap-model"""
    changes: bool = False
    """whether it holds the store's lock, and so has --no-wait"""
    apart: bool = False
    """whether it loads models, in processes of their own"""


def seconds(text: str) -> float:
    """A number of seconds, for argparse.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return value


seconds.__name__ = "number of seconds"  # as argparse names it in its message


def shown(text: str) -> str:
    """A text for a terminal: what controls it, in a name that somebody else has chosen, is shown, not done.

    Text in JSON stays what it is: there such a character may be written like this.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(shown(text), file=stream, flush=True)
    except BrokenPipeError:  # nobody reads on, which is no reason to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
