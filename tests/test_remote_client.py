"""Fetching and calling over real sockets: what comes whole, and how other machines misbehave."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from machines import Authority, Machine, content, endless, machine, make_authority, redirect, silence
from waiting import PATIENCE

from asrsvc.errors import (
    AsrError,
    BadRequest,
    FetchFailed,
    FetchTimeout,
    NoSpace,
    TooLarge,
    UrlRefused,
)
from asrsvc.remote import connection
from asrsvc.remote.client import Client, FetchLimits, Reserve, no_reserve
from asrsvc.remote.hosts import HostList

MEDIA, OTHER = "media.example.org", "other.example.org"
SOUND = bytes(range(256)) * 5000
LIMIT = 2 * 2**20
SOON = 0.3
LATE = PATIENCE

T = TypeVar("T")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    connection._trust.cache_clear()
    yield
    connection._trust.cache_clear()


@pytest.fixture
def far(authority: Authority) -> Iterator[Machine]:
    with machine(authority) as made:
        yield made


class Names:
    """What names stand for; every question is noted."""

    def __init__(self, **stand_for: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._stand_for = {name: ["127.0.0.1"] for name in (MEDIA, OTHER, "localhost")}
        self._stand_for |= {name.replace("_", "."): list(found) for name, found in stand_for.items()}

    async def resolve(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._stand_for:
            raise OSError("no such name")
        return self._stand_for[host]


def client(*hosts: str, names: Names | None = None) -> Client:
    return Client(HostList.of(hosts), (names or Names()).resolve)


def near(far: Machine, *more: str, names: Names | None = None) -> Client:
    """A client that may ask this machine under the name of another, and knows its address."""
    return client(f"{MEDIA}:{far.port}", "127.0.0.1", *more, names=names)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(LATE):
            return await work

    return asyncio.run(bounded())


def fetch(
    client: Client,
    url: str,
    *,
    idle: float = LATE,
    seconds: float = LATE,
    most: int = LIMIT,
    reserve: Reserve = no_reserve,
) -> bytes:
    descriptor = os.memfd_create("fetched")
    try:
        limits = FetchLimits(most, idle, time.monotonic() + seconds)
        size = run(client.fetch(url, descriptor, limits, reserve=reserve))
        assert os.fstat(descriptor).st_size == size
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def failed(kind: type[AsrError], said: str, work: Callable[[], object]) -> AsrError:
    with pytest.raises(kind, match=said) as caught:
        work()
    assert type(caught.value) is kind
    assert "secret" not in caught.value.message
    return caught.value


def url(far: Machine, path: str) -> str:
    return far.url(path, MEDIA)


@pytest.mark.parametrize(
    ("kind", "length"),
    [("audio/flac", -1), ("video/mp4; codecs=x", None), ("Application/Octet-Stream", -1), (None, None)],
)
def test_a_file_comes_whole_with_and_without_a_length(
    far: Machine, kind: str | None, length: int | None
) -> None:
    far.answers["/a%20b?token=1"] = content(SOUND, kind, length=length)
    sizes: list[int] = []

    async def reserve(size: int) -> None:
        sizes.append(size)

    assert fetch(near(far), url(far, "/a b?token=1#x"), reserve=reserve) == SOUND
    (asked,) = far.asked
    assert asked.method == "GET"
    assert asked.headers["host"] == f"{MEDIA}:{far.port}"
    assert asked.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization"} & asked.headers.keys()
    assert sizes == [LIMIT if length is None else len(SOUND)]


def test_a_file_in_chunks_comes_whole(far: Machine) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (SOUND, b"end")) + b"0\r\n\r\n"
    far.answers["/a"] = content(chunks, length=None, more="Transfer-Encoding: chunked\r\n")
    assert fetch(near(far), url(far, "/a")) == SOUND + b"end"


def test_without_tls_a_host_is_asked_if_its_entry_says_so() -> None:
    with machine() as far:
        far.answers["/a"] = content(SOUND)
        plain = far.url("/a", MEDIA, "http")
        assert fetch(client(f"http://{MEDIA}:{far.port}", "127.0.0.1"), plain) == SOUND
        assert fetch(client(f"http://127.0.0.1:{far.port}"), far.url("/a", "127.0.0.1", "http")) == SOUND
        failed(UrlRefused, "none of the hosts", lambda: fetch(near(far), plain))
        assert far.connections == 2


def test_the_address_that_was_checked_is_the_one_that_is_asked(far: Machine) -> None:
    """The name stands for nothing in this machine's own DNS: nobody has asked there."""
    far.answers["/a"] = redirect(url(far, "/b"))
    far.answers["/b"] = content(SOUND)
    names = Names()
    assert fetch(near(far, names=names), url(far, "/a")) == SOUND
    assert names.asked == [MEDIA, MEDIA]  # once for each request


