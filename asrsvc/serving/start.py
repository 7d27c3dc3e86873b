"""From the command line to the gunicorn master: check, bring the model, say where, exec.

The standard library and the rooms below are enough here, so that `--help` and `--check` work
before anything is installed.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from asrsvc import settings
from asrsvc.errors import AsrError, BadArgument, NotRunning, StartError, StatusError, StoreError
from asrsvc.release.cli.service import Service
from asrsvc.release.embedded import ensure_embedded
from asrsvc.release.known import known_version
from asrsvc.release.privileges import explained
from asrsvc.release.sources import parse
from asrsvc.release.store import Store, Version
from asrsvc.serving.exposed import exposed_files
from asrsvc.serving.keys import read_keys
from asrsvc.serving.root_user import make_folders_for, owner_of_service, take_over
from asrsvc.settings import SettingError, Settings
from asrsvc.system.printable import printable

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_CONFIGURATION: Final = "gunicorn.conf.py"
_BRINGING: Final = "asrsvc.release.cli.bringing"
_UNIX_PATH_BYTES: Final = 107
"""sun_path of unix(7), less the final zero"""

_EPILOG: Final = """\
Every setting can also stand in the environment, or in the file that ASR_CONFIG names (lines
NAME=value). The command line wins over the environment, the environment over the file.
--check shows all settings.

For the set-up by bin/serve: ASR_PYTHON names the Python to use, ASR_VENV the folder for the
packages (default: .venv in the checkout).

--model SOURCE: modelscope:org/name[@revision], hf:org/name[@revision], https://….tar.gz, or a folder. On the
first start the model is brought into the store (ASR_STORE), baked for this host and tried; then it serves,
at this start and at later ones, with --model or without. What is in the store is not fetched again: what is
new at its source bin/swap-model deploy brings. A model that fails its trial is not served, and the service
does not start, unless --force says so. It takes the place of the version that would have served, which is
what bin/swap-model rollback goes back to.

exit codes:
  0    stopped by SIGTERM or SIGINT; or --help, --check
  1    an error that was not foreseen
  2    cannot start: the address or the runtime folder is in use or not permitted; or an unknown option
  3    gunicorn: a worker could not start
  5    the store of model versions is damaged or cannot be written
  6    the file of API keys cannot be read, or is no file of keys
  20   --model: the source holds no model, or what no model holds
  21   --model: the download failed; what has arrived is kept, the same command goes on
  22   --model: a file is not the one that was promised: wrong size or SHA-256
  23   --model: files of the version in the store are not as they were stored
  25   --model: the disk of the store is full; what has arrived is kept
  30   --model: the version did not pass its trial; its record says why
  31   --model: the recordings to try it on are not as they must be
  32   --model: nothing can be tried here: what a trial needs is not installed
  40   --model: another change of the store is under way, and did not end in time
  69   the set-up failed: no fitting Python, no network, a folder that cannot be written
  78   a setting is wrong
  79   started by root: the folders of the service are not one user's, or root cannot become that user
  130  --model: interrupted; the same again goes on where it stopped
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the service in the place of this process; return an exit code if that fails."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.force and options.model is None:
        parser.error("--force says something of --model alone")
    try:
        overrides = _overrides(options)
        loaded = _leave_root(settings.load(overrides), overrides, makes=not options.check)
        if options.model is not None:
            _check_source(loaded, options.model)
        if options.check:
            _print_report(loaded)
            return 0
        _check(loaded, environ := settings.environment(overrides))
        if options.model is not None:
            _bring(loaded, options, environ)
        _start(loaded, environ)
    except SettingError as error:
        print(f"asrsvc: {printable(explained(error, str(error)))}", file=sys.stderr)
        return error.exit_code
    except AsrError as error:
        print(f"asrsvc: {printable(explained(error, error.message))}", file=sys.stderr)
        return error.exit_code


def _leave_root(loaded: Settings, overrides: Mapping[str, str], *, makes: bool) -> Settings:
    """Become the user whom the store belongs to, where root starts the service; that user's settings.

    Args:
        loaded: the settings as root sees them.
        overrides: values from the command line.
        makes: whether folders that are missing, and that this user could not make, are made for it before.

    Raises:
        RootRefused: the folders of the service are not one user's.
        SettingError: that user cannot read the file of settings.
    """
    owner = owner_of_service(loaded)
    if owner is None:
        return loaded
    user, place = owner
    if makes:
        make_folders_for(user, loaded)
    take_over(user, place, starts_processes=True)
    print(f"asrsvc: goes on as {user.name}, whom {place} belongs to", file=sys.stderr, flush=True)
    return settings.load(overrides)


