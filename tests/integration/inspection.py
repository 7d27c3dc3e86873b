"""What must hold of a service after it was maltreated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import psutil
from bodies import FORM, upload
from formats import CLIP, TEXT
from service import Service, wait_for
from waiting import PATIENCE

GOOD = CLIP.read_bytes()


class Inspection:
    """Notes how a service is at the start; `check` says whether it is still so."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pids = service.worker_pids()
        self._log_at = len(service.log().encode())  # of a line that is being written, a part may be there
        self.client = httpx.Client(base_url=service.url, timeout=2 * PATIENCE, trust_env=False, verify=False)

    def ask(self, body: bytes, **headers: str) -> httpx.Response:
        return self.client.post("/api/transcribe", content=body, headers={"Content-Type": FORM, **headers})

    def check(self) -> None:
        """The same workers live, a good request is answered, nothing is left, nothing failed inside."""
        # A client that has just gone counts as waiting until a worker takes its connection.
        answer = wait_for("room in the queue", lambda: not_refused(self.ask(upload(GOOD))))
        assert (answer.status_code, answer.json().get("text")) == (200, TEXT), answer.text
        assert self.service.worker_pids() == self.pids
        assert all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in self.pids)
        wait_for("nothing is on the disk", lambda: not list(self.service.spool.iterdir()))
        wait_for("no upload is open in a worker", lambda: not self.open_uploads())
        self.check_log()

    def open_uploads(self) -> list[str]:
        """Files without a name that the service's processes hold open."""
        found = []
        for process in self.service.master.children(recursive=True):
            try:
                links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
            except OSError:
                continue  # a descriptor or a process that has just gone; it holds nothing
            spool = str(self.service.spool)
            found += [link for link in links if "memfd:upload" in link or link.startswith(spool)]
        return found

    def check_log(self) -> None:
        """Since the last look: no trace, no 500, no line that is not ours."""
        with self.service.log_path.open("rb") as log:
            log.seek(self._log_at)
            text = log.read().rpartition(b"\n")[0]
            self._log_at += len(text) + 1 if text else 0
        for line in text.decode().splitlines():
            entry = json.loads(line)
            assert "trace" not in entry, line
            assert entry.get("status") not in (0, 500), line
            assert "it exited with" not in entry["message"], "a fault of our own in the decoder process"
            assert entry["level"] != "error" or entry["message"].startswith("no_space"), line

    def access_line(self, request_id: str) -> dict[str, Any]:
        """Wait for the log line of a request."""

        def found() -> dict[str, Any] | None:
            lines = (line for line in self.service.log_lines() if line["logger"] == "asrsvc.access")
            return next((line for line in lines if line["request_id"] == request_id), None)

        return wait_for(f"log line of {request_id}", found)


def not_refused(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 429 else answer


def check_error(body: Any, code: str, *says: str, param: str | None = None) -> None:
    """An error in the shape of all errors, whose message names what it must."""
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["code"] == code, error
    assert error["param"] == param, error
    assert error["message"], error
    for words in says:
        assert words in error["message"], error
    assert "Traceback" not in error["message"]
