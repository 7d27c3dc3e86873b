"""What RollingArbiter relies on in gunicorn: a release must pass here before its cap is moved."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import gunicorn.app.base
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.base import Worker
from waiting import PATIENCE

from asrsvc.serving.arbiter import RollingArbiter

PROJECT = Path(__file__).resolve().parents[1]


def test_gunicorn_is_of_the_tested_minor() -> None:
    assert version("gunicorn").startswith("27.0.")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("start", ["self"]),
        ("run", ["self"]),
        ("stop", ["self", "graceful"]),
        ("signal", ["self", "sig", "frame"]),
        ("signal_chld", ["self", "sig", "frame"]),
        ("wait_for_signals", ["self", "timeout"]),
        ("manage_workers", ["self"]),
        ("murder_workers", ["self"]),
        ("reap_workers", ["self"]),
        ("spawn_worker", ["self"]),
        ("kill_workers", ["self", "sig"]),
        ("maybe_promote_master", ["self"]),
        ("reexec", ["self"]),
        ("setup", ["self", "app"]),
        *(
            (f"handle_{name}", ["self"])
            for name in ["hup", "int", "term", "ttin", "ttou", "usr2", "winch", "chld", "quit"]
        ),
    ],
)
def test_the_methods_that_are_overridden_or_called_are_there(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(Arbiter, name)).parameters) == parameters
    if name in vars(RollingArbiter):
        assert list(inspect.signature(getattr(RollingArbiter, name)).parameters) == parameters


def test_the_loop_calls_what_is_overridden() -> None:
    loop = inspect.getsource(Arbiter.run)
    for call in (
        "self.start()",
        "self.maybe_promote_master()",
        "self.wait_for_signals(",
        "self.murder_workers()",
    ):
        assert call in loop
    assert loop.count("self.manage_workers()") == 2
    assert "self.reap_workers()" in inspect.getsource(Arbiter.handle_chld)
    assert "except (StopIteration, KeyboardInterrupt)" in loop


def test_a_new_worker_is_briefed_before_the_fork_and_let_go_after_it() -> None:
    source = inspect.getsource(Arbiter.spawn_worker)
    order = [
        source.index(part)
        for part in ("pre_fork(self, worker)", "os.fork()", "post_fork(self, worker)", "init_process()")
    ]
    assert order == sorted(order)
    assert "self.load_wsgi()" in inspect.getsource(Worker.init_process)
    assert "self.run()" in inspect.getsource(Worker.init_process)


def test_a_start_reads_what_a_hand_over_writes() -> None:
    source = inspect.getsource(Arbiter.start)
    assert "'GUNICORN_PID' in os.environ" in source
    assert "os.environ.pop('GUNICORN_FD')" in source


def test_the_application_looks_the_arbiter_up_by_name() -> None:
    assert "Arbiter(self).run()" in inspect.getsource(gunicorn.app.base.BaseApplication.run)


def test_the_settings_that_the_configuration_names_exist() -> None:
    known = set(Config().settings)
    names = "bind workers worker_class wsgi_app preload_app proc_name backlog timeout graceful_timeout"
    names += " worker_tmp_dir control_socket_disable logconfig_dict on_starting pre_fork post_fork"
    assert set(names.split()) <= known


def test_started_by_hand_it_is_this_arbiter_that_runs(tmp_path: Path) -> None:
    """And another one is refused with the reason."""
    configuration = tmp_path / "other.conf.py"
    configuration.write_text(
        f"exec(open({str(PROJECT / 'gunicorn.conf.py')!r}).read())\n"
        "import gunicorn.app.base, gunicorn.arbiter\n"
        "gunicorn.app.base.Arbiter = gunicorn.arbiter.Arbiter\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ASR_")}
    environ |= {
        "ASR_BIND": f"unix:{tmp_path}/api.sock",
        "ASR_RUNTIME_DIR": str(tmp_path),
        "ASR_LOG_FORMAT": "text",
    }
    gunicorn_program = Path(sys.executable).parent / "gunicorn"
    done = subprocess.run(
        [sys.executable, gunicorn_program, "-c", configuration],
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "another arbiter" in done.stdout + done.stderr
