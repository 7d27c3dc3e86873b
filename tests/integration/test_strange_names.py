"""Names that control terminals or hide, in whatever a client may choose: the log stays lines of letters."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from bodies import BOUNDARY, exchange, form, head, part, request
from service import CLIPS, PROJECT, Service, running, wait_for

SNEAKY = "a\x1b[2J\x9b\u202eb\u2066c\u061cd\u200fe\u2028f\x85"
ESCAPED = "".join(f"%{byte:02x}" for byte in f"{SNEAKY}\r\n{{}}".encode())
RAW = SNEAKY.encode()
TOKEN = "the-operators-token"


@pytest.fixture(scope="module", params=["json", "text"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("strange")
    settings = {"ASR_LOG_FORMAT": request.param, "ASR_WORKERS": "1", "ASR_ADMIN_TOKEN": TOKEN}
    if request.param == "json":
        with running(folder, **settings) as started:
            yield started
        return
    made = Service(folder, **settings)
    made.environ["ASR_LOG_FORMAT"] = "text"
    try:
        yield start_in_text(made)
    finally:
        if made.process is not None:
            made.stop()


def start_in_text(service: Service) -> Service:
    """`Service.start` waits for a line of JSON."""
    with service.log_path.open("ab") as log:
        service.process = subprocess.Popen(
            [sys.executable, "-m", "asrsvc.serving.start"],
            env=service.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT,
        )
    process = service.process

    def ready() -> bool:
        assert process.poll() is None, service.log()
        return "worker ready" in service.log()

    wait_for("worker ready", ready)
    return service


REQUESTS = {
    "path": request(b"", method="GET", path=f"/{ESCAPED}"),
    "path of the api": request(b"", method="GET", path=f"/api/jobs/{ESCAPED}"),
    "query": request(b"", method="GET", path=f"/api/jobs?{ESCAPED}={ESCAPED}"),
    "version": request(
        json.dumps({"version": SNEAKY}).encode(),
        path="/admin/model/update",
        content_type="application/json",
        Authorization=f"Bearer {TOKEN}",
    ),
    "header": head(length=0, X_Request_Id="id").replace(b"id\r\n", RAW + b"\r\n"),
    "host": head(method="GET", path="/", length=0).replace(b"localhost", RAW),
    "content type": head(length=0).replace(b"multipart/form-data", b"multipart/" + RAW),
    "file name": head(length=None).replace(b"Transfer-Encoding: chunked", b"Content-Length: %d")
    % len(form(part("file", b"no sound", SNEAKY)))
    + form(part("file", b"no sound", SNEAKY)),
    "name of a field": request(form(part(SNEAKY, b"x"), part("file", b"x", "a"))),
    "value of a field": request(form(part("language", SNEAKY), part("file", b"x", "a"))),
    "file name of sound": request(form(part("file", (CLIPS / "en_1.flac").read_bytes(), SNEAKY))),
    "boundary": head(length=0).replace(BOUNDARY.encode(), RAW),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_no_name_of_a_client_controls_who_reads_the_log(service: Service, name: str) -> None:
    reply = exchange(service.port, REQUESTS[name])
    assert reply.status in {200, 400, 401, 403, 404, 409, 415, 422}
    log = service.log()
    assert "worker ready" in log
    for line in log.split("\n"):
        found = {unicodedata.category(letter) for letter in line} & {"Cc", "Cf", "Zl", "Zp", "Cs"}
        assert not found, ascii(line)
        if line.startswith("{"):
            json.loads(line)
