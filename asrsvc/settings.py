"""Every setting: its name, default, unit and check. The only reader of the environment.

A value comes from the command line, else the environment, else the file that `ASR_CONFIG`
names (lines `NAME=value`), else the default. `Settings.origin` says which it was.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_IS_CHECKOUT: Final = (_CHECKOUT / "gunicorn.conf.py").is_file()
"""seen once: a user whom root becomes may not be able to look there"""
_LONGEST_LIST: Final = 100
_NETWORKS: Final = "addresses and networks, as 10.0.0.0/8, or unix for those that come by a Unix socket"
_EACH_HOST: Final = "host"
"""a value of ASR_STORE_POINTERS: a folder of this host's name"""


class SettingError(ValueError):
    """A setting is wrong; the message names variable, value, origin and what would be right."""

    exit_code: Final = 78  # EX_CONFIG of sysexits.h


def _state_folder(environ: Mapping[str, str]) -> Path:
    """Where state lives by default: beside a checkout's code, else where XDG says."""
    if _IS_CHECKOUT:
        return _CHECKOUT / "var"
    home = Path(environ.get("HOME") or "/")
    return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "asrsvc"


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, cut down by a cgroup v2 CPU quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: the affinity alone counts
    return cores


def usable_memory() -> int:
    """Bytes of memory that this machine has, cut down by a cgroup v2 limit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            memory = min(memory, int(limit))
    except (OSError, ValueError):
        pass  # as above
    return memory


_WORKER_BYTES: Final = 768 * 2**20
"""of a worker with the published SenseVoiceSmall and no faster twin, after spans of half a minute"""
_REST_BYTES: Final = 2**30
"""of everything else"""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cores are shared out."""

    workers: int
    threads: int
    """inference threads of each worker"""
    reason: str
    """a sentence"""