def _print_report(loaded: Settings) -> None:
    for warning in exposed_files(loaded):
        print(f"asrsvc: {printable(warning)}", file=sys.stderr)
    try:
        print(settings.report(loaded), flush=True)
    except BrokenPipeError:  # as in `bin/serve --check | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/serve" if (_PACKAGE.parent / "bin" / "serve").is_file() else "asrsvc-serve",
        description="Run the speech recognition service in the foreground.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--host", help="listen on this name or address, or on unix:/path (default: that of ASR_BIND)"
    )
    parser.add_argument("--port", help="listen on this TCP port (default: that of ASR_BIND, 7860)")
    parser.add_argument("--workers", help="worker processes, or auto: by cores and memory (ASR_WORKERS)")
    parser.add_argument(
        "--model",
        metavar="SOURCE",
        help="serve this model; it is brought into the store if it is not there (see below)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --model: without a passed trial, and without the comparison of text and speed",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="print every setting in force and where it came from, and how the cores are shared out",
    )
    return parser


def _overrides(options: argparse.Namespace) -> dict[str, str]:
    """What the command line says, by setting name."""
    overrides = {}
    if options.workers is not None:
        overrides["ASR_WORKERS"] = options.workers
    host, port = options.host, options.port
    if host is not None and host.startswith("unix:"):
        if port is not None:
            raise SettingError(f"--port {port} with --host {host} is wrong: a socket file has no port")
        overrides["ASR_BIND"] = host
    elif host is not None or port is not None:
        if host is None or port is None:
            bind = settings.load().bind
            usual = "127.0.0.1:7860" if bind.startswith("unix:") else bind
            usual_host, _, usual_port = usual.rpartition(":")
            host, port = host or usual_host, port or usual_port
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        overrides["ASR_BIND"] = f"{host}:{port}"
    return overrides


def _check_source(loaded: Settings, source: str) -> None:
    """Whether it has the form of a source; a folder may be gone if the store has what was in it.

    Raises:
        BadArgument: it has none.
        StoreError: the store cannot be read.
    """
    try:
        parse(source)
    except BadArgument:
        known_version(Store(loaded.store, pointers=loaded.store_pointers), source)


def _check(loaded: Settings, environ: dict[str, str]) -> None:
    """Look at what forbids a start, before anything is fetched.

    Raises:
        AsrError: something does; says what to do.
    """
    _configuration()
    _gunicorn()
    if environ.get("LISTEN_PID") != str(os.getpid()):  # else systemd has bound it, sd_listen_fds(3)
        check_address(loaded.bind)
    if loaded.api_keys is not None:
        read_keys(loaded.api_keys)


def _bring(loaded: Settings, options: argparse.Namespace, environ: dict[str, str]) -> NoReturn:
    """Have the model brought by a process that takes the place of this one, and starts anew without --model.

    Raises:
        StartError: a service runs on the same runtime folder.
    """
    try:
        running = Service(loaded.runtime_dir).status()
    except (NotRunning, StatusError):
        pass
    else:
        raise StartError(
            f"{loaded.runtime_dir} belongs to a service that runs already, process {running.master.pid}:"
            " bin/swap-model deploy SOURCE changes its model; or stop it, or choose another ASR_RUNTIME_DIR"
        )
    rest = [
        f"--{name}={value}"
        for name in ("host", "port", "workers")
        if (value := getattr(options, name)) is not None
    ]
    command = [sys.executable, "-P", "-m", _BRINGING, options.model, "force" if options.force else "", *rest]
    os.execve(command[0], command, environ)  # noqa: S606 - that is what this module is for


