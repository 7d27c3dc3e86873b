"""The README is true: its commands run and answer what it says; its tables list what there is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from hub import running_hub
from service import free_port, wait_for
from waiting import PATIENCE

from asrsvc import settings
from asrsvc.serving.keys import KeyRing

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == "sh"]


def answer_after(command: str) -> str:
    """The JSON block that follows a command in the README."""
    following = BLOCKS[[text.strip() for _, text in BLOCKS].index(command) + 1]
    assert following[0] == "json"
    return following[1].strip()


@pytest.mark.timeout(600)
def test_the_commands_answer_what_the_readme_says(tmp_path: Path) -> None:
    port = free_port()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ASR_") or k == "ASR_VENV"}
    folders = {"ASR_STORE": "store", "ASR_STATE_DIR": "state", "ASR_RUNTIME_DIR": "run"}
    environ |= {name: str(tmp_path / folder) for name, folder in folders.items()}
    environ["ASR_SOAK_SECONDS"] = "0.5"
    assert COMMANDS[0] == "bin/serve"
    log_path = tmp_path / "log"
    with log_path.open("w") as log:
        serve = subprocess.Popen(
            [*COMMANDS[0].split(), "--port", str(port)], cwd=PROJECT, env=environ, stdout=log, stderr=log
        )
    try:
        wait_for("the URL and a ready worker", lambda: "worker ready" in log_path.read_text(), 120)
        assert f"asrsvc on http://127.0.0.1:{port}" in log_path.read_text()
        curls = [command for command in COMMANDS if command.startswith("curl")]
        assert len(curls) == 3
        for command in curls:
            run = subprocess.run(
                command.replace("7860", str(port)),
                shell=True,
                cwd=PROJECT,
                capture_output=True,
                timeout=2 * PATIENCE,
                check=True,
            )
            body = json.loads(run.stdout)
            shown = json.loads(re.sub(r"\[…\]|\{…\}", '"…"', answer_after(command)))
            assert list(body) == list(shown)
            left_out = {"request_id"} | {key for key, value in shown.items() if "…" in str(value)}
            # probabilities may differ a little where another kernel adds in another order
            assert {k: body[k] for k in body if k not in left_out} == {
                k: pytest.approx(v, abs=1e-3) if isinstance(v, float) else v
                for k, v in shown.items()
                if k not in left_out
            }
        assert "bin/swap-model reload" in COMMANDS
        subprocess.run(
            "bin/swap-model reload", shell=True, cwd=PROJECT, env=environ, timeout=2 * PATIENCE, check=True
        )
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.wait(PATIENCE)


@pytest.mark.timeout(400)
def test_the_command_with_a_model_serves_it(tmp_path: Path) -> None:
    """The published one's name stands for a smaller model, behind a hub of this machine."""
    (command,) = (command for command in COMMANDS if "--model" in command)
    assert README.index(command) < README.index("## ")
    assert "modelscope:iic/SenseVoiceSmall-onnx" in command
    command = command.replace("iic/SenseVoiceSmall-onnx", "iic/nano")
    port, log_path = free_port(), tmp_path / "log"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ASR_") or k == "ASR_VENV"}
    folders = {"ASR_STORE": "store", "ASR_STATE_DIR": "state", "ASR_RUNTIME_DIR": "run"}
    environ |= {name: str(tmp_path / folder) for name, folder in folders.items()}
    (model,) = (PROJECT / "asrsvc" / "models").glob("*/")
    with running_hub() as hub, log_path.open("w") as log:
        hub.repositories["iic/nano"] = {path.name: path.read_bytes() for path in model.iterdir()}
        environ["ASR_MODELSCOPE_ENDPOINT"] = hub.url
        serve = subprocess.Popen(
            [*command.split(), "--port", str(port)], cwd=PROJECT, env=environ, stdout=log, stderr=log
        )
        try:
            wait_for("a ready worker", lambda: "worker ready" in log_path.read_text(), 300)
        finally:
            serve.send_signal(signal.SIGTERM)
            serve.wait(PATIENCE)
    said = log_path.read_text()
    assert "model_quant.onnx: 4.9 MiB, whole" in said
    assert re.search(rf"asrsvc on http://127.0.0.1:{port} \(loading nano-\w{{8}}\)", said)


def test_the_test_command_passes_its_arguments_on() -> None:
    assert "bin/test" in COMMANDS
    run = subprocess.run(
        [PROJECT / "bin" / "test", "--version"],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=True,
    )
    assert "pytest" in run.stdout


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(ASR_\w+)` \| (.*?) \|", README, flags=re.MULTILINE))
    declared = {setting.name: setting.default for _, setting in settings.declared()}
    assert set(rows) == set(declared)
    for name, default in declared.items():
        assert "{" in default or rows[name] == f"`{default}`", name


def test_the_command_for_keys_makes_one_that_is_served(tmp_path: Path) -> None:
    (command,) = (command for command in COMMANDS if command.startswith("bin/api-keys"))
    path = tmp_path / "keys.json"
    run = subprocess.run(
        command.replace("keys.json", str(path)),
        shell=True,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    ring = KeyRing(path)
    assert ring.find(run.stdout.strip()).rate == 600


def test_every_metric_of_a_worker_is_in_the_readme() -> None:
    source = "".join((PROJECT / "asrsvc" / "web" / name).read_text() for name in ("meter.py", "metrics.py"))
    names = set(re.findall(r'"((?:asr|model|memory)_[a-z_]+)"', source))
    assert len(names) > 25
    for name in names:
        assert f"`{name}" in README, name


def test_every_path_in_the_readme_is_there() -> None:
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (PROJECT / link).exists(), link


def test_every_command_shown_is_one_of_those_that_are_run() -> None:
    assert {command.split()[0] for command in COMMANDS} == {
        "bin/serve",
        "curl",
        "bin/test",
        "bin/swap-model",
        "bin/api-keys",
    }
