"""The metrics of a real service agree with what was asked of it, over a roll, deaths and new code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from bodies import exchange, head, request, upload
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from rolling import Operated, begin_half
from service import CLIPS, PROJECT, manifest, wait_for
from waiting import PATIENCE, wait_until_holds

MONITORING = PROJECT / "monitoring"
PROMTOOL = shutil.which("promtool", path=os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]))
TUTORIAL = {
    "asr_requests_total",
    "asr_request_duration_seconds",
    "model_load_time_seconds",
    "memory_usage_mb",
}


def page(service: Operated, accept: str = "") -> httpx.Response:
    with service.client() as client:
        return client.get("/metrics", headers={"Accept": accept})


def samples(text: str) -> dict[str, float]:
    """Name with labels → value."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


class Asked:
    """Known requests, and what they must come to."""

    def __init__(self, service: Operated) -> None:
        self.service = service
        self.answers: Counter[str] = Counter()
        self.audio: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.sent = 0
        self.malformed = 0
        clips = manifest()
        self.speech = next(clip for clip in clips if clip["language"] == "en")
        self.silence = next(clip for clip in clips if clip["language"] == "nospeech")

    def transcribe(self, times: int) -> None:
        for number in range(times):
            clip = self.silence if number % 3 == 2 else self.speech
            content = (CLIPS / clip["file"]).read_bytes()
            reply = exchange(self.service.port, request(upload(content)))
            assert reply.status == 200, reply.raw
            found = reply.json()
            version = found["model_version"]
            self.answers["/api/transcribe 200"] += 1
            self.audio[version] += found["duration"]
            self.texts[f"{version} {'text' if found['text'] else 'empty'}"] += 1
            self.sent += len(content)

    def fail(self) -> None:
        port = self.service.port
        for sent, route, status in (
            (request(b"no form"), "/api/transcribe", 400),
            (head(length=10**12), "/api/transcribe", 413),
            (request(upload(b"no audio")), "/api/transcribe", 400),
            (request(b"", method="GET", path="/health"), "/health", 200),
            (request(b"", method="GET", path="/nothing"), "other", 404),
            (b"no http\r\n\r\n", "other", 400),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", "other", 431),
            (request(b"", method="DELETE", path="/health/live"), "/health/live", 405),
            (request(b"", method="GET", path="/admin/status"), "/admin/status", 404),
        ):
            reply = exchange(port, sent)
            assert reply.status == status, reply.raw
            self.answers[f"{route} {status}"] += 1
        self.malformed += 2  # answered before the application hears of them
        self.sent += len(b"no audio")

    def compare(self) -> dict[str, float]:
        """All numbers agree, once the last answer is counted under all its names; what the page says."""
        return wait_until_holds(self._agree)

    def _agree(self) -> dict[str, float]:
        found = samples(page(self.service).text)
        answers = {
            f"{route} {status}": value
            for name, value in found.items()
            if name.startswith("asr_requests_total ")
            for route, status in [
                (part.partition("=")[2] for part in name.split(" ")[1:]),
            ]
            if route != "/metrics"
        }
        assert answers == self.answers
        for version, seconds in self.audio.items():
            counted = found.get(f"asr_audio_seconds_total version={version}")
            assert counted == pytest.approx(seconds, abs=0.01)
            assert found.get(f"asr_real_time_factor_count version={version}", 0) > 0
        for key, number in self.texts.items():
            version, result = key.split(" ")
            assert found.get(f"asr_transcripts_total result={result} version={version}") == number
            if result == "text":
                assert found.get(f"asr_confidence_count version={version}") == number
                assert found.get(f"asr_confidence_sum version={version}", number + 1) <= number
        worked = sum(self.texts.values())
        for name in ("decode", "inference"):
            assert found.get(f"asr_{name}_seconds_count") == worked
        assert found.get("asr_upload_bytes_total") == self.sent
        # The page itself is counted when it has been read.
        asked = {name: value for name, value in found.items() if "route=/metrics" not in name}
        durations = sum(v for k, v in asked.items() if k.startswith("asr_request_duration_seconds_count"))
        all_requests = sum(value for name, value in asked.items() if name.startswith("asr_requests_total"))
        assert durations + self.malformed == all_requests
        assert found.get("asr_requests_in_progress") == 1  # this one
        return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """One that another master may have taken over."""
    service = Operated(tmp_path_factory.mktemp("measured"))
    assert service.good
    try:
        service.start()
        service.wait_whole(service.good)
        yield service
    except BaseException:
        sys.stderr.write(service.log()[-10_000:])
        raise
    finally:
        assert service.process is not None
        master = psutil.Process(service.status.master.pid)
        mine = [master, *master.children(recursive=True)]
        try:
            if service.process.poll() is None:
                service.stop()
            elif master.is_running():
                master.send_signal(signal.SIGTERM)
            wait_for("the end of all", lambda: not any(process.is_running() for process in mine))
        finally:
            for process in mine:
                if process.is_running():
                    process.kill()


