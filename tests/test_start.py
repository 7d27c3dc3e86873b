"""From `bin/serve` to the exec of gunicorn: what needs no network.

The index of packages is out of reach in all of these: a set-up goes as far as its first download.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from service import free_port
from waiting import PATIENCE

from asrsvc import settings

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
LEFT_OUT = ("ASR_", "PIP_", "PYTHON", "VIRTUAL_ENV", "LISTEN_")


def environment(**more: str) -> dict[str, str]:
    """The environment of a newcomer, offline."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
    return {**plain, **OFFLINE, "ASR_PYTHON": sys.executable, **more}


def run(*command: str | Path, cwd: Path = Path("/"), **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )


@pytest.fixture
def fresh(checkout: Path, tmp_path: Path) -> Path:
    """A copy of what a start needs, nothing installed; its folder's name has a space."""
    copy = tmp_path / "fresh clone"
    no_cache = shutil.ignore_patterns("__pycache__")
    for name in ("bin", "asrsvc"):
        shutil.copytree(checkout / name, copy / name, ignore=no_cache)
    for path in (*checkout.glob("*.lock"), checkout / "setup.cfg", checkout / "pyproject.toml"):
        shutil.copy(path, copy)
    (copy / "gunicorn.conf.py").write_text(CONFIGURATION)
    return copy


CONFIGURATION = """
import json, os, sys
from asrsvc import settings
loaded = settings.load()
print(json.dumps({
    "pid": os.getpid(), "bind": loaded.bind, "workers": loaded.workers, "threads": loaded.threads,
    "argv": sys.argv, "safe": sys.flags.safe_path,
}))
raise SystemExit(0)
"""
"""read by a real gunicorn; tells how it was started, then ends it"""


def clear(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """The program failed with one clear sentence: this code, these words, no traceback."""
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("asrsvc: ")
    for words in said:
        assert words in last
    assert "Traceback" not in done.stderr


def test_help_needs_nothing_installed_and_names_every_option_and_exit_code(fresh: Path) -> None:
    done = run(fresh / "bin" / "serve", "--help")
    assert done.returncode == 0, done.stderr
    options = ("--host", "--port", "--workers", "--check", "--model", "--force")
    for words in (*options, "modelscope:org/name", "ASR_PYTHON", "ASR_VENV", "exit codes"):
        assert words in done.stdout
    for code in (2, 5, 20, 21, 22, 25, 30, 40, 69, 78, 130):
        assert f"\n  {code} " in done.stdout
    assert not (fresh / ".venv").exists()


def test_check_needs_nothing_installed_and_shows_where_a_value_came_from(fresh: Path) -> None:
    done = run(fresh / "bin" / "serve", "--check", "--port", "7999", ASR_WORKERS="3")
    assert done.returncode == 0, done.stderr
    *table, why = done.stdout.splitlines()
    assert why.startswith("3 workers (3 as ASR_WORKERS says) of ")
    lines = {line.split()[0]: line for line in table}
    assert set(lines) == {setting.name for _, setting in settings.declared()}
    assert "127.0.0.1:7999" in lines["ASR_BIND"]
    assert "command line" in lines["ASR_BIND"]
    assert "environment" in lines["ASR_WORKERS"]
    assert not (fresh / ".venv").exists()
    assert not (fresh / "var").exists()


def test_it_runs_through_a_link_beside_modules_of_the_same_name(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "asrsvc.py").write_text("raise SystemExit('the wrong asrsvc')")
    (tmp_path / "argparse.py").write_text("raise SystemExit('the wrong argparse')")
    (tmp_path / "link").symlink_to(fresh / "bin" / "serve")
    done = run("./link", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(fresh / "var" / "store") in done.stdout


def test_check_says_nothing_when_its_reader_leaves(fresh: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:  # noqa: PTH123 - a descriptor, no path
        done = subprocess.run(
            [fresh / "bin" / "serve", "--check"],
            env=environment(),
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "bind"),
    [
        (["--port", "80"], "127.0.0.1:80"),
        (["--host", "127.0.0.2"], "127.0.0.2:7860"),
        (["--host", "::1", "--port", "80"], "[::1]:80"),
        (["--host", "unix:/run/a.sock"], "unix:/run/a.sock"),
    ],
)
def test_host_and_port_make_an_address(checkout: Path, arguments: list[str], bind: str) -> None:
    done = run(checkout / "bin" / "serve", "--check", *arguments)
    assert done.stdout.split()[:2] == ["ASR_BIND", bind], done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "http"], "ASR_BIND='127.0.0.1:http' (command line)"),
        (["--port", "65536"], "65535"),
        (["--workers", "0"], "ASR_WORKERS='0' (command line)"),
        (["--host", "unix:/a.sock", "--port", "1"], "--port 1"),
    ],
)
def test_a_wrong_value_is_told_before_anything_is_installed(
    fresh: Path, arguments: list[str], said: str
) -> None:
    clear(run(fresh / "bin" / "serve", *arguments), 78, said)
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "'nowhere' is no folder that can be read"),
        (["--model", "modelscope:a"], "modelscope:a is no repository"),
        (["--model", "https://example.com/model.zip"], "does not end in .tar.gz"),
        (["--model", ""], "'' is no source"),
    ],
)
def test_a_model_of_no_possible_form_is_told_before_anything_is_installed(
    fresh: Path, arguments: list[str], said: str
) -> None:
    clear(run(fresh / "bin" / "serve", *arguments), 2, said)
    assert not (fresh / ".venv").exists()
    assert not (fresh / "var").exists()


