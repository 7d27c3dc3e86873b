"""Damaged files of every format, through a running service.

Never a 5xx, a dead worker or a dead decoder process, a leftover, or memory that grows.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from bodies import FORM, chunks, connection, head, request, upload
from formats import FORMATS, make
from inspection import GOOD, Inspection
from mutations import mutations
from service import Service, running
from waiting import PATIENCE

KINDS = {
    "wav": ("wav-u8", "wav-s16", "wav-s24", "wav-s32", "wav-float", "wav-double", "wav-extensible"),
    "wav with a codec": ("wav-alaw", "wav-mulaw", "wav-ima-adpcm", "wav-ms-adpcm"),
    "rf64": ("rf64",),
    "w64": ("w64",),
    "au": ("au",),
    "caf": ("caf", "caf-alac"),
    "aiff": ("aiff", "aifc-float"),
    "flac": ("flac", "flac-s24"),
    "ogg": ("vorbis", "opus", "opus-48k-stereo", "flac-in-ogg"),
    "mp3": ("mp3-xing-cbr", "mp3-xing-vbr", "mp3-no-xing-cbr", "mp3-no-xing-vbr"),
    "m4a": ("m4a-moov-first", "m4a-moov-last", "m4a-fragments", "m4a-alac"),
    "mp4": ("mp4-video", "mov-video"),
    "3gp": ("3gp-amr", "3gp-aac"),
    "aac": ("aac-adts",),
    "amr": ("amr-nb",),
    "webm": ("webm-opus", "webm-video"),
    "matroska": ("mkv-video", "mkv-float"),
    "wma": ("wma-v1", "wma-v2"),
    "avi": ("avi-mp3",),
    "mpeg": ("ts-aac", "mpeg-ps"),
    "flv": ("flv-aac",),
    "ac3": ("ac3", "eac3"),
}
SETTINGS = {
    "ASR_WORKERS": "2",
    "ASR_THREADS": "1",
    "ASR_MAX_AUDIO_SECONDS": "600",
    "ASR_DECODE_TIMEOUT": "20",
}
MEMORY_GROWTH = 400 * 2**20
"""bytes that a worker may take at its peak beyond what it had when it was ready"""
FLAT = 32 * 2**20
"""bytes of its own by which a process may grow once it has seen every format"""
ENDED_ON_PURPOSE = ("SIGXCPU", "gave nothing for")
"""what a log says of a decoder process that a limit has ended: its CPU time, or the time for a block"""


def test_every_format_is_fuzzed() -> None:
    named = {name for names in KINDS.values() for name in names}
    rates = {form.name for form in FORMATS if form.name.startswith(("wav-", "flac-")) and "k" in form.name}
    assert named | rates | {"wav-11025"} == {form.name for form in FORMATS}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("fuzz"), **SETTINGS) as started:
        yield started


def peak_memory(pid: int) -> int:
    """Bytes of the process's largest resident size (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def own_memory(pid: int) -> int:
    """Bytes of the process's own (proc(5), smaps_rollup, Anonymous)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Anonymous"))


def decoders(service: Service) -> list[psutil.Process]:
    return [child for worker in service.workers() for child in worker.children()]


def lost_decoders(service: Service) -> Counter[str]:
    """How decoder processes have ended so far: on purpose, or because of a fault."""
    said = [line["message"] for line in service.log_lines() if "a decoder process was" in line["message"]]
    return Counter(
        "on purpose" if any(reason in message for reason in ENDED_ON_PURPOSE) else message for message in said
    )


def fuzz(
    service: Service, folder: Path, seed: int, count: int, kinds: dict[str, tuple[str, ...]]
) -> Counter[str]:
    """Send so many damaged files of each kind; what came back."""
    inspection = Inspection(service)
    memory = {pid: psutil.Process(pid).memory_info().rss for pid in inspection.pids}
    outcomes: Counter[str] = Counter()
    with httpx.Client(base_url=service.url, timeout=2 * PATIENCE, trust_env=False, verify=False) as client:

        def send(content: bytes) -> tuple[bytes, int, str]:
            body = upload(content, "x", timestamps="word")
            answer = client.post("/api/transcribe", content=body, headers={"Content-Type": FORM})
            return content, answer.status_code, answer.text

        with ThreadPoolExecutor(4) as pool:
            for kind, names in kinds.items():
                files = [make(name, folder) for name in names]
                for number, (content, status, text) in enumerate(
                    pool.map(send, mutations(files, seed, count))
                ):
                    outcomes[f"{kind} {status}"] += 1
                    died = "audio_decoder_died" in text and "SIGXCPU" not in text
                    if status not in (200, 400, 413) or died:
                        (folder / "bad").write_bytes(content)
                        pytest.fail(f"{kind}, seed {seed}, file {number} ({folder / 'bad'}): {status} {text}")
                inspection.check()
    assert not set(lost_decoders(service)) - {"on purpose"}
    grown = {pid: (peak_memory(pid) - before) // 2**20 for pid, before in memory.items()}
    assert max(grown.values()) < MEMORY_GROWTH // 2**20, grown
    outcomes["peak growth, MiB"] = max(grown.values())
    return outcomes


def test_damaged_files_do_no_harm(service: Service, tmp_path: Path) -> None:
    outcomes = fuzz(service, tmp_path, seed=7, count=7, kinds=KINDS)
    assert any(name.endswith(" 400") for name in outcomes)


def fuzz_requests(service: Service, seed: int, count: int, patience: float = 2) -> Counter[str]:
    """Send so many damaged requests as they are; a client whose request never ends gives up."""
    inspection = Inspection(service)
    body = upload(GOOD[:3000], language="en", use_itn="true", timestamps="word")
    whole = [
        request(body, X_Request_Id="a", Expect="100-continue"),
        head() + chunks(body, 500),
        request(body, version="1.0"),
        request(upload(GOOD, stream="true", timestamps="word")),
        request(
            upload(GOOD, model="whisper-1", response_format="verbose_json", **{"include[]": "logprobs"}),
            path="/v1/audio/transcriptions",
        ),
        request(
            upload(GOOD, **{"languages[]": "ja", "chunking_strategy[type]": "server_vad", "stream": "1"}),
            path="/v1/audio/transcriptions",
        ),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ]

    def send(content: bytes) -> str:
        with connection(service.port, seconds=patience) as made:
            try:
                made.sendall(content)
                raw = made.recv(65536)
            except (TimeoutError, ConnectionError):
                return "none"
        # A last word, or the 100 before it; a line without version is HTTP/0.9's, and is answered.
        return raw[9:12].decode() if raw else "none"

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(send, mutations(whole, seed, count)))
    assert not [status for status in outcomes if status.startswith("5")], outcomes
    inspection.check()
    return outcomes


def test_damaged_requests_do_no_harm(service: Service) -> None:
    # A client gives up after a while, and a busy machine may need longer for most answers.
    assert any(fuzz_requests(service, seed=7, count=100, patience=n)["400"] > 10 for n in (2, 10, 60))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_thousands_of_damaged_requests_do_no_harm(service: Service) -> None:
    outcomes = fuzz_requests(service, seed=1, count=3000)
    sys.stderr.write(f"\nrequests: {dict(sorted(outcomes.items()))}\n")


def largest(service: Service) -> dict[str, int]:
    """Memory of its own that the largest worker and the largest decoder process have, MiB."""
    found = {
        "worker": max(own_memory(pid) for pid in service.worker_pids()),
        "decoder": max(own_memory(process.pid) for process in decoders(service)),
    }
    return {name: value // 2**20 for name, value in found.items()}


FILES, EACH = 50_000, 100


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_fifty_thousand_damaged_files_do_no_harm(service: Service, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    memory: list[dict[str, int]] = []
    sent = seed = 0
    while sent < FILES:
        seed += 1
        found = fuzz(service, tmp_path, seed=seed, count=EACH, kinds=KINDS)
        peak = found.pop("peak growth, MiB")
        sent += found.total()
        outcomes += found
        memory.append(largest(service))
        sys.stderr.write(f"\n{sent} files, memory {memory[-1]}, peak growth {peak} MiB\n")
    sys.stderr.write(f"{dict(sorted(outcomes.items()))}\n{dict(lost_decoders(service))}\n")
    # The first rounds meet every format and fill what is kept: from then on, it stays as it is.
    early, late = memory[: len(memory) // 4], memory[-(len(memory) // 4) :]
    for process in ("worker", "decoder"):
        before, after = max(m[process] for m in early), max(m[process] for m in late)
        assert after <= before + FLAT // 2**20, (process, memory)