def test_the_next_address_is_tried_where_one_does_not_answer(far: Machine) -> None:
    far.answers["/a"] = content(SOUND)
    names = Names(media_example_org=["127.0.0.3", "127.0.0.2", "127.0.0.1"])
    reached = client(f"{MEDIA}:{far.port}", "127.0.0.0/8", names=names)
    assert fetch(reached, url(far, "/a")) == SOUND
    # One that may not be asked is left out.
    assert fetch(near(far, names=names), url(far, "/a")) == SOUND


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["10.0.0.1", "192.168.0.1"],
        ["169.254.169.254"],
        ["64:ff9b::7f00:1"],
    ],
)
def test_a_name_that_leads_inside_is_refused(far: Machine, addresses: list[str]) -> None:
    names = Names(media_example_org=addresses)
    error = failed(
        UrlRefused,
        "no public address",
        lambda: fetch(client(f"{MEDIA}:{far.port}", names=names), url(far, "/a")),
    )
    assert error.param == "url"
    assert error.status == 400
    assert not any(address in error.message for address in addresses)
    assert far.connections == 0


def test_loopback_is_refused_by_address_and_by_name(far: Machine) -> None:
    for listed in ("*", f"{MEDIA}:{far.port}"):
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            failed(
                UrlRefused,
                "none of the hosts|no public address",
                partial(fetch, client(listed), far.url("/a", host)),
            )
    assert far.connections == 0


def test_a_redirect_leads_no_farther_than_the_list(far: Machine, authority: Authority) -> None:
    with machine(authority) as other:
        other.answers["/a"] = content(SOUND)
        inside = Names(inside_example_org=["10.0.0.1"])
        listed = near(far, f"{OTHER}:{other.port}", "inside.example.org", names=inside)
        far.answers["/good"] = redirect(other.url("/a", OTHER), 307)
        assert fetch(listed, url(far, "/good")) == SOUND
        for number, location in enumerate(
            [
                other.url("/a", "localhost"),
                other.url("/a", MEDIA),
                "https://169.254.169.254/latest/meta-data",
                "https://inside.example.org/secret",
                "https://nobody.example.org/",
                f"http://{MEDIA}:{far.port}/a",
                "https://user:secret@media.example.org/",
                "file:///etc/passwd",
                "https://[",
            ]
        ):
            far.answers[f"/{number}"] = redirect(location)
            error = failed(
                UrlRefused, f"{MEDIA}.* redirects to where", partial(fetch, listed, url(far, f"/{number}"))
            )
            assert not re.search(r"169\.254|inside|nobody|localhost|passwd", error.message)
        assert len(other.asked) == 1


def test_redirects_end(far: Machine) -> None:
    for number in range(20):
        far.answers[f"/{number}"] = redirect(f"/{number + 1}")
    far.answers["/5"] = content(SOUND)
    assert fetch(near(far), url(far, "/0")) == SOUND
    failed(FetchFailed, "redirects more than 5 times", lambda: fetch(near(far), url(far, "/10")))
    assert len(far.asked) == 12


@pytest.mark.parametrize(
    "kind",
    ["text/html", "text/html; charset=utf-8", "application/json", "image/png", "application/xml", "nonsense"],
)
def test_what_is_no_recording_by_its_type_is_refused(far: Machine, kind: str) -> None:
    far.answers["/a"] = content(b"<html>secret</html>", kind)
    error = failed(FetchFailed, "audio, video or", lambda: fetch(near(far), url(far, "/a")))
    assert (error.code, error.status) == ("url_wrong_type", 422)


@pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 403, 404, 500, 503])
def test_what_is_not_there_is_said_with_its_status_and_nothing_else(far: Machine, status: int) -> None:
    far.answers["/a?secret"] = content(
        b"" if status in {204, 304} else b"a secret", status=f"{status} secret"
    )
    failed(FetchFailed, f"answers with status {status}", lambda: fetch(near(far), url(far, "/a?secret")))


def test_a_bomb_that_is_packed_is_not_unpacked(far: Machine) -> None:
    packed = gzip.compress(bytes(50 * 2**20))
    far.answers["/a"] = content(packed, more="Content-Encoding: gzip\r\n")
    failed(FetchFailed, "sends it packed", lambda: fetch(near(far), url(far, "/a")))
    far.answers["/b"] = content(packed)  # and where nobody says so, it is the file itself
    assert fetch(near(far), url(far, "/b")) == packed


def test_a_length_over_the_limit_is_refused_before_anything_comes(far: Machine) -> None:
    for length in (LIMIT + 1, 10**15):
        far.answers["/a"] = silence(content_head(length))
        error = failed(
            TooLarge, f"{length} bytes; the limit is 2 MiB", lambda: fetch(near(far), url(far, "/a"))
        )
        assert (error.status, error.param) == (413, "url")


def content_head(length: int | None) -> bytes:
    tail = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n" + tail + b"\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (content_head(None), bytes(65536)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
    ],
)
def test_what_never_ends_is_cut_at_the_limit(far: Machine, head: bytes, piece: bytes) -> None:
    far.answers["/a"] = endless(head, piece)
    failed(TooLarge, f"over {LIMIT} bytes", lambda: fetch(near(far), url(far, "/a")))


@pytest.mark.parametrize(
    "answer",
    [
        silence(),
        silence(b"HTTP/1.1 200 OK\r\n"),
        silence(content_head(1000)),
        silence(content_head(None) + bytes(1000)),
    ],
)
def test_silence_ends_a_fetch(far: Machine, answer: Any) -> None:
    far.answers["/a"] = answer
    error = failed(
        FetchTimeout,
        "said nothing for 0.3 s|does not answer",
        lambda: fetch(near(far), url(far, "/a"), idle=SOON),
    )
    assert (error.status, error.code, error.param) == (408, "url_timeout", "url")


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (content_head(None), b"a"),
        (content_head(10_000), b"a"),
    ],
)
def test_a_trickle_ends_with_the_time_for_the_whole(far: Machine, head: bytes, piece: bytes) -> None:
    far.answers["/a"] = endless(head, piece, 0.05)
    failed(
        FetchTimeout,
        "did not send all of the file in time",
        lambda: fetch(near(far), url(far, "/a"), seconds=1.0),
    )


def test_a_connection_that_is_never_answered_ends_too() -> None:
    with machine() as silent:  # it speaks no TLS, and waits for a request
        failed(
            FetchTimeout,
            "does not answer|said nothing",
            lambda: fetch(near(silent), url(silent, "/a"), idle=SOON),
        )


@pytest.mark.parametrize(
    "answer",
    [
        content(SOUND, length=len(SOUND) + 1),
        lambda _machine, _made: None,
        content(SOUND, more="Content-Length: 7\r\n"),
        content(b"5\r\nhell", length=None, more="Transfer-Encoding: chunked\r\n"),
        content(SOUND, length=None, more="Transfer-Encoding: gzip, chunked\r\n"),
        lambda _machine, made: made.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"),
        lambda _machine, made: made.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: secret\r\n" * 20_000),
    ],
)
def test_what_breaks_off_or_is_no_http_is_no_file(far: Machine, answer: Any) -> None:
    far.answers["/a"] = answer
    failed(
        FetchFailed,
        f"{MEDIA}:{far.port} broke off, or speaks no HTTP",
        lambda: fetch(near(far), url(far, "/a")),
    )


def test_who_is_not_trusted_is_not_asked(
    far: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers = Names(stranger_example_org=["127.0.0.1"])
    named = client(f"stranger.example.org:{far.port}", "127.0.0.1", names=strangers)
    failed(
        FetchFailed,
        "no certificate that is trusted",
        lambda: fetch(named, far.url("/a", "stranger.example.org")),
    )
    other = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
    connection._trust.cache_clear()
    failed(FetchFailed, "no certificate that is trusted", lambda: fetch(near(far), url(far, "/a")))
    assert far.asked == []


def test_without_certificates_of_the_system_certifi_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    connection._trust.cache_clear()
    context = connection._trust()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) > 50