def _start(loaded: Settings, environ: dict[str, str]) -> NoReturn:
    configuration = _configuration()
    gunicorn = _gunicorn()
    version = _first_version(loaded)
    where = loaded.bind if loaded.bind.startswith("unix:") else f"http://{loaded.bind}"
    print(f"asrsvc on {where} (loading {version.id})", flush=True)
    # A start in a folder that happens to hold a `socket.py` must not import it, nor must the
    # master that SIGUSR2 starts: an option (-P) would be lost there.
    environ["PYTHONSAFEPATH"] = "1"
    # Each malloc arena (mallopt(3)) keeps the holes that large recordings leave in it, and which thread gets
    # which arena is chance: with glibc's default workers grew from 107 to 115 MB over 9,000 requests, with
    # two arenas by 1 to 6 %. With one it is 1 % at most, 6 MB less, and no slower (benchmarks/load.py).
    environ.setdefault("MALLOC_ARENA_MAX", "1")
    # Nothing here multiplies matrices in numpy. Its threads for that spin while it is imported: 0.14 of the
    # 0.9 s of CPU time that a load took, and as much of the start of a process that decodes.
    environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.chdir(configuration.parent)  # gunicorn adds the current folder to sys.path all the same
    # The script, not `-m gunicorn`: on SIGUSR2 gunicorn starts sys.argv[0] again, and as a script
    # its __main__.py would be a file among gunicorn's modules.
    command = [sys.executable, str(gunicorn), "--config", str(configuration)]
    os.execve(command[0], command, environ)  # noqa: S606 - that is what this module is for


def _configuration() -> Path:
    """The file that gunicorn reads: the checkout's, else what the wheel brought along."""
    places = (_PACKAGE.parent / _CONFIGURATION, Path(sys.prefix) / "share" / "asrsvc" / _CONFIGURATION)
    for path in places:
        if path.is_file():
            return path
    raise StartError(f"{_CONFIGURATION} is neither at {places[0]} nor at {places[1]}: install again")


def _gunicorn() -> Path:
    script = Path(sys.executable).parent / "gunicorn"
    if not script.is_file():
        raise StartError(f"gunicorn is not installed beside {sys.executable}: start with bin/serve")
    return script


def _first_version(loaded: Settings) -> Version:
    try:
        return ensure_embedded(Store(loaded.store, pointers=loaded.store_pointers))
    except StoreError as error:
        origin = loaded.origin["ASR_STORE"]
        text = f"{error.message} (the store is ASR_STORE={loaded.store}, {origin}; you can name another)"
        raise StoreError(text) from error


def check_address(bind: str) -> None:
    """Whether the service could listen there now.

    Args:
        bind: host:port or unix:/path.

    Raises:
        StartError: it could not; the message says why, and who listens there if that is known.
    """
    if bind.startswith("unix:"):
        _check_socket_file(Path(bind.removeprefix("unix:")))
    else:
        host, _, port = bind.rpartition(":")
        _check_port(bind, host.strip("[]"), int(port))


def _check_port(bind: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET  # as gunicorn does
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"{bind}: no address of {host!r} is known ({error}): see --host") from error
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError as error:
        raise StartError(_why_not(bind, port, error)) from error


def _why_not(bind: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        pid = _listener_pid(port)
        holder = f" by process {pid}" if pid else ""
        return f"{bind} is in use{holder}: stop that, or choose another port, as in --port {port % 65535 + 1}"
    if error.errno == errno.EACCES:
        return f"{bind} is not permitted to this user: choose a port from 1024 up, as in --port 7860"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{bind}: this machine does not have that address: see --host"
    return f"{bind} cannot be bound: {error.strerror}: see --host and --port"


def _listener_pid(port: int) -> int | None:
    """Which process listens on a TCP port, as far as this user may see; proc(5)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    # the oldest process that holds it: a master, rather than one of its workers
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        try:
            if _holds(pid, inodes):
                return pid
        except OSError:
            continue  # gone, or another user's
    return None


def _holds(pid: int, sockets: set[str]) -> bool:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()) in sockets:
                return True
        except FileNotFoundError:
            continue  # closed meanwhile
    return False


def _check_socket_file(path: Path) -> None:
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise StartError(f"unix:{path} is longer than the {_UNIX_PATH_BYTES} bytes of a socket's path")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StartError(f"unix:{path}: {path.parent} is not a folder that this user may write to")
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StartError(f"{path} is not a socket: move it away, or choose another ASR_BIND")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left behind; gunicorn removes it
        except OSError as error:
            raise StartError(f"unix:{path} cannot be tried: {error.strerror}") from error
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    raise StartError(f"unix:{path} is in use by process {pid}: stop that, or choose another ASR_BIND")


if __name__ == "__main__":
    sys.exit(main())
