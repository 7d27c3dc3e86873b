"""What a request may say of itself, and hold: hosts, sites, targets, second requests, odd values.

Each is answered with a 4xx that names what is wrong, and no answer may be kept or taken for something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from bodies import FORM, Reply, chunks, exchange, form, head, part, request, upload
from inspection import GOOD, Inspection, check_error
from routes import application, paths, routes
from service import Service, running

TOKEN = "the-operators-token"
TEXT = "Book a table at 1:25 a.m."
V1 = "/v1/audio/transcriptions"
API = "/api/transcribe"
JOBS = "/api/jobs"
UPDATE = "/admin/model/update"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "ASR_WORKERS": "1",
        "ASR_THREADS": "1",
        "ASR_ADMIN_TOKEN": TOKEN,
        "ASR_URL_HOSTS": "example.org",
        "ASR_WEBHOOK_SECRET": "whsec_" + "QUJD" * 8,
    }
    with running(tmp_path_factory.mktemp("service"), **settings) as started:
        yield started


@pytest.fixture(scope="module")
def inspection(service: Service) -> Inspection:
    return Inspection(service)


@pytest.fixture
def unharmed(inspection: Inspection) -> Iterator[Inspection]:
    yield inspection
    inspection.check()


@pytest.fixture(scope="module")
def all_paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return paths(routes(application(tmp_path_factory.mktemp("routes"))))


def with_lines(
    lines: list[bytes], target: bytes = b"/health", method: bytes = b"GET", body: bytes = b""
) -> bytes:
    """A request whose header has these lines alone, as they are."""
    framing = [b"Content-Type: " + FORM.encode(), b"Content-Length: %d" % len(body)] if body else []
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *lines, *framing, b"", b""]) + body


def ways(*lines: bytes) -> Iterator[bytes]:
    """Requests that would do something, each with these lines."""
    for target in (b"/health", b"/", b"/v1/models", b"/metrics", b"/admin/status", b"/api/jobs"):
        yield with_lines(list(lines), target)
    for target in (b"/api/transcribe", b"/v1/audio/transcriptions", b"/api/jobs"):
        yield with_lines(list(lines), target, b"POST", upload(GOOD))


# Hosts and sites.

NO_HOSTS = [
    b"[::1].evil.example",
    b"[::1]evil.example:80",
    b"a@localhost",
    b"localhost:80@evil.example",
    b"localhost:80:80",
    b"localhost:99999",
    b"localhost..",
    b".localhost",
    b"::1",
    b"[fe80::1%%]",
    b"[127.0.0.1]",
    b"localhost evil.example",
    b"localhost/",
    "löcalhost".encode(),
    b"\xff\xfe",
    b"localhost" + b".a" * 5000,
]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(unharmed: Inspection, host: bytes) -> None:
    for sent in ways(b"Host: " + host):
        reply = exchange(unharmed.service.port, sent)
        assert reply.status == 400, sent[:200]
        check_error(reply.json(), "invalid_host", "Host is", param="Host")


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.example", b"localhost.evil.example:7860", b"", b"127.1", b"2130706433", b"0177.0.0.1"),
        *(b"127.0.0.1.", b"%6cocalhost", b"localhost,evil.example", b"localhostx"),
    ],
)
def test_another_host_is_refused(unharmed: Inspection, host: bytes) -> None:
    for sent in ways(b"Host: " + host):
        reply = exchange(unharmed.service.port, sent)
        assert reply.status == 403, sent[:200]
        check_error(reply.json(), "host_not_allowed", "ASR_ALLOWED_HOSTS")


@pytest.mark.parametrize("name", [b"Host", b"Origin"])
def test_a_name_that_stands_twice_is_refused(unharmed: Inspection, name: bytes) -> None:
    own = b"http://localhost" if name == b"Origin" else b"localhost"
    for other in (own, b"evil.example", b""):
        for pair in ([own, other], [other, own]):
            lines = [name + b": " + value for value in pair]
            for sent in ways(*lines, *([] if name == b"Host" else [b"Host: localhost"])):
                reply = exchange(unharmed.service.port, sent)
                assert reply.status == 400, sent[:200]
                said = f"{name.decode()} 2 times"
                check_error(reply.json(), "header_repeated", said, param=name.decode())


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://localhost%s", 200),
        (b"http://LOCALHOST:80%s", 200),
        (b"http://evil.example%s", 400),
        (b"http://localhost:7860%s", 400),
        (b"http://a@localhost%s", 400),
        (b"http://localhost@evil.example%s", 400),
        (b"http://[::1].evil.example%s", 400),
        (b"evil://localhost.evil.example%s", 400),
        (b"localhost%s", 400),
    ],
)
def test_a_target_names_the_same_host_or_is_refused(unharmed: Inspection, target: bytes, status: int) -> None:
    for path, method, body in ((b"/health", b"GET", b""), (b"/api/transcribe", b"POST", upload(GOOD))):
        reply = exchange(unharmed.service.port, with_lines([b"Host: localhost"], target % path, method, body))
        assert reply.status == status, reply.raw
    other = exchange(unharmed.service.port, with_lines([b"Host: evil.example"], b"http://localhost/health"))
    assert other.status == 400


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
@pytest.mark.parametrize("how", [b"image", b"script", b"iframe", b"audio", b""])
def test_a_page_of_another_site_takes_nothing(unharmed: Inspection, site: bytes, how: bytes) -> None:
    """As browsers ask for a picture or a script: without an Origin."""
    mode = b"navigate" if how == b"iframe" else b"no-cors"
    lines = [b"Sec-Fetch-Site: " + site, b"Sec-Fetch-Mode: " + mode, b"Sec-Fetch-Dest: " + how]
    for sent in ways(b"Host: localhost", *lines):
        reply = exchange(unharmed.service.port, sent)
        assert reply.status == 403, sent[:200]
        check_error(reply.json(), "origin_not_allowed", "Sec-Fetch-Site")
    for origin in (b"null", b"https://evil.example", b"http://localhost:3000"):
        for sent in ways(b"Host: localhost", b"Origin: " + origin, *lines):
            assert exchange(unharmed.service.port, sent).status == 403


def test_a_link_and_the_page_itself_are_served(unharmed: Inspection) -> None:
    visit = [b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document"]
    own = [b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Dest: empty"]
    port = unharmed.service.port
    assert exchange(port, with_lines([b"Host: localhost", *visit], b"/")).status == 200
    sent = with_lines(
        [b"Host: localhost", b"Origin: http://localhost", *own], b"/api/transcribe", b"POST", upload(GOOD)
    )
    assert exchange(port, sent).json()["text"] == TEXT


# A second request behind the first one.

BEHIND = {
    "GET": with_lines([b"Host: evil.example"], b"/admin/status"),
    "POST": request(upload(GOOD), path=API),
    "chunks": head(path=JOBS) + chunks(upload(GOOD)),
    "garbage": b"\x16\x03\x01\x02\r\n\r\n" * 10,
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("first", ["GET", "POST", "chunks", "upgrade", "close"])
def test_a_second_request_changes_nothing_for_the_first(
    unharmed: Inspection, first: str, behind: str
) -> None:
    whole = {
        "GET": with_lines([b"Host: localhost"], b"/health/live"),
        "POST": request(upload(GOOD), path=API),
        "chunks": head(path=V1) + chunks(upload(GOOD)),
        "upgrade": head(path=API, length=len(upload(GOOD)), Connection="Upgrade", Upgrade="h2c")
        + upload(GOOD),
        "close": with_lines([b"Host: localhost", b"Connection: close"], b"/health/live"),
    }[first]
    reply = exchange(unharmed.service.port, whole + BEHIND[behind])
    assert reply.status == 200, reply.raw
    body = reply.json()  # one whole answer and nothing behind it
    assert body == {"status": "alive"} if first in {"GET", "close"} else body["text"] == TEXT


# Values.

ODD_JSON: dict[str, tuple[bytes, str | None]] = {
    "half a character": (rb'{"version":"\ud800"}', "version"),
    "the other half": (rb'{"version":"a\udfffb"}', "version"),
    "half a character as bytes": (b'{"version":"\xed\xa0\x80"}', None),
    "half a character in a name": (rb'{"\ud800":1}', r"\ud800"),
    "half a character inside": (rb'{"version":["x",{"y":"\ud800"}]}', "version"),
    "bytes that are no UTF-8": (b'{"version":"\xff"}', None),
    "UTF-16": ('{"version":"x"}'.encode("utf-16"), None),
    "a name twice": (b'{"version":"a","version":"b"}', "version"),
    "a huge number": (b'{"version":' + b"9" * 10_000 + b"}", "version"),
    "a huge number of seconds": (b'{"version":"x","watch":' + b"9" * 400 + b"}", "watch"),
    "more seconds than a float has": (b'{"version":"x","watch":1e999}', "watch"),
    "fewer": (b'{"version":"x","watch":-1e999}', "watch"),
    "NaN": (b'{"version":"x","watch":NaN}', None),
    "infinity": (b'{"version":"x","watch":Infinity}', None),
    "a list of seconds": (b'{"version":"x","watch":[1]}', "watch"),
    "true seconds": (b'{"version":"x","watch":true}', "watch"),
    "null": (b'{"version":null}', "version"),
    "an object": (b'{"version":{"a":1}}', "version"),
    "an empty text": (b'{"version":""}', "version"),
    "a number for force": (b'{"version":"x","force":1}', "force"),
    "nesting": (b'{"version":' + b"[" * 8000 + b"]" * 8000 + b"}", None),
    "moderate nesting": (b'{"version":' + b"[" * 50 + b"]" * 50 + b"}", "version"),
    "an unknown name": (b'{"verzion":"x"}', "verzion"),
    "a name with controls": (b'{"a\\u0000\\u001b\\u202e":"x"}', "a\0\x1b\u202e"),
    "a text": (b'"version"', None),
    "a number": (b"1", None),
    "nothing but a brace": (b"{", None),
}


def ask_admin(service: Service, body: bytes, kind: str = "application/json", path: str = UPDATE) -> Reply:
    sent = head(path=path, length=len(body), content_type=kind, Authorization=f"Bearer {TOKEN}") + body
    return exchange(service.port, sent)


@pytest.mark.parametrize("name", ODD_JSON)
def test_odd_json_is_refused_by_name(unharmed: Inspection, name: str) -> None:
    body, param = ODD_JSON[name]
    for path in (UPDATE, "/admin/model/rollback"):
        reply = ask_admin(unharmed.service, body, path=path)
        assert reply.status == 400, reply.raw
        error = reply.json()["error"]
        if path == UPDATE:
            assert error["param"] == param, error
            assert param is None or repr(param)[1:-1].replace("\\\\", "\\") in error["message"], error


@pytest.mark.parametrize("version", ["a\0b", "../../etc", "\u202e", "é" * 300, "x" * 10_000, "\x1b[2J", "."])
def test_a_version_of_no_possible_name_is_not_found(unharmed: Inspection, version: str) -> None:
    for reply in (
        ask_admin(unharmed.service, json.dumps({"version": version}).encode()),
        ask_admin(unharmed.service, json.dumps({"version": version}, ensure_ascii=False).encode()),
    ):
        assert reply.status == 404, reply.raw
        assert reply.json()["error"]["param"] == "version"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"version=%ED%A0%80", 404, "version"),
        (b"version=%00", 404, "version"),
        (b"version=%FF%FE", 404, "version"),
        (b"version=a&version=b", 400, "version"),
        (b"version=x&watch=nan", 400, "watch"),
        (b"version=x&watch=" + b"9" * 5000, 400, "watch"),
        (b"version=x&watch=1e999", 400, "watch"),
        (b"version=x&force=2", 400, "force"),
        (b"%ED%A0%80=x", 400, "\ufffd\ufffd\ufffd"),
        (b"version=\xff", 400, None),
        (b"&&&", 400, None),
        (b"&".join(b"a%d=1" % n for n in range(1000)), 400, None),
    ],
)
def test_odd_forms_are_refused_by_name(
    unharmed: Inspection, body: bytes, status: int, param: str | None
) -> None:
    reply = ask_admin(unharmed.service, body, "application/x-www-form-urlencoded")
    assert (reply.status, reply.json()["error"]["param"]) == (status, param), reply.raw


ODD_TEXTS = {
    "NUL": b"\0",
    "escape": b"\x1b[31m",
    "C1": "\x9b31m".encode(),
    "line separator": "a\u2028b".encode(),
    "direction": "\u202e".encode(),
    "half a character": b"\xed\xa0\x80",
    "no UTF-8": b"\xff\xfe",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "a large number": b"9" * 1000,
    "an object": b'{"a":' * 100,
    "a list": b"[" * 1000,
    "half a character as JSON": rb'["\ud800"]',
    "half a character in an object": rb'{"type":"\ud800"}',
    "half a character as a name": rb'{"\ud800":"a"}',
    "half a character as a name, twice": rb'{"\ud800":"a","\ud800":{}}',
    "half a character around an object": rb'{"\ud800":{}}',
    "a name twice": b'{"type":"server_vad","type":"server_vad"}',
    "a huge number in JSON": b'{"threshold":' + b"9" * 900 + b"}",
    "not a number in JSON": b'{"threshold":NaN}',
}
FIELDS = {
    V1: [
        *("model", "language", "languages[]", "response_format", "temperature", "stream", "use_itn"),
        *("timestamp_granularities[]", "include[]", "incomplete", "url"),
        *("chunking_strategy", "chunking_strategy[threshold]"),
    ],
    API: ["language", "use_itn", "timestamps", "stream", "incomplete", "url"],
    JOBS: ["language", "punctuation", "url", "webhook"],
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_values_of_fields_are_refused_by_name(unharmed: Inspection, name: str) -> None:
    for path, fields in FIELDS.items():
        for field in fields:
            alone = field == "url"
            body = form(part(field, ODD_TEXTS[name]), *([] if alone else [part("file", GOOD, "a.flac")]))
            reply = exchange(unharmed.service.port, request(body, path=path))
            assert 400 <= reply.status < 500, (field, reply.raw)
            error = reply.json()["error"]
            assert (error["param"] or "").startswith(field.partition("[")[0]), error
            assert error["param"].partition("[")[0] in error["message"], error


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_names_are_refused_or_never_used(unharmed: Inspection, name: str) -> None:
    odd = ODD_TEXTS[name].replace(b'"', b"'")
    field = form(b'Content-Disposition: form-data; name="x' + odd + b'"\r\n\r\nx', part("file", GOOD, "a"))
    reply = exchange(unharmed.service.port, request(field))
    assert reply.status == 400
    assert reply.json()["error"]["code"] in {"unknown_field", "body_malformed"}
    named = b'Content-Disposition: form-data; name="file"; filename="' + odd + b'"\r\nContent-Type: ' + odd
    reply = exchange(unharmed.service.port, request(form(named + b"\r\n\r\n" + GOOD)))
    assert reply.status in {200, 400}, reply.raw
    assert reply.status == 200 or reply.json()["error"]["code"] == "body_malformed"


ODD_ENCODED = [
    "%00",
    "%1B",
    "%ED%A0%80",
    "%FF",
    "%E2%80%AE",
    "9" * 5000,
    "%2e%2e%2f",
    "NaN",
    "%25",
]


@pytest.mark.parametrize("odd", ODD_ENCODED)
def test_odd_addresses_are_not_found_or_refused(unharmed: Inspection, odd: str) -> None:
    asked = [
        *(f"/{odd}", f"/page/{odd}", f"/v1/models/{odd}", f"/api/jobs/{odd}", f"/api/jobs/{odd}/events"),
        *(f"/api/jobs/{odd}/result", f"/admin/operations/{odd}", f"/docs/{odd}", f"/health/{odd}"),
        *(
            f"/api/jobs?limit={odd}",
            f"/api/jobs?before={odd}",
            f"/api/jobs?{odd}=1",
            f"/api/jobs?limit=1&limit={odd}",
        ),
        *(f"/api/jobs/x?{odd}", f"/api/jobs/x/result?format={odd}", f"/api/jobs/x/result?timestamps={odd}"),
    ]
    for path in asked:
        sent = head("GET", path, length=0, Authorization=f"Bearer {TOKEN}")
        reply = exchange(unharmed.service.port, sent)
        assert 400 <= reply.status < 500, (path, reply.raw)
        error = reply.json()["error"]
        assert "?" not in path or error["param"] is not None or reply.status == 404, (path, error)
    for path in (f"{API}?stream={odd}", f"{API}?stream=true&stream={odd}"):
        reply = exchange(unharmed.service.port, request(upload(GOOD), path=path))
        assert (reply.status, reply.json()["error"]["param"]) == (400, "stream"), reply.raw


ODD_HEADERS: list[tuple[str, str, bytes, set[int]]] = [
    ("GET", "/metrics", b"Accept: application/openmetrics-text; version=x", {200}),
    ("GET", "/metrics", b"Accept: application/openmetrics-text; version=1.x.0", {200}),
    ("GET", "/metrics", b"Accept: text/plain; version=\xff", {200}),
    ("GET", "/metrics", b"Accept: text/plain; version=" + b"9" * 9000, {200}),
    ("GET", "/", b"Accept-Encoding: gzip;q=\xff", {200}),
    ("GET", "/", b'If-None-Match: "\xff", W/', {200}),
    ("GET", "/api/jobs/x/events", b"Last-Event-ID: " + b"9" * 5000, {400}),
    ("GET", "/api/jobs/x/events", b"Last-Event-ID: \xb2", {400}),
    ("GET", "/health", b"X-Request-Id: \xff\xfe", {200}),
    ("GET", "/health", b"X-Forwarded-For: \xff, [::1].evil, fe80::1%\xff", {200}),
    ("GET", "/admin/status", b"Authorization: Bearer \xff", {401}),
    ("POST", API, b"Content-Type: multipart/form-data; boundary=\xff", {400, 415}),
    ("POST", API, b"Content-Type: multipart/form-data; boundary*=utf-8''%ff", {400}),
    ("POST", UPDATE, b"Content-Type: application/json; charset=\xff", {401}),
]


@pytest.mark.parametrize(("method", "path", "line", "statuses"), ODD_HEADERS)
def test_odd_headers_do_no_harm(
    unharmed: Inspection, method: str, path: str, line: bytes, statuses: set[int]
) -> None:
    body = b"" if method == "GET" else b"Content-Length: 0\r\n"
    sent = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + line + b"\r\n" + body + b"\r\n"
    reply = exchange(unharmed.service.port, sent)
    assert reply.status in statuses, reply.raw


# How answers may be kept.


def check_kept(reply: Reply, path: str) -> None:
    assert reply.headers["x-content-type-options"] == "nosniff", (path, reply.raw[:500])
    static = reply.status in {200, 304} and (
        path in {"/", "/docs", "/openapi.json"} or path.startswith("/page/")
    )
    assert reply.headers["cache-control"] == ("no-cache" if static else "no-store"), (path, reply.raw[:500])
    lines = reply.raw.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    for name in (b"cache-control", b"x-content-type-options"):
        assert sum(line.startswith(name + b":") for line in lines) == 1


def test_no_answer_may_be_kept_or_taken_for_another_kind(unharmed: Inspection, all_paths: list[str]) -> None:
    port = unharmed.service.port
    for path in [*all_paths, "/nothing", "/docs/", "/page/main.js", "/page/none.js", "/favicon.ico"]:
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            # A change that is asked for with the token would replace the worker.
            for token in ("", TOKEN) if method in {"GET", "HEAD"} else ("",):
                sent = head(method, path, length=0, Authorization=f"Bearer {token}")
                check_kept(exchange(port, sent), path)


def test_no_transcript_and_no_error_may_be_kept(unharmed: Inspection) -> None:
    port = unharmed.service.port
    for path, fields in (
        (API, {}),
        (API, {"stream": "true"}),
        *((V1, {"response_format": name}) for name in ("json", "text", "srt", "vtt", "verbose_json")),
        (JOBS, {}),
        (V1, {"response_format": "xml"}),
        (API, {"langauge": "zh"}),
    ):
        check_kept(exchange(port, request(upload(GOOD, **fields), path=path)), path)
    for broken in (
        b"garbage\r\n\r\n",
        b"GET /" + b"a" * 40_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        check_kept(exchange(port, broken), "")


def test_the_page_says_what_a_browser_may_do_with_it(unharmed: Inspection) -> None:
    for path in ("/", "/docs"):
        headers = exchange(unharmed.service.port, with_lines([b"Host: localhost"], path.encode())).headers
        policy: dict[str, Any] = dict(
            rule.strip().partition(" ")[::2] for rule in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["referrer-policy"] == "no-referrer"


def test_jobs_have_no_answer_that_may_be_kept(unharmed: Inspection) -> None:
    port = unharmed.service.port
    job = exchange(port, request(upload(GOOD), path=JOBS)).json()["id"]
    for path in (f"{JOBS}/{job}", f"{JOBS}/{job}/result", f"{JOBS}/{job}/events", JOBS):
        check_kept(exchange(port, head("GET", path, length=0)), path)
