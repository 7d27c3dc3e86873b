"""A hub on loopback that answers as ModelScope and as Hugging Face do, and fails as it is told to.

Two servers, as in reality: one for lists, headers and small files, one for the storage to which
large files are redirected. Every request is in `log`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from waiting import PATIENCE, wait_for

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 4096
"""from which on a file lives in the storage"""


@dataclass
class Fault:
    """What goes wrong with a request whose path contains `where`."""

    where: str
    times: int = 1_000_000
    status: int | None = None
    header: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """instead of the right one"""
    kind: str | None = None
    """the content type"""
    cut: int | None = None
    """bytes of the body, after which the connection is closed"""
    reset: bool = False
    """the connection is closed before the first byte of an answer"""
    silent: bool = False
    """nothing comes, and the connection stays open"""
    trickle: float | None = None
    """seconds between two bytes"""
    no_range: bool = False
    no_length: bool = False
    """the body ends with the connection, and nobody says how long it is"""
    hold: threading.Event | None = None
    """after `cut` bytes, instead of closing the connection, wait for this"""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    if_range: str | None
    storage: bool
    status: int


class Hub:
    """Repositories and plain files, served on two ports of 127.0.0.1."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.plain: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.listed: dict[str, bytes] = {}
        """what the lists and links say of a file, where it is not the truth; by file name"""
        self.strange_entries: list[dict[str, Any]] = []
        self.weak_etags = False
        self.without_digests = False
        self.commits = True
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.api = _serve(self, storage=False)
        self.storage = _serve(self, storage=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.server_port}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self.storage.server_port}"

    def fail(self, where: str, **how: Any) -> Fault:
        fault = Fault(where, **how)
        self.faults.append(fault)
        return fault

    def asked(self, part: str, *, storage: bool | None = None) -> list[Request]:
        return [r for r in self.log if part in r.path and storage in {None, r.storage}]

    def close(self) -> None:
        self._over.set()
        for fault in self.faults:
            if fault.hold is not None:
                fault.hold.set()
        for server in (self.api, self.storage):
            server.shutdown()
            server.server_close()

    def take_fault(self, path: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.where in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault("")

    def sleep(self, seconds: float) -> None:
        self._over.wait(seconds)

    def said(self, name: str, content: bytes) -> bytes:
        return self.listed.get(name, content)


def _serve(hub: Hub, *, storage: bool) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    Handler.hub, Handler.is_storage = hub, storage
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    is_storage: bool
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path)
        self._fault = self.hub.take_fault(("storage " if self.is_storage else "") + path)
        try:
            if self._fault.silent:
                self._note(0)
                self.hub.sleep(3 * PATIENCE)
            elif self._fault.reset:
                self._note(0)
            elif self._fault.status is not None or self._fault.body is not None:
                body = self._fault.body or b""
                self._send(self._fault.status or 200, body, self._fault.header)
            elif self.is_storage:
                self._blob()
            else:
                self._route(path)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if self._fault.silent or self._fault.reset or self._fault.cut is not None or self._fault.no_length:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _note(self, status: int) -> None:
        header = self.headers
        entry = Request(self.command, self.path, header["Range"], header["If-Range"], self.is_storage, status)
        self.hub.log.append(entry)

    def _route(self, path: str) -> None:
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        for pattern, handler in (
            (r"/api/v1/models/([^/]+/[^/]+)/repo/files", self._modelscope_list),
            (r"/api/v1/models/([^/]+/[^/]+)/repo", self._modelscope_file),
            (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self._hf_list),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._hf_file),
        ):
            match = re.fullmatch(pattern, parts.path)
            if match and match[1] in self.hub.repositories:
                handler(query, *match.groups())  # type: ignore[operator]
                return
        if parts.path in self.hub.plain:
            self._file(self.hub.plain[parts.path])
        else:
            self._send(404, b'{"error": "not found"}', {"Content-Type": "application/json"})

    def _modelscope_list(self, query: dict[str, str], repository: str) -> None:
        files = self.hub.repositories[repository]
        entries = [
            {
                "Path": name,
                "Name": name.rpartition("/")[2],
                "Type": "blob",
                "Size": len(self.hub.said(name, content)),
                "Sha256": "" if self.hub.without_digests else _sha256(self.hub.said(name, content)),
            }
            for name, content in sorted(files.items())
            if query.get("Recursive") == "True" or "/" not in name
        ]
        entries = (self.hub.strange_entries + entries)[:3000]
        self._json({"Code": 200, "Data": {"Files": entries}, "Success": True})

    def _modelscope_file(self, query: dict[str, str], repository: str) -> None:
        if self.command == "HEAD":
            self._send(404, b"", {})
            return
        self._repository_file(repository, query["FilePath"], {})

    def _hf_list(self, query: dict[str, str], repository: str, _revision: str) -> None:
        files = sorted(self.hub.repositories[repository].items())
        page = int(query.get("cursor", "0"))
        entries: list[dict[str, Any]] = []
        for name, real in files[page * 3 : page * 3 + 3]:
            content = self.hub.said(name, real)
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
            entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if len(content) >= LARGE_BYTES:
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        more = {}
        if len(files) > page * 3 + 3:  # a mirror passes the original's address on
            path = self.path.partition("?")[0]
            more["Link"] = f'<https://huggingface.co{path}?recursive=true&cursor={page + 1}>; rel="next"'
        self._json(entries, more)

    def _hf_file(self, _query: dict[str, str], repository: str, _revision: str, name: str) -> None:
        content = self.hub.repositories[repository].get(name)
        more = {"X-Repo-Commit": COMMIT} if self.hub.commits else {}
        if content is not None and len(content) >= LARGE_BYTES:
            more["X-Linked-Size"] = str(len(self.hub.said(name, content)))
        self._repository_file(repository, name, more)

    def _repository_file(self, repository: str, name: str, more: dict[str, str]) -> None:
        content = self.hub.repositories[repository].get(name)
        if content is None:
            self._send(404, b'{"error": "no such file"}', {**more, "Content-Type": "application/json"})
            return
        if len(content) < LARGE_BYTES:
            self._file(content, more)
            return
        if not self.hub.without_digests:
            more["X-Linked-Etag"] = f'"{_sha256(self.hub.said(name, content))}"'
        target = f"{self.hub.storage_url}/blob/{repository}/{name}?signature=secret"
        self._send(302, b"", {**more, "Location": target})

    def _blob(self) -> None:
        match = re.fullmatch(r"/blob/([^/]+/[^/]+)/(.+)", urlsplit(unquote(self.path)).path)
        assert match
        self._file(self.hub.repositories[match[1]][match[2]])

    def _file(self, content: bytes, more: dict[str, str] | None = None) -> None:
        etag = ("W/" if self.hub.weak_etags else "") + f'"{hashlib.md5(content).hexdigest()}"'
        more = {
            **(more or {}),
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        fresh = self.headers["If-Range"] in {None, etag}
        if wanted and fresh and not self._fault.no_range:
            first = int(wanted[1])
            if first >= len(content):
                self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206, content[first:], {**more, "Content-Range": span})
            return
        self._send(200, content, more)

    def _json(self, content: Any, more: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json", **(more or {})})

    def _send(self, status: int, body: bytes, header: dict[str, str]) -> None:
        fault = self._fault
        self._note(status)
        self.send_response(status)
        header = {**header, **fault.header}
        if fault.kind is not None:
            header["Content-Type"] = fault.kind
        if not fault.no_length:
            header.setdefault("Content-Length", str(len(body)))
        for name, value in header.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        body = body if fault.cut is None else body[: fault.cut]
        if fault.trickle is None:
            self.wfile.write(body)
        else:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                self.hub.sleep(fault.trickle)
        self.wfile.flush()
        if fault.hold is not None:
            fault.hold.wait(3 * PATIENCE)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what it is told; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            listener.settimeout(0.05)
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    continue
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join(PATIENCE)


def model_files(seed: str = "", *, size: int = 20_000) -> dict[str, bytes]:
    """The files of a model, as far as a store looks at them: one large, the others small."""
    weights = hashlib.shake_256(f"weights {seed}".encode()).digest(size)
    return {
        "model_quant.onnx": weights,
        "am.mvn": f"mvn {seed}".encode(),
        "config.yaml": f"config: {seed}\n".encode(),
        "tokens.json": json.dumps([seed, "a", "b"]).encode(),
        "some.bpe.model": hashlib.shake_256(f"bpe {seed}".encode()).digest(3000),
    }


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz of these files."""
    import io
    import tarfile

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def size_of(path: Path) -> int:
    """Bytes; 0 for one that has just been moved to its place."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_until(condition: Callable[[], object]) -> None:
    wait_for("what the hub or its client does", condition)
