"""Who may ask for what, by the header alone."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from asrsvc import settings
from asrsvc.errors import AsrError, BadRequest, LimitReached, NotPermitted
from asrsvc.serving.keys import Key, KeyRing, digest_of, write_keys
from asrsvc.serving.limits import ClientTable
from asrsvc.web.access import Access, Asked, Rules
from asrsvc.web.clients import Client

SECRET = "asr-a-key-for-tests"
TOKEN = "the-operators-token"


def access(tmp_path: Path | None = None, **in_force: str) -> Access:
    """Without a folder there are no keys."""
    ring = None
    if tmp_path is not None:
        path = tmp_path / "keys.json"
        now = datetime.now(UTC).isoformat()
        keys = [Key("ci", digest_of(SECRET), now), Key("slow", digest_of("slow"), now, rate=1, concurrency=0)]
        write_keys(path, keys)
        ring = KeyRing(path)
        in_force["ASR_API_KEYS"] = str(path)
    return Access(Rules.of(settings.load(in_force, {})), ring, ClientTable.create(tickets=100))


def asked(
    path: str = "/api/transcribe",
    method: str = "POST",
    *,
    peer: str = "127.0.0.1",
    local: bool = False,
    **headers: Any,
) -> Asked:
    raw = [
        (name.replace("_", "-").lower().encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Asked(method, path, Headers(raw=raw), peer, local)


def code(door: Access, request: Asked) -> str:
    with pytest.raises(AsrError) as caught:
        door.identify(request)
    return caught.value.code


# Keys.


def test_a_right_key_says_who_it_is(tmp_path: Path) -> None:
    door = access(tmp_path)
    for scheme in ("Bearer", "bearer", "BEARER"):
        client, allowance = door.identify(asked(authorization=f"{scheme} {SECRET}", peer="192.0.2.7"))
        assert client == Client("ci", "key", "192.0.2.7", "ci")
        assert allowance.client == "key:ci"
        assert client.owner == "key:ci"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (None, "missing_api_key"),
        ("", "invalid_api_key"),
        ("Bearer", "invalid_api_key"),
        ("Bearer ", "invalid_api_key"),
        (f"Basic {SECRET}", "invalid_api_key"),
        (SECRET, "invalid_api_key"),
        (f"Bearer {SECRET}x", "invalid_api_key"),
        (f"Bearer {SECRET[:-1]}", "invalid_api_key"),
        (f"Bearer {TOKEN}", "invalid_api_key"),
        ("Bearer ключ", "invalid_api_key"),
        ([f"Bearer {SECRET}", f"Bearer {SECRET}"], "invalid_api_key"),
        ("Bearer " + "x" * 30_000, "invalid_api_key"),
    ],
)
def test_a_wrong_key_is_refused(tmp_path: Path, header: str | list[str] | None, said: str) -> None:
    door = access(tmp_path, ASR_ADMIN_TOKEN=TOKEN)
    request = asked() if header is None else asked(authorization=header)
    assert code(door, request) == said


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/health", "/health/live", "/health/ready"])
def test_health_and_the_page_need_none(tmp_path: Path, path: str) -> None:
    door = access(tmp_path)
    for method in ("GET", "HEAD"):
        assert door.identify(asked(path, method))[0].kind == "address"
    for method in ("POST", "DELETE", "OPTIONS"):
        assert code(door, asked(path, method)) == "missing_api_key"


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v1/models",
        "/api/jobs",
        "/healthz",
        "/page",
        "//health",
        "/health/",
        "/api/transcribe",
        "/administration",
    ],
)
def test_all_else_does(tmp_path: Path, path: str) -> None:
    assert code(access(tmp_path), asked(path, "GET")) == "missing_api_key"


def test_the_operators_token_opens_metrics_and_no_more(tmp_path: Path) -> None:
    door = access(tmp_path, ASR_ADMIN_TOKEN=TOKEN)
    assert door.identify(asked("/metrics", "GET", authorization=f"Bearer {TOKEN}"))[0].kind == "operator"
    assert door.identify(asked("/metrics", "GET", authorization=f"Bearer {SECRET}"))[0].name == "ci"
    assert code(door, asked("/v1/models", "GET", authorization=f"Bearer {TOKEN}")) == "invalid_api_key"
    without = access(tmp_path)
    assert code(without, asked("/metrics", "GET", authorization="Bearer x")) == "invalid_api_key"


def test_the_ops_listener_needs_no_key(tmp_path: Path) -> None:
    client, allowance = access(tmp_path).identify(asked("/metrics", "GET", peer="", local=True))
    assert (client.kind, allowance.client) == ("operator", "")


# Limits.


def test_a_key_has_its_own_limits_or_those_of_the_settings(tmp_path: Path) -> None:
    door = access(tmp_path, ASR_CLIENT_RATE="5", ASR_CLIENT_CONCURRENCY="2")
    _, allowance = door.identify(asked(authorization=f"Bearer {SECRET}"))
    assert (allowance.rate, allowance.concurrency) == (5, 2)
    _, allowance = door.identify(asked(authorization="Bearer slow"))
    assert (allowance.rate, allowance.concurrency) == (1, 0)


def test_a_key_over_its_rate_is_told_when_to_try_again(tmp_path: Path) -> None:
    door = access(tmp_path)
    request = asked(authorization="Bearer slow")
    began = time.monotonic()
    admission = door.admit(request)
    assert door.headers(admission.allowance)["X-RateLimit-Remaining"] == "0"
    with pytest.raises(LimitReached, match="slow may send 1 requests a minute") as caught:
        door.admit(request)
    assert caught.value.retry_after_seconds is not None
    assert 59 - (time.monotonic() - began) <= caught.value.retry_after_seconds <= 60
    door.admit(asked("/v1/models", "GET", authorization="Bearer slow"))  # brings no work
    door.withdraw(admission)
    door.admit(request)


def test_without_keys_an_address_is_a_client_and_an_ipv6_subscriber_is_one() -> None:
    door = access(ASR_CLIENT_CONCURRENCY="1", ASR_BIND="unix:/asr.sock", ASR_TRUSTED_PROXIES="unix")
    held = door.admit(asked(peer="", x_forwarded_for="2001:db8::1"))
    with pytest.raises(LimitReached, match="2001:db8::2 may have 1 requests at the same time"):
        door.admit(asked(peer="", x_forwarded_for="2001:db8::2"))
    door.admit(asked(peer="", x_forwarded_for="2001:db8:0:1::1"))
    door.leave(held)
    door.admit(asked(peer="", x_forwarded_for="2001:db8::2"))
    assert held.client.owner == ""


# Proxies.


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ("", "127.0.0.1", "192.0.2.1", "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1", "192.0.2.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("unix", "", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "", "192.0.2.1", "unix"),
        # what the client itself has written stands further left, and nobody vouches for it
        ("127.0.0.1", "127.0.0.1", "198.51.100.9, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", "198.51.100.9, 10.2.3.4", "198.51.100.9"),
        ("127.0.0.1,10.0.0.0/8", "127.0.0.1", ["198.51.100.9", "10.2.3.4"], "198.51.100.9"),
        ("127.0.0.1", "127.0.0.1", "192.0.2.1:4711", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "192.0.2.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ", ,", "127.0.0.1"),
        ("0.0.0.0/0", "127.0.0.1", ", ".join(["10.0.0.1"] * 10_000), "10.0.0.1"),
    ],
)
def test_who_the_client_is_behind_proxies(
    trusted: str, peer: str, forwarded: str | list[str], address: str
) -> None:
    door = access(ASR_TRUSTED_PROXIES=trusted)
    client, _ = door.identify(asked(peer=peer, x_forwarded_for=forwarded))
    assert client.address == address


# Web pages of other sites.


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:7860",
        "127.0.0.1:7860",
        "[::1]:7860",
        "asr.localhost",
        "LOCALHOST.",
        "192.168.1.2",
    ],
)
def test_a_person_at_this_machine_is_served(host: str) -> None:
    door = access()
    assert door.identify(asked(host=host))[0].kind == "address"
    assert door.identify(asked(host=host, origin=f"http://{host}"))[0].kind == "address"
    assert door.identify(asked(host=host, origin=f"HTTPS://{host}"))[0].kind == "address"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "evil.example:7860", "test", ""),
        *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "127.0.0.1.evil.example"),
        *("%6cocalhost", "localhost,evil.example", ":7860", "localhostx", "xlocalhost"),
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(host: str) -> None:
    with pytest.raises(NotPermitted, match="ASR_ALLOWED_HOSTS"):
        access().identify(asked(host=host))
    assert code(access(), asked("/health", "GET", host=host)) == "host_not_allowed"


MALFORMED_HOSTS = (
    "[::1].evil.example",
    "[::1]evil.example:7860",
    "a@localhost",
    "localhost:7860@evil.example",
    "localhost:80:80",
    "localhost:65536",
    "localhost..",
    ".localhost",
    "::1",
    "localhost evil.example",
    "localhost/",
    "l\xf6calhost",
    "localhost" + ".a" * 150,
)


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
def test_what_is_no_host_is_refused_with_and_without_keys(tmp_path: Path, host: str) -> None:
    request = asked("/health", "GET", host=host)
    for door in (access(), access(tmp_path), access(ASR_OPS_BIND="127.0.0.1:7861")):
        for one in (request, replace(request, local=True), replace(request, path="/admin/status")):
            with pytest.raises(BadRequest, match="Host is ") as caught:
                door.identify(one)
            assert (caught.value.code, caught.value.param) == ("invalid_host", "Host")


@pytest.mark.parametrize("name", ["host", "origin"])
@pytest.mark.parametrize("values", [["localhost", "localhost"], ["localhost", "evil.example"], ["", "", ""]])
def test_a_name_that_stands_twice_is_refused_everywhere(tmp_path: Path, name: str, values: list[str]) -> None:
    request = asked("/health", "GET", **{name: values}, authorization=f"Bearer {SECRET}")
    everywhere = access(ASR_BIND="0.0.0.0:80", ASR_PUBLIC_WITHOUT_KEYS="yes", ASR_CORS_ORIGINS="*")
    for door in (access(), access(tmp_path), everywhere):
        for one in (request, replace(request, local=True, peer=""), replace(request, path="/v1/models")):
            with pytest.raises(BadRequest, match=f"{name.capitalize()} {len(values)} times") as caught:
                door.identify(one)
            assert (caught.value.code, caught.value.param) == ("header_repeated", name.capitalize())


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:7860", "localhost:7860"),
        ("localhost:80", "localhost"),
        ("localhost", "localhost.:80"),
        ("[::1]:7860", "[0:0::1]:7860"),
    ],
)
def test_a_target_that_names_the_host_again_is_served(target: str, host: str) -> None:
    access().identify(replace(asked(host=host), authority=target))


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("localhost", "evil.example"),
        ("evil.example", "localhost"),
        ("localhost:7860", "localhost"),
        ("localhost", None),
        ("", "localhost"),
        ("a@localhost", "localhost"),
        ("localhost@evil.example", "localhost"),
        ("[::1].evil.example", "[::1]"),
    ],
)
def test_a_target_that_names_another_host_is_refused(tmp_path: Path, target: str, host: str | None) -> None:
    request = asked("/health", "GET") if host is None else asked("/health", "GET", host=host)
    for door in (access(), access(tmp_path)):
        with pytest.raises(BadRequest, match="request target") as caught:
            door.identify(replace(request, authority=target))
        assert caught.value.code == "invalid_host"


def test_programs_at_a_unix_socket_may_say_what_they_like() -> None:
    """Some put the path of the socket into Host; no browser comes there."""
    door = access(ASR_BIND="unix:/run/asr.sock")
    for host in ("/run/asr.sock", "%2Frun%2Fasr.sock", "asr", ""):
        door.identify(asked(peer="", host=host))
        door.identify(asked("/admin/status", "GET", peer="", local=True, host=host))
    assert code(access(), asked(peer="", host="a@localhost")) == "host_not_allowed"


# A page of another site may have a browser ask without telling its Origin: for a picture, or a script.


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
        {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"},
        {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"sec_fetch_mode": "cors", "sec_fetch_dest": "empty"},
    ],
)
def test_what_another_sites_page_takes_without_an_origin_is_refused(site: str, how: dict[str, str]) -> None:
    for door in (access(), access(ASR_CORS_ORIGINS="https://app.example.org")):
        for path in ("/metrics", "/api/jobs", "/page/main.js", "/"):
            request = asked(path, "GET", host="localhost:7860", sec_fetch_site=site, **how)
            assert code(door, request) == "origin_not_allowed"
    ops = access(ASR_OPS_BIND="127.0.0.1:7861")
    told = asked("/admin/status", "GET", host="localhost:7861", local=True, sec_fetch_site=site, **how)
    assert code(ops, told) == "origin_not_allowed"


@pytest.mark.parametrize("site", ["same-origin", "none", ""])
def test_the_services_own_page_and_a_person_are_served(site: str) -> None:
    for how in ({}, {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"}):
        access().identify(asked("/page/main.js", "GET", host="localhost:7860", sec_fetch_site=site, **how))


def test_a_link_of_another_site_leads_here() -> None:
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    access().identify(asked("/", "GET", host="localhost:7860", **visit))
    # A form of another site is such a visit too, and tells its Origin.
    for origin in ("https://evil.example", "null"):
        assert code(access(), asked(host="localhost:7860", origin=origin, **visit)) == "origin_not_allowed"


def test_pages_that_are_allowed_are_served_whatever_the_browser_says_of_their_site() -> None:
    told = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors", "host": "localhost:7860"}
    access(ASR_CORS_ORIGINS="app://obsidian.md").identify(asked(origin="app://obsidian.md", **told))
    everybody = access(ASR_CORS_ORIGINS="*")
    everybody.identify(asked("/v1/models", "GET", **told))
    everybody.identify(asked(origin="https://any.example", **told))


# What the operator alone may see.


def test_who_the_operator_is(tmp_path: Path) -> None:
    token = {"authorization": f"Bearer {TOKEN}"}
    door = access(tmp_path, ASR_ADMIN_TOKEN=TOKEN)
    assert door.is_operator(asked("/health", "GET", local=True))
    assert door.is_operator(asked("/health", "GET", **token))
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {SECRET}"}):
        assert not door.is_operator(asked("/health", "GET", **headers))
    public = access(ASR_OPS_BIND="0.0.0.0:7861", ASR_ADMIN_TOKEN=TOKEN)
    assert not public.is_operator(asked("/health", "GET", local=True))
    assert public.is_operator(asked("/health", "GET", local=True, **token))
    assert not access().is_operator(asked("/health", "GET", authorization="Bearer "))


def test_what_is_wrong_with_the_keys_is_told_without_the_file(tmp_path: Path) -> None:
    door = access(tmp_path)
    assert door.problems() == ()
    (tmp_path / "keys.json").write_text('{"keys": [{"name": "geheim"}]}')
    (problem,) = door.problems()
    assert str(tmp_path) in problem.whole
    assert "geheim" not in problem.public
    assert str(tmp_path) not in problem.public
    assert "API keys" in problem.public


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:7860",
        "app://localhost:7860",
        "ftp://localhost:7860",
        "chrome-extension://localhost:7860",
        "localhost:7860",
        "//localhost:7860",
        "://localhost:7860",
        "http://localhost:7860/",
        "http://https://localhost:7860",
    ],
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    assert code(access(), asked(host="localhost:7860", origin=origin)) == "origin_not_allowed"


def test_names_and_pages_that_are_allowed_are_served() -> None:
    door = access(ASR_ALLOWED_HOSTS="asr.example.org", ASR_CORS_ORIGINS="https://app.example.org")
    door.identify(asked(host="asr.example.org"))
    door.identify(asked(host="asr.example.org", origin="https://asr.example.org"))
    door.identify(asked(host="ASR.example.org:8443", origin="https://app.example.org"))
    assert code(door, asked(host="asr.example.org", origin="https://evil.example")) == "origin_not_allowed"
    everybody = access(ASR_CORS_ORIGINS="*")
    everybody.identify(asked(host="localhost", origin="https://any.example"))
    assert code(everybody, asked(host="evil.example", origin="https://any.example")) == "host_not_allowed"


def test_applications_that_are_no_web_pages_may_be_allowed() -> None:
    door = access(ASR_CORS_ORIGINS="app://obsidian.md,tauri://localhost,chrome-extension://abcdef")
    for origin in (
        "app://obsidian.md",
        "tauri://localhost",
        "Tauri://localhost",
        "chrome-extension://abcdef",
    ):
        assert door.identify(asked(host="localhost:7860", origin=origin))[0].kind == "address"
    for origin in ("app://localhost", "https://obsidian.md", "null", "chrome-extension://abcdeg"):
        assert code(door, asked(host="localhost:7860", origin=origin)) == "origin_not_allowed"


def test_a_program_that_says_no_host_is_no_browser() -> None:
    access().identify(asked())
    assert code(access(), asked(origin="https://evil.example")) == "origin_not_allowed"


def test_a_key_is_enough_whatever_the_host(tmp_path: Path) -> None:
    request = asked(
        host="asr.example.org", origin="https://app.example.org", authorization=f"Bearer {SECRET}"
    )
    assert access(tmp_path).identify(request)[0].name == "ci"


def test_an_ops_port_on_this_machine_is_guarded_as_well() -> None:
    door = access(ASR_OPS_BIND="127.0.0.1:7861")
    assert (
        code(door, asked("/admin/status", "GET", host="evil.example:7861", local=True)) == "host_not_allowed"
    )
    door.identify(asked("/admin/status", "GET", host="localhost:7861", local=True))
    access().identify(asked("/admin/status", "GET", host="ops", peer="", local=True))  # a Unix socket


def test_an_ops_port_that_others_reach_needs_the_token_for_all_but_health() -> None:
    door = access(ASR_OPS_BIND="0.0.0.0:7861", ASR_ADMIN_TOKEN=TOKEN)
    assert code(door, asked("/metrics", "GET", local=True)) == "missing_api_key"
    assert code(door, asked("/metrics", "GET", local=True, authorization="Bearer x")) == "unauthorized"
    door.identify(asked("/metrics", "GET", local=True, authorization=f"Bearer {TOKEN}"))
    door.identify(asked("/health", "GET", local=True))


def test_whoever_says_that_everybody_may_is_believed() -> None:
    door = access(ASR_BIND="0.0.0.0:80", ASR_PUBLIC_WITHOUT_KEYS="yes")
    door.identify(asked(host="asr.example.org"))
