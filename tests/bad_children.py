"""A child of a trial that does as it is told: `python -m bad_children`, see tests/test_trial_process.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

SLEEPER = "import time; time.sleep(1000)"


def answer(stream: Any, question: dict[str, Any]) -> None:
    what = question["do"]
    if what == "echo":
        stream.write(json.dumps({"ok": question}).encode() + b"\n")
    elif what == "garbage":
        stream.write(question["line"].encode("latin-1") + b"\n")
    elif what == "flood":
        stream.write(b"x" * (20 * 2**20))
    elif what == "spawn":
        process = subprocess.Popen([sys.executable, "-c", SLEEPER])
        stream.write(json.dumps({"ok": {"pid": process.pid}}).encode() + b"\n")
    elif what == "chatter":
        for _ in range(2000):
            sys.stderr.write("many words " * 100 + "\n")
        stream.write(b'{"ok": {}}\n')
    else:
        do_no_good(question)
    stream.flush()


def do_no_good(question: dict[str, Any]) -> None:
    what = question["do"]
    if what == "hang":
        time.sleep(1000)
    elif what == "exit":
        sys.stderr.write(f"last \x1b[31mwords{question['code']}\n")
        sys.exit(question["code"])
    elif what == "kill":
        os.kill(os.getpid(), signal.Signals[question["signal"]])
        time.sleep(1000)
    elif what == "eat":
        held = []
        while len(held) < 500:  # more than it may, and an end: who looks may be held up
            held.append(b"x" * 2**20)
            time.sleep(0.002)
        time.sleep(1000)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as ours, ours.makefile("rwb") as lines:
        for line in lines:
            answer(lines, json.loads(line))
