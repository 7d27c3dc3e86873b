"""The service against its own description, with requests that schemathesis makes from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import PROJECT, Service, running, wait_for

TOKEN = "a-token-for-tests-alone"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running(folder, ASR_WORKERS="1", ASR_THREADS="1", ASR_ADMIN_TOKEN=TOKEN) as started:
        yield started


def conforms(service: Service, folder: Path, *which: str, examples: int) -> None:
    """Run schemathesis over some operations; it ends by itself.

    Args:
        service: to be asked.
        folder: for its files.
        which: options that choose operations.
        examples: requests for each operation, at most, beside those at the edges of each field.
    """
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ASR_")}
    environ |= {"SCHEMATHESIS_HOOKS": "api_hooks", "TOKEN": TOKEN, "PYTHONUTF8": "1"}
    environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(PROJECT)])
    command = [
        *(str(Path(sys.executable).with_name("st")), "--no-color", "run", f"{service.url}/openapi.json"),
        *("--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples)),
        "--generation-deterministic",
        *("--request-timeout", "180", "--warnings", "off", "--no-shrink"),
        *("--suppress-health-check", "too_slow"),  # of the machine, not of the service
        *which,
    ]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
    assert " passed" in done.stdout, done.stdout


@pytest.mark.timeout(1600)
def test_every_answer_is_one_that_is_described(service: Service, tmp_path: Path) -> None:
    conforms(service, tmp_path, "--exclude-path-regex", "^/admin", examples=10)

    def statuses() -> set[int]:
        return {line["status"] for line in service.log_lines() if line.get("logger") == "asrsvc.access"}

    wait_for("answers of all kinds", lambda: {200, 400, 404, 405, 415} <= statuses())


@pytest.mark.timeout(1600)
def test_so_is_every_answer_to_an_operator(service: Service, tmp_path: Path) -> None:
    # A reload is no more than its answer: each would replace the worker that is asked.
    conforms(
        service, tmp_path, "--include-path-regex", "^/admin", "--exclude-operation-id", "reload", examples=5
    )
