"""A real systemd in namespaces of its own, with the service installed in it as in production."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from service import PROJECT, free_port, wait_for
from waiting import PATIENCE

_SDBOX = PROJECT / "tests" / "tools" / "sdbox.sh"
_CODE = ("asrsvc", "bin", "systemd", "gunicorn.conf.py", "tests/data/sensevoice-nano-prev")
_VENV = "/opt/asr/.venv"
_PYTHON = "/opt/python"
_HOMES = (Path("/home"), Path("/root"))  # hidden from the service: systemd.exec(5), ProtectHome=
_ADD_VERSION = """
import sys
from pathlib import Path
from asrsvc.release.store import Store
print(Store(Path("/var/lib/asr/store")).add_folder(Path(sys.argv[1]), sys.argv[2]).id)
"""
_WISH = """
import sys
from pathlib import Path
from asrsvc.release.store import Store
store = Store(Path("/var/lib/asr/store"))
store.set_next(store.version(sys.argv[1]))
"""


def why_not() -> str | None:
    """Why no box can be had here; None if one can."""
    if os.getuid() != 0:
        return "only root can make namespaces with a systemd in them"
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "this kernel has no overlayfs"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    missing = [name for name in ("systemctl", "nginx", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if Path(sys.base_prefix).parts[1] in {"tmp", "run"}:
        return f"the box has a /tmp and a /run of its own, and Python is in {sys.base_prefix}"
    probe = [
        "unshare",
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    ]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "namespaces with mounts of their own are not permitted here"
    return None


class Box:
    """One booted box; the network is this machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.proxy_port = free_port()

    def boot(self) -> None:
        folders = [f"{sys.prefix}={_VENV}"]
        if _python_moves():
            folders.append(f"{sys.base_prefix}={_PYTHON}")
        done = subprocess.run(
            [str(_SDBOX), "start", str(self.folder), *folders],
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{done.stderr}\n{(self.folder / 'boot.log').read_text()}")

    def end(self) -> None:
        subprocess.run([str(_SDBOX), "stop", str(self.folder)], timeout=PATIENCE, check=True)

    def start_command(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(_SDBOX), "run", str(self.folder), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, *command: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        raw = subprocess.run(
            [str(_SDBOX), "run", str(self.folder), *command],
            input=stdin,
            capture_output=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        done = subprocess.CompletedProcess(
            raw.args, raw.returncode, raw.stdout.decode(errors="replace"), raw.stderr.decode(errors="replace")
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def write(self, path: str, content: str) -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, stdin=content.encode())

    # The service.

    def install(self) -> None:
        """As the unit says; only addresses, and where Python lies, differ."""
        self.run("tar", "-x", "-C", "/opt/asr", "--no-same-owner", stdin=_archive())
        self.run("chmod", "o+rx", _VENV)
        if _python_moves():
            self._move_python()
        self.run(f"{_VENV}/bin/python", "-m", "compileall", "-q", "/opt/asr/asrsvc")
        self.run("install", "-D", "/opt/asr/systemd/asr.sysusers.conf", "/etc/sysusers.d/asr.conf")
        self.run("systemd-sysusers")
        self.run("install", "-D", "/opt/asr/systemd/asr.tmpfiles.conf", "/etc/tmpfiles.d/asr.conf")
        self.run("systemd-tmpfiles", "--create", "asr.conf")
        for unit in ("asr.service", "asr.socket", "asr-ops.socket"):
            self.run("cp", f"/opt/asr/systemd/{unit}", "/etc/systemd/system/")
        # What has waited at the listener during a restart comes into the queue all at once.
        settings = (
            "ASR_WORKERS=2\nASR_THREADS=1\nASR_SOAK_SECONDS=1\nASR_QUEUE_LIMIT=250\n"
            "ASR_BODY_IDLE_TIMEOUT=120\n"
        )
        self.write("/etc/asr/asr.conf", f"ASR_BIND=127.0.0.1:{self.port}\n{settings}")
        drop_ins = "/etc/systemd/system"
        self.write(
            f"{drop_ins}/asr.service.d/test.conf",
            "[Service]\nEnvironment=PYTHONPATH=/opt/asr PYTHONDONTWRITEBYTECODE=1\n"
            # A master that does not ping would not outlive a test.
            "WatchdogSec=20\nTimeoutAbortSec=60\n",
        )
        self.write(
            f"{drop_ins}/asr.socket.d/test.conf",
            f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.port}\n",
        )
        self.run("systemctl", "daemon-reload")

    def _move_python(self) -> None:
        """Make the virtual environment one of the Python that was brought in."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.run("chmod", "o+rx", _PYTHON)
        for link in ("python", "python3", name):
            self.run("ln", "-sf", f"{_PYTHON}/bin/{name}", f"{_VENV}/bin/{link}")
        self.write(f"{_VENV}/pyvenv.cfg", f"home = {_PYTHON}/bin\n")
        self.write(f"{_VENV}/.python", f"{name}\n{Path(_PYTHON, 'bin', name)}\n")  # see bin/environment.sh
        self.write("/etc/ld.so.conf.d/python.conf", f"{_PYTHON}/lib\n")  # a shared libpython
        self.run("ldconfig")

    def start_proxy(self) -> None:
        """nginx with the project's configuration, on other ports."""
        content = (PROJECT / "systemd" / "nginx-asr.conf").read_text(encoding="utf-8")
        for ours, here in (
            ("server 127.0.0.1:7860 ", f"server 127.0.0.1:{self.port} "),
            ("listen 80;", f"listen 127.0.0.1:{self.proxy_port};"),
            # An idle connection that nginx closes under a client's feet is no fault of the service.
            ("server_name _;", "server_name _; keepalive_timeout 3600s; keepalive_requests 1000000;"),
        ):
            assert content.count(ours) == 1
            content = content.replace(ours, here)
        self.run("rm", "-f", "/etc/nginx/sites-enabled/default")
        self.write("/etc/nginx/conf.d/asr.conf", content)
        self.run("mkdir", "-p", "/var/log/nginx", "/var/lib/nginx")
        self.run("nginx", "-t")
        self.run("systemd-run", "--unit=proxy", "nginx", "-g", "daemon off;")
        wait_for("nginx listens", lambda: _is_listened_on(self.proxy_port))

    def add_version(self, folder: str, name: str) -> str:
        """Put a folder that the service's user can read into the store, untried."""
        return self._python(_ADD_VERSION, folder, name)

    def wish(self, version: str) -> None:
        self._python(_WISH, version)

    def _python(self, program: str, *arguments: str) -> str:
        start = ("runuser", "-u", "asr", "--", "env", "PYTHONPATH=/opt/asr", "PYTHONDONTWRITEBYTECODE=1")
        return self.run(*start, "/opt/asr/.venv/bin/python", "-c", program, *arguments).stdout.strip()

    def property(self, name: str, unit: str = "asr.service") -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("cat", "/run/asr/status.json").stdout)
        return found

    def wait_until_serving(self) -> None:
        wait_for(
            "both workers are ready",
            lambda: (
                self.property("ActiveState") == "active"
                and [worker["state"] for worker in self.status()["workers"]] == ["ready", "ready"]
            ),
        )

    def journal(self) -> str:
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "-b", "--no-pager", "-o", "short-precise", check=False).stdout


def _is_listened_on(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _python_moves() -> bool:
    """Whether this Python cannot be seen by the service in the box where it lies."""
    python = Path(sys.base_prefix)
    return any(home in python.parents for home in _HOMES) or python.stat().st_dev != Path("/").stat().st_dev


def _archive() -> bytes:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else member

    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name in _CODE:
            archive.add(PROJECT / name, arcname=name, filter=plain)
    return written.getvalue()
