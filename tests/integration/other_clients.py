"""Clients that bin/test installs in folders of their own, and the programs that use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from waiting import PATIENCE

PROGRAMS = Path(__file__).resolve().parent.parent / "clients"
INSTALLED = Path(sys.prefix) / "clients"
SECONDS = 2 * PATIENCE


def installed(name: str) -> Path:
    """Where a client's packages are.

    Raises:
        FileNotFoundError: they are not there; bin/test installs them.
    """
    folder = INSTALLED / name
    if not (folder / ".installed").exists():
        raise FileNotFoundError(f"the client {name} is not installed in {folder}: bin/test installs it")
    return folder


def talk(command: list[str], request: dict[str, Any]) -> Any:
    """Run a program with a request on stdin; what it prints."""
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would ask the internet for one
    done = subprocess.run(
        command,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ai_sdk(url: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Vercel's AI SDK returns for each call: `file`, `model` and `options` of the provider."""
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("node is not installed: bin/test installs it")
    command = [node, str(PROGRAMS / "ai" / "transcribe.mjs"), str(installed("ai"))]
    answers: list[dict[str, Any]] = talk(command, {"baseURL": f"{url}/v1", "calls": calls})
    return answers


def litellm(url: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What LiteLLM returns for each call: `file` and `arguments` of litellm.transcription."""
    python = installed("litellm") / "bin" / "python"
    command = [str(python), str(PROGRAMS / "litellm" / "transcribe.py")]
    answers: list[dict[str, Any]] = talk(command, {"api_base": f"{url}/v1", "calls": calls})
    return answers
