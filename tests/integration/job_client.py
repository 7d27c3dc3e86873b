"""Jobs over HTTP, as tests ask for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
from service import Service, wait_for

ENDED = {"succeeded", "failed", "cancelled"}


class JobClient:
    """A client of one service; every request has a connection of its own, which is tried again if refused."""

    def __init__(self, service: Service) -> None:
        # Not one for each request: to make one costs more than most requests.
        self._client = service.client(transport=httpx.HTTPTransport(verify=False, retries=3))

    def submit(self, content: bytes, **fields: str) -> httpx.Response:
        return self._client.post("/api/jobs", files={"file": ("sound", content)}, data=fields)

    def begin(self, content: bytes, **fields: str) -> str:
        """The id of a new job."""
        answer = self.submit(content, **fields)
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body["status"] == "queued"
        assert answer.headers["Location"] == body["links"]["self"] == f"/api/jobs/{body['id']}"
        return str(body["id"])

    def get(self, path: str, **query: str) -> httpx.Response:
        return self._client.get(f"/api/jobs{path}", params=query)

    def job(self, job: str) -> dict[str, Any]:
        answer = self.get(f"/{job}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def all(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = []
        query = {"limit": "100"}
        while True:
            page = self.get("", **query).json()
            jobs += page["jobs"]
            if page["next"] is None:
                return jobs
            query["before"] = str(page["next"])

    def delete(self, job: str) -> httpx.Response:
        return self._client.delete(f"/api/jobs/{job}")

    def wait_ended(self, job: str, seconds: float = 60) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            body = self.job(job)
            return body if body["status"] in ENDED else None

        return wait_for(f"the end of job {job}", ended, seconds)

    def wait_all(self, count: int, *states: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait until there are so many jobs, all in one of these states."""

        def there() -> list[dict[str, Any]] | None:
            jobs = self.all()
            return jobs if len(jobs) == count and {job["status"] for job in jobs} <= set(states) else None

        try:
            return wait_for(f"{count} jobs that are {' or '.join(states)}", there, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {Counter(job['status'] for job in self.all())}") from None

    def result(self, job: str, **query: str) -> dict[str, Any]:
        answer = self.get(f"/{job}/result", **query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def events(self, job: str, last: int | None = None) -> Iterator[tuple[str, str, Any]]:
        """Name, id and data of each event, until the stream ends."""
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        with self._client.stream("GET", f"/api/jobs/{job}/events", headers=headers) as answer:
            assert answer.status_code == 200
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()
                elif "event" in fields:
                    yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                    fields = {}


def ends(service: Service) -> Counter[str]:
    """How often each job has ended, by the service's log."""
    return Counter(line["job"] for line in service.log_lines() if line["message"] == "job ended")


def each_has_ended_once(service: Service, jobs: Iterable[str]) -> None:
    """Whether each of these jobs has ended once, and no other; a worker says so a moment after it is true."""
    wait_for("the workers' word for it", lambda: ends(service).keys() >= set(jobs))
    assert ends(service) == dict.fromkeys(jobs, 1)