def test_nobody_there_is_said() -> None:
    with socket.socket() as deaf:  # nobody else may listen there
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        refused = client(f"{MEDIA}:{port}", "127.0.0.1")
        failed(FetchFailed, "cannot be connected to", lambda: fetch(refused, f"https://{MEDIA}:{port}/"))
    nobody = client("nobody.example.org")
    failed(FetchFailed, "no host is called nobody", lambda: fetch(nobody, "https://nobody.example.org/"))


def test_proxies_of_the_environment_are_passed_by(far: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        far.answers["/a"] = content(SOUND)
        assert fetch(near(far), url(far, "/a")) == SOUND
        assert proxy.connections == 0


def test_a_full_disk_is_said(far: Machine) -> None:
    far.answers["/a"] = content(SOUND)
    limits = FetchLimits(LIMIT, LATE, time.monotonic() + LATE)
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        failed(
            NoSpace,
            "cannot be stored: No space",
            lambda: run(near(far).fetch(url(far, "/a"), descriptor, limits)),
        )
    finally:
        os.close(descriptor)


def test_where_there_is_no_room_nothing_is_taken(far: Machine) -> None:
    far.answers["/a"] = silence(content_head(1000))

    async def reserve(size: int) -> None:
        raise NoSpace(f"no room for {size} bytes")

    failed(NoSpace, "no room for 1000 bytes", lambda: fetch(near(far), url(far, "/a"), reserve=reserve))


def test_who_is_no_longer_waited_for_is_hung_up_on(far: Machine) -> None:
    far.answers["/a"] = endless(content_head(None), b"a", 0.01)

    async def leave() -> None:
        descriptor = os.memfd_create("left")
        limits = FetchLimits(LIMIT, LATE, time.monotonic() + LATE)
        task = asyncio.ensure_future(near(far).fetch(url(far, "/a"), descriptor, limits))
        while not far.asked:  # noqa: ASYNC110 - another thread
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        os.close(descriptor)
        assert task.cancelled()
        while not far.hung_up:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

    run(leave())


def post(client: Client, url: str, seconds: float = LATE) -> int:
    return run(client.post(url, {"webhook-id": "m"}, b"{}", seconds=seconds))


def test_a_call_is_answered_with_a_status_and_follows_no_redirect(far: Machine) -> None:
    far.answers["/b"] = content(b"")
    for status in (200, 204, 302, 307, 400, 410, 500):
        far.answers["/a"] = content(b"", status=f"{status} x", more=f"Location: {url(far, '/b')}\r\n")
        assert post(near(far), url(far, "/a")) == status
    assert far.of("/b") == []
    assert [(asked.method, asked.body, asked.headers["webhook-id"]) for asked in far.asked] == [
        ("POST", b"{}", "m")
    ] * 7


def test_of_an_answer_to_a_call_little_is_read(far: Machine) -> None:
    far.answers["/a"] = endless(content_head(None), bytes(65536))
    assert post(near(far), url(far, "/a")) == 200


@pytest.mark.parametrize(
    "answer", [silence(), silence(content_head(1000)), endless(content_head(None), b"a", 0.05)]
)
def test_a_call_that_hangs_ends(far: Machine, answer: Any) -> None:
    far.answers["/a"] = answer
    error = failed(
        FetchTimeout, "within 0.5 s|for 0.5 s|does not answer", lambda: post(near(far), url(far, "/a"), 0.5)
    )
    assert error.param == "webhook"


def test_calls_go_where_fetches_may_go(far: Machine) -> None:
    failed(UrlRefused, "webhook names", lambda: post(client("*"), far.url("/a")))
    failed(UrlRefused, "no public address", lambda: post(client(f"{MEDIA}:{far.port}"), url(far, "/a")))
    failed(BadRequest, "webhook has a user name", lambda: post(near(far), f"https://a:secret@{MEDIA}/"))
    assert far.connections == 0


def test_nothing_that_speaks_http_is_imported_before_it_is_needed() -> None:
    code = """
import sys
import asrsvc.remote.client, asrsvc.web.app
assert not {"httpcore", "httpx", "certifi", "h11"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