def share_out(cores: int, memory: int, workers: int | None = None, threads: int | None = None) -> Layout:
    """Choose workers and threads.

    Workers of one thread each make the most of the cores (docs/performance.md): threads wait for each other.
    Where there is no memory for so many, or the operator wants fewer, each has more threads.

    Args:
        cores: to be used.
        memory: bytes; there must be some left for one worker more, during a roll.
        workers: wished for; None: not said.
        threads: wished for; None: not said.
    """
    if workers is not None:
        chosen, why = workers, f"{workers} as ASR_WORKERS says"
    else:
        room = max(1, (memory - _REST_BYTES) // _WORKER_BYTES - 1)
        most = max(1, cores // (threads or 1))
        has = f"{memory / 2**30:.1f} GiB of memory"
        if most <= room:
            chosen = most
            why = f"as many as {cores} cores have room for, and {has} is enough"
        else:
            # Of the numbers that there is memory for, the largest of those that leave the fewest cores idle.
            chosen = max(range(1, room + 1), key=lambda count: (cores // count * count, count))
            why = f"{has} is enough for {room}, of {_WORKER_BYTES // 2**20} MiB each; there are {cores} cores"
    each = threads if threads is not None else max(1, cores // chosen)
    how = "as ASR_THREADS says" if threads is not None else f"{cores} cores for {chosen} workers"
    text = f"{chosen} workers ({why}) of {each} inference threads ({how})"
    if chosen * each > cores:
        text += f"; that is more than the {cores} cores"
    return Layout(chosen, each, text)


# Parsers: text in, value out; a ValueError says what would be right.


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return value

    return parse


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ValueError("a share from 0 to 1")
    return value


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 1 <= value <= 1000:
        raise ValueError("a factor from 1 to 1000")
    return value


def _auto_or(parse_value: Callable[[str], int]) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        if text == "auto":
            return None
        try:
            return parse_value(text)
        except ValueError as error:
            raise ValueError(f"auto, or {error}") from None

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError("one of " + ", ".join(names))
        return text

    return parse


def _absolute_path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path")
    return path


def _pointers(text: str) -> Path:
    return Path(_EACH_HOST) if text == _EACH_HOST else _absolute_path(text)


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]{16,256}|", text):
        raise ValueError("16 to 256 characters of ASCII, without spaces")
    return text


def _optional_path(text: str) -> Path | None:
    return _absolute_path(text) if text else None


def _yes_or_no(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise ValueError("yes or no")
    return text == "yes"


def _list_of(pattern: str, right: str) -> Callable[[str], tuple[str, ...]]:
    """Items between commas, in lower case, none twice."""

    def parse(text: str) -> tuple[str, ...]:
        items = [item.strip().lower() for item in text.split(",")] if text.strip() else []
        if len(items) > _LONGEST_LIST or not all(re.fullmatch(pattern, item) for item in items):
            raise ValueError(f"{right.removesuffix(',')}, with commas between, {_LONGEST_LIST} at most,")
        return tuple(dict.fromkeys(items))

    return parse


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454, section 6.2): what would equal none of those is refused."""
    items = _list_of(r"[^,]+", "origins, as https://app.example.org,")(text)
    for item in items:
        if item != "*":
            _check_origin(item)
    return items


def _check_origin(item: str) -> None:
    """Raise a ValueError where no browser or application would send this origin."""
    scheme, separator, rest = item.partition("://")
    if item == "null":
        raise ValueError("'null' is sent by pages of anybody: an origin with a name, as app://obsidian.md,")
    if re.search(r"\s", item):
        raise ValueError(f"{item!r} has a blank in it: origins with commas between,")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        named = item.partition("://")[2] or item
        raise ValueError(f"{item!r} has no scheme: https://{named}, or another scheme,")
    if "*" in rest:
        raise ValueError(f"{item!r} would match nothing: each origin by its whole name, or * alone for all,")
    if scheme in _SCHEMES_WITHOUT_PAGES:
        raise ValueError(f"{item!r} is the origin of no page: http{'s' * (scheme == 'wss')}://{rest}")
    found = re.fullmatch(r"([^/?#@\\]*?)(?::(\d*))?", rest)
    if found is None:
        host = re.split(r"[/?#\\]", rest.rpartition("@")[2])[0] or "host"
        raise ValueError(f"{item!r} is more than scheme, host and port: {scheme}://{host}")
    _check_host(item, scheme, found[1], found[2])


def _check_host(item: str, scheme: str, host: str, port: str | None) -> None:
    default = _DEFAULT_PORTS.get(scheme)
    if bool(host) == (scheme == "file"):
        right = "file://" if scheme == "file" else f"{scheme}://host"
        raise ValueError(f"{item!r} is sent by nobody: {right}")
    if not host.isascii():
        raise ValueError(f"{item!r} is sent in Punycode: {scheme}://{_punycode(host)}")
    if port is not None and (not port or port == default or not 0 < int(port) <= 65535):
        raise ValueError(
            f"{item!r} has a port that browsers do not send: {scheme}://{host}, or another port,"
        )
    if default and host != _web_host(host):
        raise ValueError(f"{item!r} is sent in another form: {scheme}://{_web_host(host) or 'host'}")


_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_SCHEMES_WITHOUT_PAGES: Final = ("ws", "wss")


def _punycode(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return "a name in ASCII"


def _web_host(host: str) -> str:
    """How browsers write this host of a web page; empty: it can be none (WHATWG URL, section 3.5)."""
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
        if host.rstrip(".").rpartition(".")[2].isdecimal():
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        return ""
    return host if re.fullmatch(r"[a-z0-9_.-]+", host) else ""


def _networks(text: str) -> tuple[str, ...]:
    items = _list_of(r"unix|[0-9a-f.:/]+", _NETWORKS)(text)
    try:
        for item in items:
            if item != "unix":
                ipaddress.ip_network(item)
    except ValueError:
        raise ValueError(_NETWORKS) from None
    return items


def is_public(address: str) -> bool:
    """Whether other machines may reach a listener there: all but Unix sockets and loopback addresses."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name: nobody asks here what it stands for


def _address(text: str) -> str:
    if text.startswith("unix:/") and len(text) > len("unix:/"):
        return text
    host, separator, port = text.rpartition(":")
    right = "host:port with a port from 1 to 65535, or unix:/path"
    if not separator or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(right)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(right + "; an IPv6 host stands in brackets")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", text):
        raise ValueError("cpu, cuda or cuda:N")
    return text


_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_URL_HOST: Final = re.compile(
    r"(https?://)?(?P<host>\*|(\*\.)?(?=[^:]{1,253}(:|$))"
    rf"{_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:(?P<port>\d{{1,5}}))?"
)
_OLD_ADDRESS: Final = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")


def _url_hosts(text: str) -> tuple[str, ...]:
    """Hosts that may be asked, as `asrsvc.remote.hosts` reads them."""
    right = (
        "names, as media.example.org, *.example.org, * or http://host:8080, and addresses or networks, as"
        " 10.0.0.7, 10.0.0.0/8 or [fd00::7]:8443, with commas between"
    )
    items = [item.strip().lower() for item in text.split(",")] if text.strip() else []
    if len(items) > _LONGEST_LIST or not all(_is_url_host(item) for item in items):
        raise ValueError(right)
    return tuple(dict.fromkeys(items))


def _is_url_host(item: str) -> bool:
    try:
        ipaddress.ip_network(item)
    except ValueError:
        pass
    else:
        return True
    found = _URL_HOST.fullmatch(item)
    if found is None or (found["port"] is not None and not 1 <= int(found["port"]) <= 65535):
        return False
    host = found["host"]
    if not host.startswith("[") and not _OLD_ADDRESS.fullmatch(host):
        return True
    try:
        kind = ipaddress.IPv6Address if host.startswith("[") else ipaddress.IPv4Address
        kind(host.strip("[]"))
    except ValueError:
        return False
    return True


def _secrets(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(",")) if text.strip() else ()
    if len(items) > 3 or not all(_is_secret(item) for item in items):
        raise ValueError(
            "whsec_ and 16 to 64 bytes in Base64, or 16 to 256 characters of ASCII without spaces and commas;"
            " up to three, with commas between,"
        )
    return items


def _is_secret(item: str) -> bool:
    if not item.startswith("whsec_"):
        return re.fullmatch(r"[!-+\--~]{16,256}", item) is not None
    try:
        return 16 <= len(base64.b64decode(item.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def _model_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", name) for name in names):
        raise ValueError("names of letters, digits and . _ : / -, with commas between them")
    return names


def _endpoint(text: str) -> str:
    loopback = r"http://(localhost|127(\.\d{1,3}){3}|\[::1\])"
    if not re.fullmatch(rf"(https://[^/?#@\s]+|{loopback}(:\d{{1,5}})?)(/[^?#@\s]*)?", text):
        raise ValueError("https://host[/path] (http:// for this machine itself)")
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: what it is called outside, and how its text becomes a value."""

    name: str
    default: str
    unit: str
    meaning: str
    parse: Callable[[str], Any]


def _setting(name: str, default: str, unit: str, meaning: str, parse: Callable[[str], Any]) -> Any:
    return field(metadata={"setting": Setting(name, default, unit, meaning, parse)})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings in force; made by `load`."""

    bind: str = _setting("ASR_BIND", "127.0.0.1:7860", "address", "where the API listens", _address)
    store: Path = _setting(
        "ASR_STORE", "{state}/store", "path", "model versions and their pointers", _absolute_path
    )
    store_pointers: Path = _setting(
        "ASR_STORE_POINTERS",
        "{store}",
        "path",
        "this host's pointers, where hosts share a store: host, or a folder below $ASR_STORE/pointers",
        _pointers,
    )
    runtime_dir: Path = _setting(
        "ASR_RUNTIME_DIR", "{state}/run", "path", "files of the running service", _absolute_path
    )
    state_dir: Path = _setting(
        "ASR_STATE_DIR",
        "{state}/state",
        "path",
        "what must outlive a restart: the jobs; on a local disk",
        _absolute_path,
    )
    ops_bind: str = _setting(
        "ASR_OPS_BIND",
        "unix:{runtime}/ops.sock",
        "address",
        "where health and administration listen, apart from the API",
        _address,
    )
    admin_token: str = _setting(
        "ASR_ADMIN_TOKEN",
        "",
        "text",
        "lets /admin be used at ASR_BIND too (Authorization: Bearer …); none: at ASR_OPS_BIND alone",
        _token,
    )
    model_aliases: tuple[str, ...] = _setting(
        "ASR_MODEL_ALIASES",
        "gpt-transcribe,whisper-1,gpt-4o-transcribe,gpt-4o-mini-transcribe,"
        "gpt-4o-mini-transcribe-2025-12-15,gpt-4o-transcribe-diarize",
        "names",
        "that clients of /v1 may give the version that serves, beside its own name and id",
        _model_names,
    )
    api_keys: Path | None = _setting(
        "ASR_API_KEYS",
        "",
        "path",
        "file of API keys, made by bin/api-keys; none: whoever reaches ASR_BIND is served",
        _optional_path,
    )
    public_without_keys: bool = _setting(
        "ASR_PUBLIC_WITHOUT_KEYS",
        "no",
        "word",
        "yes: listen where other machines reach it without ASR_API_KEYS (at ASR_OPS_BIND: without"
        " ASR_ADMIN_TOKEN)",
        _yes_or_no,
    )
    client_rate: int = _setting(
        "ASR_CLIENT_RATE",
        "0",
        "requests",
        "that bring work, a minute, from one client: a key without a rate of its own, or an address; 0: any",
        _integer(0, 1_000_000),
    )
    client_concurrency: int | None = _setting(
        "ASR_CLIENT_CONCURRENCY",
        "auto",
        "requests",
        "that bring work, arriving, waiting or in hand, of one client at the same time; auto or 0: any, and"
        " clients take turns while others wait too",
        _auto_or(_integer(0, 100_000)),
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "ASR_TRUSTED_PROXIES",
        "",
        "addresses",
        "proxies whose X-Forwarded-For says who the client is: addresses, networks, or unix",
        _networks,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "ASR_ALLOWED_HOSTS",
        "",
        "names",
        "names that this machine is asked by, beside localhost and addresses, where no key is needed",
        _list_of(r"[a-z0-9_]([a-z0-9_.-]{0,250}[a-z0-9_])?", "names without a port"),
    )
    cors_origins: tuple[str, ...] = _setting(
        "ASR_CORS_ORIGINS",
        "",
        "origins",
        "pages of other sites, and applications, that may use the API, as https://app.example.org or"
        " app://obsidian.md; *: all",
        _origins,
    )
    workers: int | None = _setting(
        "ASR_WORKERS",
        "auto",
        "processes",
        "worker processes; auto: one for each core, as far as there is memory",
        _auto_or(_integer(1, 256)),
    )
    threads: int | None = _setting(
        "ASR_THREADS",
        "auto",
        "threads",
        "inference threads of a worker; auto: the cores divided by the workers",
        _auto_or(_integer(1, 256)),
    )
    batch_size: int = _setting(
        "ASR_BATCH_SIZE",
        "1",
        "spans",
        "spans in one run of the engine, at most; above 1 a result may depend on its company",
        _integer(1, 64),
    )
    device: str = _setting(
        "ASR_DEVICE", "cpu", "device", "what the engine runs on: cpu, cuda, cuda:N", _device
    )
    bake: str = _setting(
        "ASR_BAKE",
        "auto",
        "name",
        "faster twins of versions: auto, uint8: none of int8, off: published files are served as they are",
        _one_of("auto", "uint8", "off"),
    )
    max_upload_mb: int = _setting(
        "ASR_MAX_UPLOAD_MB", "512", "MiB", "size of a request body, at most", _integer(1, 65536)
    )
    max_audio_seconds: float = _setting(
        "ASR_MAX_AUDIO_SECONDS",
        "14400",
        "seconds",
        "length of a recording, at most",
        _seconds(1, 360_000),
    )
    incomplete: str = _setting(
        "ASR_INCOMPLETE",
        "transcribe",
        "name",
        "a recording of which parts are missing, where its request does not say: transcribe what is there,"
        " with a warning, or refuse it",
        _one_of("transcribe", "refuse"),
    )
    queue_limit: int = _setting(
        "ASR_QUEUE_LIMIT",
        "100",
        "requests",
        "short requests, and long ones, of one client that may wait; of all clients together twice as many;"
        " more are answered 429",
        _integer(1, 10_000),
    )
    queue_timeout: float = _setting(
        "ASR_QUEUE_TIMEOUT",
        "300",
        "seconds",
        "wait for a free slot, at most; then the answer is 503",
        _seconds(0.1, 3600),
    )
    header_timeout: float = _setting(
        "ASR_HEADER_TIMEOUT",
        "10",
        "seconds",
        "time for a request's header to arrive whole",
        _seconds(0.1, 3600),
    )
    body_timeout: float = _setting(
        "ASR_BODY_TIMEOUT",
        "300",
        "seconds",
        "time for a request body to arrive whole; then the answer is 408",
        _seconds(0.1, 86_400),
    )
    body_idle_timeout: float = _setting(
        "ASR_BODY_IDLE_TIMEOUT",
        "30",
        "seconds",
        "silence in the middle of a request body, at most; then the answer is 408",
        _seconds(0.1, 3600),
    )
    body_least_rate: int = _setting(
        "ASR_BODY_LEAST_RATE",
        "1024",
        "bytes a second",
        "that a request body comes with, at least, on average over ASR_BODY_IDLE_TIMEOUT; then the answer is"
        " 408; 0: any",
        _integer(0, 10_000_000),
    )
    decode_timeout: float = _setting(
        "ASR_DECODE_TIMEOUT",
        "60",
        "seconds",
        "time to decode one block of audio (10 s of sound), at most",
        _seconds(0.1, 3600),
    )
    decode_memory_mb: int = _setting(
        "ASR_DECODE_MEMORY_MB",
        "1024",
        "MiB",
        "address space of a helper process that decodes, beyond what it starts with",
        _integer(64, 65536),
    )
    spool_dir: Path = _setting(
        "ASR_SPOOL_DIR", "{tmp}", "path", "folder of temporary files for uploads", _absolute_path
    )
    spool_mb: int | None = _setting(
        "ASR_SPOOL_MB",
        "auto",
        "MiB",
        "on disk, of uploads that arrive, wait or are worked on, of all workers; one client may have four"
        " fifths of what is free; auto: what the disk of ASR_SPOOL_DIR has",
        _auto_or(_integer(1, 16_777_216)),
    )
    jobs_running: int | None = _setting(
        "ASR_JOBS_RUNNING",
        "auto",
        "jobs",
        "jobs that are worked on at the same time; auto: as many as workers",
        _auto_or(_integer(1, 1000)),
    )
    jobs_kept: int = _setting(
        "ASR_JOBS_KEPT",
        "1000",
        "jobs",
        "jobs that are kept, ended ones included; more are answered 429",
        _integer(1, 100_000),
    )
    jobs_per_client: int = _setting(
        "ASR_JOBS_PER_CLIENT",
        "200",
        "jobs",
        "of these, jobs of one key, or of all who have none; more are answered 429",
        _integer(1, 100_000),
    )
    jobs_disk_mb: int = _setting(
        "ASR_JOBS_DISK_MB",
        "20480",
        "MiB",
        "uploads of jobs that have not ended, and results; more is answered 507",
        _integer(1, 2**30),
    )
    jobs_keep_seconds: float = _setting(
        "ASR_JOBS_KEEP_SECONDS",
        "86400",
        "seconds",
        "from the end of a job until it is forgotten, with its result",
        _seconds(1, 31_536_000),
    )
    jobs_attempts: int = _setting(
        "ASR_JOBS_ATTEMPTS",
        "3",
        "times",
        "a job is given up when so many workers in a row died of it without any progress",
        _integer(1, 100),
    )
    url_hosts: tuple[str, ...] = _setting(
        "ASR_URL_HOSTS",
        "",
        "hosts",
        "hosts that recordings may be fetched from (url) and that may be told of jobs (webhook); none: none",
        _url_hosts,
    )
    webhook_secret: tuple[str, ...] = _setting(
        "ASR_WEBHOOK_SECRET",
        "",
        "text",
        "what webhooks are signed with, as whsec_…; while it is changed, the new one and the old one",
        _secrets,
    )
    webhook_timeout: float = _setting(
        "ASR_WEBHOOK_TIMEOUT",
        "15",
        "seconds",
        "for a webhook's receiver to answer, at most",
        _seconds(0.1, 300),
    )
    webhook_seconds: float = _setting(
        "ASR_WEBHOOK_SECONDS",
        "43200",
        "seconds",
        "from the end of a job, in which its webhook is tried again; not beyond ASR_JOBS_KEEP_SECONDS",
        _seconds(0, 31_536_000),
    )
    ready_timeout: float = _setting(
        "ASR_READY_TIMEOUT", "120", "seconds", "time for a worker to load, at most", _seconds(1, 3600)
    )
    heartbeat_timeout: float = _setting(
        "ASR_HEARTBEAT_TIMEOUT",
        "30",
        "seconds",
        "a worker without a heartbeat for so long is ended",
        _seconds(2, 3600),
    )
    drain_timeout: float = _setting(
        "ASR_DRAIN_TIMEOUT",
        "600",
        "seconds",
        "time for a leaving worker to finish what it began, at most",
        _seconds(1, 86_400),
    )
    max_draining: int | None = _setting(
        "ASR_MAX_DRAINING",
        "auto",
        "processes",
        "leaving workers at the same time, at most; auto: as many as workers",
        _auto_or(_integer(1, 256)),
    )
    soak_seconds: float = _setting(
        "ASR_SOAK_SECONDS",
        "10",
        "seconds",
        "the first worker of a new version serves beside the old ones, at most",
        _seconds(0, 86_400),
    )
    soak_requests: int = _setting(
        "ASR_SOAK_REQUESTS",
        "50",
        "requests",
        "answered by the first worker of a new version that end its soak early",
        _integer(1, 1_000_000),
    )
    soak_min_samples: int = _setting(
        "ASR_SOAK_MIN_SAMPLES",
        "20",
        "requests",
        "needed on both sides before a soak compares them; twice as many to call a version slow",
        _integer(1, 1_000_000),
    )
    soak_max_errors: float = _setting(
        "ASR_SOAK_MAX_ERRORS",
        "0.05",
        "share",
        "of answers that are errors, above that of the old version",
        _share,
    )
    soak_max_empty: float = _setting(
        "ASR_SOAK_MAX_EMPTY",
        "0.2",
        "share",
        "of answers without text, above that of the old version",
        _share,
    )
    soak_max_slowdown: float = _setting(
        "ASR_SOAK_MAX_SLOWDOWN",
        "3",
        "times",
        "CPU time of the engine for a second of sound, against the old version",
        _factor,
    )
    worker_max_requests: int = _setting(
        "ASR_WORKER_MAX_REQUESTS",
        "0",
        "requests",
        "after which a worker is replaced; 0: never",
        _integer(0, 1_000_000_000),
    )
    worker_max_memory: int = _setting(
        "ASR_WORKER_MAX_MEMORY",
        "0",
        "MiB",
        "of anonymous memory at which a worker is replaced; 0: never",
        _integer(0, 1_048_576),
    )
    modelscope_endpoint: str = _setting(
        "ASR_MODELSCOPE_ENDPOINT",
        "https://www.modelscope.cn",
        "address",
        "where `swap-model pull modelscope:…` asks",
        _endpoint,
    )
    hf_endpoint: str = _setting(
        "ASR_HF_ENDPOINT",
        "{hf}",
        "address",
        "where `swap-model pull hf:…` asks, for a mirror of Hugging Face",
        _endpoint,
    )
    log_format: str = _setting(
        "ASR_LOG_FORMAT",
        "auto",
        "name",
        "json, text, or auto: text on a terminal, else json",
        _one_of("auto", "json", "text"),
    )
    log_level: str = _setting(
        "ASR_LOG_LEVEL",
        "info",
        "name",
        "least severe level that is logged",
        _one_of("debug", "info", "warning", "error"),
    )
    origin: Mapping[str, str] = field(default_factory=dict)
    """setting name → command line, environment, file or default"""

    def worker_count(self) -> int:
        """How many workers to run, `auto` resolved for this machine."""
        return self.layout().workers

    def layout(self) -> Layout:
        """Workers and threads, `auto` resolved for this machine, and why."""
        return share_out(usable_cores(), usable_memory(), self.workers, self.threads)

    def bake_mode(self) -> Literal["auto", "uint8", "off"]:
        """What twins are made and served, for this device: they are for CPUs alone."""
        if self.device != "cpu" or self.bake == "off":
            return "off"
        return "uint8" if self.bake == "uint8" else "auto"

    def refuses_incomplete(self) -> bool:
        """Whether a recording of which parts are missing is refused where its request does not say."""
        return self.incomplete == "refuse"

    def draining_count(self) -> int:
        """How many workers may drain at the same time, `auto` resolved."""
        return self.max_draining if self.max_draining is not None else self.worker_count()

    def running_jobs(self) -> int:
        """How many jobs may be worked on at the same time, `auto` resolved."""
        return self.jobs_running if self.jobs_running is not None else self.worker_count()

    def thread_count(self) -> int:
        """How many inference threads a worker uses, `auto` resolved for this machine."""
        return self.layout().threads


CONFIG_VARIABLE: Final = "ASR_CONFIG"
_MOST_CONFIG_BYTES: Final = 2**20


def declared() -> tuple[tuple[str, Setting], ...]:
    """Every setting with the name of its field, in the order of declaration."""
    return tuple((f.name, f.metadata["setting"]) for f in fields(Settings) if "setting" in f.metadata)


def load(overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read all settings.

    Args:
        overrides: values from the command line, by setting name (`ASR_BIND`).
        environ: the environment; the process's own by default.

    Raises:
        SettingError: a value is wrong, a name is unknown, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    known = {setting.name for _, setting in declared()}
    layers: list[tuple[str, Mapping[str, str]]] = [
        ("command line", overrides or {}),
        ("environment", {k: v for k, v in environ.items() if k.startswith("ASR_") and v != ""}),
    ]
    config = environ.get(CONFIG_VARIABLE)
    if config:
        layers.append((f"file {config}", _read_file(Path(config))))
    for where, layer in layers:
        # Other ASR_ names may belong to other programs of the environment: only what was
        # written for this service alone must be known.
        unknown = sorted(set(layer) - known) if where != "environment" else []
        if unknown:
            raise SettingError(f"{unknown[0]} ({where}) is not a setting; see bin/serve --check")
    places = _places(environ)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for attribute, setting in declared():
        where, text = next(
            ((w, layer[setting.name]) for w, layer in layers if setting.name in layer),
            ("default", setting.default.format_map(places)),
        )
        values[attribute] = _parse(setting, text, where)
        origin[setting.name] = where
        places["runtime"] = str(values.get("runtime_dir", ""))
        places["store"] = str(values.get("store", ""))
    values["store_pointers"] = _pointers_folder(values["store"], values["store_pointers"])
    loaded = Settings(**values, origin=MappingProxyType(origin))
    _refuse_open_door(loaded)
    return loaded


def _refuse_open_door(loaded: Settings) -> None:
    """What other machines reach needs keys, or somebody who says that it needs none.

    Raises:
        SettingError: it has neither.
    """
    if loaded.public_without_keys:
        return
    said = "or say ASR_PUBLIC_WITHOUT_KEYS=yes if everybody there may use it"
    if is_public(loaded.bind) and loaded.api_keys is None:
        raise SettingError(
            f"ASR_BIND={loaded.bind} ({loaded.origin['ASR_BIND']}) can be reached from other machines, and"
            f" ASR_API_KEYS names no keys: make one (bin/api-keys --help), {said}"
        )
    if is_public(loaded.ops_bind) and not loaded.admin_token:
        raise SettingError(
            f"ASR_OPS_BIND={loaded.ops_bind} ({loaded.origin['ASR_OPS_BIND']}) can be reached from other"
            f" machines, and there is no ASR_ADMIN_TOKEN: set one, {said}"
        )


def environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """The environment with which another program loads the same settings, in any folder.

    Args:
        overrides: values from the command line, by setting name; they win there too.
    """
    environ = {**os.environ, **overrides}
    if environ.get(CONFIG_VARIABLE):
        environ[CONFIG_VARIABLE] = str(Path(environ[CONFIG_VARIABLE]).absolute())
    return environ


def value(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """One setting alone, whatever is wrong with the others; the file is read only if need be.

    Args:
        name: as `ASR_STORE`.
        environ: the environment; the process's own by default.

    Raises:
        SettingError: the value is wrong, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    found = _value(name, environ)
    return _pointers_folder(_value("ASR_STORE", environ), found) if name == "ASR_STORE_POINTERS" else found


def _value(name: str, environ: Mapping[str, str]) -> Any:
    setting = next(setting for _, setting in declared() if setting.name == name)
    config = environ.get(CONFIG_VARIABLE)
    if environ.get(name):
        return _parse(setting, environ[name], "environment")
    in_file = _read_file(Path(config)) if config else {}
    if name in in_file:
        return _parse(setting, in_file[name], f"file {config}")
    places = _places(environ)
    if "{store}" in setting.default:
        places["store"] = str(_value("ASR_STORE", environ))
    return _parse(setting, setting.default.format_map(places), "default")


def _pointers_folder(store: Path, chosen: Path) -> Path:
    """Where a host's pointers are.

    Raises:
        SettingError: in no place where other hosts would see what this one needs.
    """
    shared = store / "pointers"
    if chosen == Path(_EACH_HOST):
        return shared / socket.gethostname()
    if chosen != store and (chosen.parent != shared or chosen.name == ".."):
        raise SettingError(
            f"ASR_STORE_POINTERS={str(chosen)!r} is wrong: host, or a folder in {shared} is right: there the"
            " other hosts see which versions this one needs"
        )
    return chosen


def config_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that ASR_CONFIG names, if it names one."""
    found = (os.environ if environ is None else environ).get(CONFIG_VARIABLE)
    return Path(found).absolute() if found else None


def belong_to(user: str, home: str) -> None:
    """Have the environment be that of another user, whom this process has become; the settings stay the same.

    Args:
        user: its name.
        home: its folder.
    """
    if former := os.environ.get("HOME"):  # where the folders of a wheel are by default
        os.environ.setdefault("XDG_STATE_HOME", str(Path(former) / ".local" / "state"))
    os.environ |= {"HOME": home, "USER": user, "LOGNAME": user}
    temporary = os.environ.get("TMPDIR")
    if temporary and not os.access(temporary, os.W_OK | os.X_OK):  # root's own, as pam_tmpdir(8) makes it
        del os.environ["TMPDIR"]


def behind_sudo() -> str:
    """Who has become another user with sudo for this command; empty: nobody; sudo(8)."""
    return os.environ.get("SUDO_USER", "")


def _places(environ: Mapping[str, str]) -> dict[str, str]:
    """What stands in braces in a default."""
    return {
        "state": str(_state_folder(environ)),
        "tmp": environ.get("TMPDIR") or "/tmp",  # noqa: S108 - files there have no name
        "hf": environ.get("HF_ENDPOINT") or "https://huggingface.co",
        "runtime": environ.get("ASR_RUNTIME_DIR") or str(_state_folder(environ) / "run"),
    }


def _parse(setting: Setting, text: str, where: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        raise SettingError(f"{setting.name}={text!r} ({where}) is wrong: {error} is right") from None


def systemd_environment() -> dict[str, str]:
    """What systemd says of the socket for notifications and of its watchdog; sd_notify(3)."""
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: os.environ[name] for name in names if name in os.environ}


def take_systemd_environment() -> dict[str, str]:
    """The same, taken out of the environment, so that no child process speaks to systemd."""
    found = systemd_environment()
    for name in found:
        del os.environ[name]
    return found


def listener_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What systemd calls the listeners that it passes, in their order; sd_listen_fds(3)."""
    found = (os.environ if environ is None else environ).get("LISTEN_FDNAMES", "")
    return tuple(found.split(":")) if found else ()


INHERITANCE_VARIABLE: Final = "ASRSVC_INHERITANCE"
"""set by a master for the one that it starts on SIGUSR2; not a setting"""


def inheritance_text() -> str | None:
    """What the master that started this one on SIGUSR2 has handed down."""
    return os.environ.get(INHERITANCE_VARIABLE) if "GUNICORN_PID" in os.environ else None


def forget_inheritance() -> None:
    """This process is the only master now: what it starts is not to take it for another's child."""
    for name in ("GUNICORN_PID", INHERITANCE_VARIABLE):
        os.environ.pop(name, None)


def announce_metric_folder(folder: Path) -> None:
    """Say where metrics are kept, in the only way that prometheus_client listens to."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _read_file(path: Path) -> dict[str, str]:
    try:
        # A pipe that somebody has put there is not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as reader:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
                raise OSError("it is no plain file")
            content = reader.read(_MOST_CONFIG_BYTES + 1)
        if len(content) > _MOST_CONFIG_BYTES:
            raise OSError(f"it has more than {_MOST_CONFIG_BYTES} bytes")
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{CONFIG_VARIABLE}={str(path)!r} cannot be read: {error}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, value = stripped.partition("=")
        if not separator:
            raise SettingError(f"{path}:{number}: {stripped!r} is wrong: NAME=value is right")
        values[name.strip()] = value.strip().strip("\"'")
    return values


def _shown(value: Any) -> str:
    """A value as it would be written."""
    match value:
        case None:
            return "auto"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case tuple():
            return ",".join(value) or "none"
        case _:
            return str(value)


def report(settings: Settings) -> str:
    """One line for each setting: name, value in force, unit, origin; then how the cores are shared out."""
    rows = []
    for attribute, setting in declared():
        value = getattr(settings, attribute)
        text = _shown(value)
        if setting.name == "ASR_API_KEYS" and value is None:
            text = "none"
        if setting.name in {"ASR_ADMIN_TOKEN", "ASR_WEBHOOK_SECRET"}:
            text = "set" if value else "none"  # what is printed may be kept in a log
        if setting.name == "ASR_WORKERS" and value is None:
            text = f"auto ({settings.worker_count()})"
        if setting.name == "ASR_JOBS_RUNNING" and value is None:
            text = f"auto ({settings.running_jobs()})"
        if setting.name == "ASR_THREADS" and value is None:
            text = f"auto ({settings.thread_count()})"
        rows.append((setting.name, text, setting.unit, settings.origin[setting.name], setting.meaning))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join([*lines, settings.layout().reason])
