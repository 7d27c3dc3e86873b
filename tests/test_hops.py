"""Where a hub may send a pull: real sockets, of which one stands for the internet, and one for the house."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, model_files, packed, raw_server, running_hub
from machines import Authority, content, machine, make_authority, redirect

from asrsvc.errors import DownloadFailed
from asrsvc.release import hops
from asrsvc.release.progress import Limits
from asrsvc.release.pull import pull
from asrsvc.release.sources import Endpoints
from asrsvc.release.store import Store, Version

FILES = model_files()
LIMITS = Limits(backoff_seconds=0.01, idle_seconds=20, seconds=120, tries=2)
FAR, NEAR = "127.0.0.1", "127.0.0.2"
MEDIA, OTHER = "media.example.org", "other.example.org"
NAMES = {MEDIA: FAR, OTHER: FAR, "inside.example.org": NEAR, "house.localhost": NEAR, "localhost": NEAR}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were asked for; they stand for addresses of this machine."""
    found: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        found.append(host)
        return real(NAMES.get(host, host), port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:  # noqa: ARG001 - for names
    """127.0.0.1 stands for a public address; all others of this machine are not."""
    monkeypatch.setattr(hops, "is_public", lambda address: str(address) == FAR)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        found.repositories["org/model"] = FILES
        yield found


@pytest.fixture
def near() -> Iterator[socket.socket]:
    """Somebody in the house, who is not to be asked."""
    with socket.create_server((NEAR, 0)) as listener:
        listener.setblocking(False)
        yield listener


def get(store: Store, source: str, hub: Hub | None = None) -> Version:
    endpoints = Endpoints(hub.url, hub.url) if hub is not None else Endpoints()
    return pull(store, source, endpoints=endpoints, limits=LIMITS, name="m")


def nobody_came(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


WAYS = [
    f"http://{NEAR}:{{port}}/x",
    f"https://{NEAR}:{{port}}/x",
    "http://localhost:{port}/x",
    "https://localhost:{port}/x",
    "https://house.localhost:{port}/x",
    "https://inside.example.org:{port}/x",
    "https://2130706434:{port}/x",
    "https://0x7f.0.0.2:{port}/x",
    "https://[::ffff:127.0.0.2]:{port}/x",
    "https://[::1]:{port}/x",
    "https://10.0.0.1/x",
    "https://192.168.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://[fe80::1]/x",
    "https://[fd00:ec2::254]/x",
    "https://0.0.0.0:{port}/x",
]


@pytest.mark.usefixtures("internet")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["modelscope", "hf"])
def test_a_public_hub_cannot_send_a_pull_into_the_house(
    kind: str, way: str, hub: Hub, near: socket.socket, tmp_path: Path
) -> None:
    location = way.format(port=near.getsockname()[1])
    hub.fail("storage" if kind == "hf" else "am.mvn", status=302, header={"Location": location})
    with pytest.raises(DownloadFailed, match="redirects to where it must not: .*not public"):
        get(Store(tmp_path / "store"), f"{kind}:org/model", hub)
    assert nobody_came(near)


@pytest.mark.usefixtures("internet")
@pytest.mark.parametrize(
    "way", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "unix:/x"]
)
def test_another_scheme_is_refused(way: str, hub: Hub, tmp_path: Path) -> None:
    hub.fail("storage", status=302, header={"Location": way})
    with pytest.raises(DownloadFailed, match="redirects to where it must not"):
        get(Store(tmp_path / "store"), "modelscope:org/model", hub)


def test_a_source_in_the_house_may_redirect_there(asked: list[str], tmp_path: Path, hub: Hub) -> None:
    """A mirror and its storage, as the operator has named the mirror."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        body = FILES["am.mvn"]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with raw_server(answer) as url:
        hub.fail("am.mvn", status=302, header={"Location": f"{url}/x"})
        version = get(Store(tmp_path / "store"), "modelscope:org/model", hub)
    assert (version.path / "am.mvn").read_bytes() == FILES["am.mvn"]
    assert asked == []


@pytest.mark.usefixtures("internet")
def test_names_are_kept_for_certificates_and_headers_while_addresses_are_connected_to(
    authority: Authority, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with machine(authority) as media, machine(authority) as other:
        media.answers["/m.tar.gz"] = redirect(other.url("/blob", OTHER))
        other.answers["/blob"] = content(packed(FILES), "application/gzip")
        get(Store(tmp_path / "store"), media.url("/m.tar.gz", MEDIA))
        assert [one.headers["host"] for one in (*media.asked, *other.asked)] == [
            f"{MEDIA}:{media.port}",
            f"{OTHER}:{other.port}",
        ]
        assert asked == [MEDIA, OTHER]
        # of a name that it has no certificate for
        monkeypatch.setitem(NAMES, "another.example.org", FAR)
        with pytest.raises(DownloadFailed, match="certificate"):
            get(Store(tmp_path / "other"), media.url("/m.tar.gz", "another.example.org"))


@pytest.mark.usefixtures("internet")
def test_a_name_that_means_another_address_a_moment_later_changes_nothing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, near: socket.socket, tmp_path: Path
) -> None:
    answers = iter([FAR, NEAR, NEAR, NEAR])
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        return real(next(answers) if host == MEDIA else host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    hub.fail("am.mvn", status=302, header={"Location": f"https://{MEDIA}:{near.getsockname()[1]}/x"})
    # Nobody listens at the public address: what was checked is what was connected to.
    with pytest.raises(DownloadFailed, match="not public"):
        get(Store(tmp_path / "store"), "modelscope:org/model", hub)
    assert nobody_came(near)
    assert next(answers, None) is not None


def test_the_next_address_is_tried_where_nobody_answers(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host != "localhost":
            return real(host, port, *more, **options)
        return [entry for one in ("127.0.0.3", FAR) for entry in real(one, port, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    endpoint = hub.url.replace(FAR, "localhost")
    store = Store(tmp_path / "store")
    pull(store, "hf:org/model", endpoints=Endpoints(endpoint, endpoint), limits=LIMITS, name="m")


@pytest.mark.parametrize("value", ["http://{}", "{}"])
def test_a_proxy_of_the_environment_is_asked_for_far_names_and_never_for_this_machine(
    value: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    came: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        came.append(connection.recv(65536).partition(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer) as url:
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, value.format(url.removeprefix("http://")))
        get(Store(tmp_path / "store"), "modelscope:org/model", hub)
        assert came == []
        with pytest.raises(DownloadFailed, match="403"):
            get(Store(tmp_path / "other"), f"https://{MEDIA}/m.tar.gz")
        assert set(came) == {f"CONNECT {MEDIA}:443 HTTP/1.1".encode()}