def test_force_goes_with_a_model(fresh: Path) -> None:
    done = run(fresh / "bin" / "serve", "--force")
    assert done.returncode == 2
    assert "--force says something of --model alone" in done.stderr
    assert not (fresh / ".venv").exists()


def test_a_wrong_value_in_the_environment_is_told_with_its_origin(fresh: Path) -> None:
    done = run(fresh / "bin" / "serve", ASR_DEVICE="gpu")
    clear(done, 78, "ASR_DEVICE='gpu' (environment)", "cpu, cuda or cuda:N")


def test_without_a_python_it_says_how_to_get_one(fresh: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "readlink", "cat", "sha256sum"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = run(fresh / "bin" / "serve", ASR_PYTHON="", PATH=str(tools))
    clear(done, 69, "no Python from 3.11 to 3.14", "apt-get install python3", "ASR_PYTHON=")
    done = run(fresh / "bin" / "serve", ASR_PYTHON="/not/there")
    clear(done, 69, "/not/there")


def test_a_python_that_is_too_old_is_named_with_its_version(fresh: Path, tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\necho 3.9\n")  # what an old one answers when asked for its version
    old.chmod(0o755)
    clear(run(fresh / "bin" / "serve", ASR_PYTHON=str(old)), 69, f"{old} is 3.9", "ASR_PYTHON=")


def test_a_python_without_ensurepip_is_told_with_the_package_to_install(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError")  # as Debian leaves it out
    done = run(fresh / "bin" / "serve", PYTHONPATH=str(tmp_path))
    version = "{}.{}".format(*sys.version_info)
    clear(done, 69, "no venv module", f"apt-get install python{version}-venv")


def test_without_the_index_it_fails_in_one_sentence_and_tries_again_next_time(fresh: Path) -> None:
    for _ in range(2):
        done = run(fresh / "bin" / "serve")
        clear(done, 69, "packages could not be installed", "PIP_INDEX_URL", str(fresh / ".venv.log"))
        assert "making" in done.stderr
    assert "No matching distribution" in (fresh / ".venv.log").read_text()


def test_without_a_network_it_says_that_the_index_is_out_of_reach(fresh: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: refused
    done = run(fresh / "bin" / "serve", PIP_NO_INDEX="0", PIP_RETRIES="1", PIP_INDEX_URL=nowhere)
    clear(done, 69, "the package index cannot be reached", "HTTPS_PROXY")


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(fresh: Path) -> None:
    command = [fresh / "bin" / "serve"]
    if os.geteuid() == 0:  # may write everywhere, so a read-only mount of its own
        script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$1/bin/serve"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", fresh]
        if run(*command[:4], "mount --bind /tmp /tmp").returncode != 0:
            pytest.skip("root without the right to mount")
    else:
        fresh.chmod(0o555)
    try:
        clear(run(*command), 69, f"{fresh}/.venv", "cannot be written", "ASR_VENV=")
    finally:
        fresh.chmod(0o755)


@pytest.fixture
def bare(fresh: Path) -> Path:
    """The copy with a virtual environment that has the mark of a finished one, and no packages."""
    venv = fresh / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    real = Path(sys.executable).resolve()
    (venv / ".python").write_text(f"{sys.executable}\n{real}\n")
    return fresh


def mark_installed(copy: Path) -> None:
    script = '. "$(dirname "$0")/environment.sh"; wanted service'
    digest = run("sh", "-c", script, copy / "bin" / "serve").stdout
    (copy / ".venv" / ".installed-service").write_text(digest)


def test_a_later_start_skips_the_set_up(bare: Path) -> None:
    mark_installed(bare)
    done = run(bare / "bin" / "serve", PYTHONPATH=str(bare))
    clear(done, 2, "gunicorn is not installed")  # it got as far as the program itself
    assert "installing" not in done.stderr


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock", "setup.cfg"])
def test_a_change_of_what_is_installed_starts_the_set_up(bare: Path, name: str) -> None:
    mark_installed(bare)
    with (bare / name).open("a") as file:
        file.write("\n# changed\n")
    assert "installing packages" in run(bare / "bin" / "serve").stderr


def test_a_change_for_the_tests_alone_does_not(bare: Path) -> None:
    mark_installed(bare)
    with (bare / "requirements-test.lock").open("a") as file:
        file.write("\n# changed\n")
    assert "installing" not in run(bare / "bin" / "serve").stderr


def test_an_interrupted_install_is_done_from_the_beginning(bare: Path) -> None:
    mark_installed(bare)
    (bare / ".venv" / ".installing").touch()
    assert f"making {bare / '.venv'}" in run(bare / "bin" / "serve").stderr


def test_another_python_behind_the_same_name_starts_the_set_up(bare: Path) -> None:
    mark_installed(bare)
    (bare / ".venv" / ".python").write_text(f"{sys.executable}\n/usr/bin/python3.10\n")
    assert f"making {bare / '.venv'}" in run(bare / "bin" / "serve").stderr


def test_a_clone_that_was_moved_is_set_up_again(bare: Path) -> None:
    mark_installed(bare)
    moved = bare.rename(bare.with_name("moved"))
    assert "installing packages" in run(moved / "bin" / "serve").stderr


def test_two_set_ups_wait_for_each_other(bare: Path) -> None:
    with (bare / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [bare / "bin" / "serve"],
            env=environment(PYTHONPATH=str(bare)),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            assert "waiting for another set-up" in process.stderr.readline()
            mark_installed(bare)  # what the other one does
            fcntl.flock(lock, fcntl.LOCK_UN)
            _, rest = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert "installing packages" not in rest  # locked, then looked again
    assert "gunicorn is not installed" in rest


def start(copy: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The last step of bin/serve, with the packages of this environment."""
    command = [sys.executable, "-P", "-m", "asrsvc.serving.start", *arguments]
    return run(*command, PYTHONPATH=str(copy), **more)


def test_gunicorn_takes_its_place_and_loads_the_same_settings(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "asr.conf").write_text("ASR_WORKERS=1\nASR_THREADS=2\n")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    port = free_port()
    command = [sys.executable, "-P", "-m", "asrsvc.serving.start", "--port", str(port), "--workers", "3"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(fresh), ASR_CONFIG="asr.conf"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    url, told = said.splitlines()
    version = json.loads((fresh / "var/store/current/manifest.json").read_text())["id"]
    assert url == f"asrsvc on http://127.0.0.1:{port} (loading {version})"
    seen = json.loads(told)
    assert seen["pid"] == process.pid
    assert (seen["bind"], seen["workers"], seen["threads"]) == (f"127.0.0.1:{port}", 3, 2)
    assert seen["safe"]
    # what SIGUSR2 starts again
    assert Path(seen["argv"][0]).name == "gunicorn"


def test_a_port_in_use_is_told_with_the_process_that_has_it(fresh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for arguments in (["--port", str(port)], ["--port", str(port), "--host", "localhost"]):
            clear(start(fresh, *arguments), 2, f":{port} is in use by process {os.getpid()}", "--port")
    assert not (fresh / "var").exists()


def test_a_port_in_use_is_told_before_a_model_is_fetched(fresh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = start(fresh, "--port", str(port), "--model", "modelscope:org/model")
        clear(done, 2, f":{port} is in use by process {os.getpid()}")
    assert not (fresh / "var").exists()


def test_a_hub_out_of_reach_is_told_with_what_to_do(fresh: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: refused
    done = start(fresh, "--port", str(free_port()), "--model", "hf:org/model", ASR_HF_ENDPOINT=nowhere)
    assert (done.returncode, done.stdout) == (21, "")
    failed, serving, then = done.stderr.splitlines()[-3:]
    assert failed.startswith("asrsvc: ")
    assert "127.0.0.1:9" in failed
    assert serving == "serving now: nothing; the next start serves the embedded model"
    assert then.startswith("next: the same again: it goes on where it stopped; bin/serve without --model")
    assert not (fresh / "var" / "store" / "current").exists()


def test_a_port_in_use_on_ipv6_is_told(fresh: Path) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        port = server.getsockname()[1]
        clear(start(fresh, "--host", "::1", "--port", str(port)), 2, f"[::1]:{port} is in use by process")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(fresh: Path, host: str) -> None:
    clear(start(fresh, "--host", host, ASR_PUBLIC_WITHOUT_KEYS="yes"), 2, host, "--host")


def test_an_address_that_others_reach_is_refused_without_keys_and_says_how_to_make_one(fresh: Path) -> None:
    said = ("ASR_BIND=0.0.0.0:7860 (command line)", "bin/api-keys", "ASR_PUBLIC_WITHOUT_KEYS=yes")
    clear(start(fresh, "--host", "0.0.0.0"), 78, *said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is no file of API keys"),
        (
            '{"keys": [{"name": "a", "sha256": "short", "created": "2026-01-01T00:00:00+00:00"}]}',
            "keys[0].sha256",
        ),
    ],
)
def test_keys_that_cannot_be_read_are_no_reason_to_serve_without(
    fresh: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    clear(start(fresh, "--port", str(free_port()), ASR_API_KEYS=str(path)), 6, str(path), said)


def test_a_socket_file_in_use_is_told_and_a_stale_one_is_not_in_the_way(fresh: Path, tmp_path: Path) -> None:
    path = tmp_path / "asr.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        clear(start(fresh, "--host", f"unix:{path}"), 2, f"{path} is in use by process {os.getpid()}")
    done = start(fresh, "--host", f"unix:{path}")  # closed: nobody listens any more
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"asrsvc on unix:{path} ")
    path.unlink()
    path.write_text("precious")
    clear(start(fresh, "--host", f"unix:{path}"), 2, "is not a socket")
    assert path.read_text() == "precious"
    clear(start(fresh, "--host", f"unix:{tmp_path}/none/asr.sock"), 2, "none is not a folder")
    clear(start(fresh, "--host", f"unix:/{'long/' * 30}asr.sock"), 2, "longer than")


def test_a_socket_that_systemd_passed_is_not_tried(fresh: Path) -> None:
    script = 'export LISTEN_PID=$$ && exec "$@"'
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "asrsvc.serving.start"]
        done = run(*command, "--port", str(port), PYTHONPATH=str(fresh), LISTEN_FDS="1")
    assert done.returncode == 0, done.stderr


def test_a_damaged_store_is_told_with_the_setting_that_names_it(fresh: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "current").symlink_to("versions/gone")
    done = start(fresh, "--port", str(free_port()), ASR_STORE=str(store))
    clear(done, 5, str(store / "current"), "versions/gone", f"ASR_STORE={store}, environment")