def test_what_was_asked_is_what_is_counted(service: Operated) -> None:
    asked = Asked(service)
    asked.transcribe(7)
    asked.fail()
    found = asked.compare()
    good, other = service.good.id, service.other.id
    assert found[f"asr_model_info version={good}"] == 1
    assert found[f"asr_workers_serving version={good}"] == found["asr_workers_wanted"] == 2
    assert found["asr_service_state state=serving"] == 1
    assert found["asr_rolls_total result=succeeded"] == 0
    assert 0 < found[f"model_load_time_seconds version={good}"] < 600
    assert found["memory_usage_mb"] > 50
    assert (
        found["asr_memory_bytes kind=anonymous process=workers"]
        > found["asr_memory_bytes kind=anonymous process=master"]
        > 0
    )
    assert found["asr_queue_length lane=short"] == found["asr_queue_length lane=long"] == 0

    # A roll: the workers that have counted so far are gone.
    assert service.roll_to(service.other).result == "succeeded"
    wait_for("the old workers have gone", lambda: len(service.workers()) == 2)
    asked.transcribe(5)
    asked.fail()
    found = asked.compare()
    assert found["asr_rolls_total result=succeeded"] == found["asr_last_roll_success"] == 1
    assert found[f"asr_model_info version={other}"] == 1
    assert f"asr_model_info version={good}" not in found
    assert f"model_load_time_seconds version={other}" in found

    # A worker dies with a request in hand, the other while it idles.
    half = begin_half(service)
    old = service.worker_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    half.close()
    service.wait_status(
        "other workers",
        lambda now: (
            {w.pid for w in now.workers if w.state == "ready"}.isdisjoint(old)
            and len(now.workers) == 2
            and all(w.state == "ready" for w in now.workers)
        ),
    )
    asked.transcribe(4)
    found = asked.compare()
    assert found["asr_worker_restarts_total reason=killed"] == 2
    assert found["asr_lost_requests_total"] == 1

    # New code on the same files.
    master = service.master
    master.send_signal(signal.SIGUSR2)
    service.wait_status("the new master", lambda now: now.master.pid != master.pid and now.state == "serving")
    assert service.process is not None
    wait_for(
        "the end of the old master", lambda: service.process is None or service.process.poll() is not None
    )
    asked.transcribe(4)
    found = asked.compare()
    assert found["asr_worker_restarts_total reason=killed"] == 2
    assert found["asr_rolls_total result=succeeded"] == 1
    # Four files of each worker, of those too that have left since the last one started; and the sums.
    assert len(list((service.folder / "run" / "metrics").iterdir())) <= 4 * 4 + 4


def full_page(service: Operated) -> httpx.Response:
    """With whatever counts what was asked: a transcript, and failures."""
    asked = Asked(service)
    asked.transcribe(3)
    asked.fail()

    def whole() -> httpx.Response | None:
        found = page(service)
        # The last names of a transcript and of a failure.
        return found if "asr_confidence_count{" in found.text and 'status="404"' in found.text else None

    return wait_for("it is counted", whole)


def test_both_formats_can_be_read_and_the_names_of_the_tutorial_are_there(service: Operated) -> None:
    text = full_page(service)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in parse_text(text.text)}
    assert {name.removesuffix("_total") for name in TUTORIAL} <= {
        name.removesuffix("_total") for name in names
    }
    metrics = page(service, "application/openmetrics-text; version=1.0.0")
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    found = {family.name: family for family in parse_openmetrics(metrics.text)}
    assert found["asr_requests"].type == "counter"
    assert found["asr_request_duration_seconds"].type == "histogram"


def test_the_ops_listener_answers_too(service: Operated) -> None:
    transport = httpx.HTTPTransport(uds=str(service.folder / "run" / "ops.sock"))
    with httpx.Client(transport=transport, timeout=2 * PATIENCE) as client:
        assert client.get("http://ops/metrics").status_code == 200


def expressions() -> list[str]:
    """All that alerts and dashboard ask Prometheus."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [mark["expr"] for mark in dashboard["annotations"]["list"]]
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_alerts_and_dashboard_ask_for_what_there_is(service: Operated) -> None:
    there = set(re.findall(r"^(\w+)[{ ]", full_page(service).text, flags=re.MULTILINE))
    there.add("asr_api_keys_valid")  # where there are keys
    asked = set()
    for expression in expressions():
        asked |= set(re.findall(r"\b((?:asr|model|memory)_\w+)\b(?=[{\[ ]|$)", expression))
    assert len(asked) > 20
    assert asked <= there


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: bin/test gets it")
def test_promtool_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    variables = {"$__rate_interval": "5m", "$instance": ".*"}
    rules = []
    for number, expression in enumerate(expressions()):
        for name, value in variables.items():
            expression = expression.replace(name, value)  # noqa: PLW2901
        rules.append({"record": f"dashboard:{number}", "expr": expression})
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: bin/test gets it")
def test_promtool_takes_the_page_the_rules_and_the_configuration(service: Operated) -> None:
    assert PROMTOOL is not None
    linted = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=full_page(service).text,
        capture_output=True,
        text=True,
        check=False,
    )
    # The tutorial's name has a unit that Prometheus would not choose.
    complaints = [line for line in linted.stderr.splitlines() if not line.startswith("memory_usage_mb ")]
    assert complaints == []
    assert linted.returncode in {0, 3}
    for command in (
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            [PROMTOOL, *command], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
