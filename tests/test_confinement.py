"""The sandbox of the process that decodes uploads, tried from inside a live one."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import escaping_helper
import numpy as np
import psutil
import pytest
from formats import CLIP, FORMATS, Format, make
from waiting import PATIENCE, wait_for

from asrsvc.errors import BadAudio
from asrsvc.speech import decode_upload, ffmpeg, helper
from asrsvc.speech.decoded import Block, FileLimits, Silence
from asrsvc.speech.ffmpeg import HelperPool
from asrsvc.system import libc

LIMITS = FileLimits(max_rate=384_000, max_channels=16, max_seconds=1000)
MAP_OF_UPLOAD = "map the upload for writing"
OF_KERNEL = {"clone3": "ENOSYS", MAP_OF_UPLOAD: "EACCES"}
"""what is refused with another error than EPERM: see `confinement`; the descriptor is for reading"""
POSSIBLE = {
    "open", "stat", "list", "openat2", "chmod", "socket", "unix socket", "socketpair", "fork", "clone",
    "spawn", "kill the worker", "tgkill the worker", "memfd_create", "map executable memory",
    "make memory executable", "setuid", "limit the worker", "become undumpable",
}  # fmt: skip
"""what a process without a sandbox can do as whoever runs these tests"""


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


class Inside:
    """A pool of one program, which is told what to try."""

    def __init__(self, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(helper, "_PROGRAM", program)
        monkeypatch.setattr(ffmpeg, "_GRACE", PATIENCE)  # how it ends is told, however long that takes
        self.pool = HelperPool(memory_bytes=2**30, block_timeout=PATIENCE)

    def sound(self, content: bytes) -> tuple[int, np.ndarray]:
        with opened(content) as descriptor:
            found = list(self.pool.decode(descriptor, max_rate=384_000, max_channels=16, cpu_seconds=100))
        return found[0][0], np.concatenate([block for _rate, block in found])

    def answer(self, name: str, more: bytes = b"") -> str:
        with pytest.raises(BadAudio) as caught:
            self.sound(escaping_helper.MARK + name.encode() + b"\n" + more)
        return caught.value.message

    @property
    def process(self) -> psutil.Process:
        (pid,) = self.pool.pids()
        return psutil.Process(pid)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    made = Inside("escaping_helper", monkeypatch)
    yield made
    made.pool.close()


@pytest.fixture
def wav(tmp_path: Path) -> bytes:
    return make("wav-s16", tmp_path)


def test_every_escape_is_refused_and_the_process_goes_on(inside: Inside, tmp_path: Path) -> None:
    expected = inside.sound(make("mkv-float", tmp_path))
    pid = inside.process.pid
    found = {name: inside.answer(name) for name in escaping_helper.TRIES}
    assert found == {name: OF_KERNEL.get(name, "EPERM") for name in escaping_helper.TRIES}
    again = inside.sound(make("mkv-float", tmp_path))
    assert (again[0], again[1].tolist()) == (expected[0], expected[1].tolist())
    assert inside.process.pid == pid


def test_without_the_sandbox_the_same_tries_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    unconfined = Inside("unconfined_helper", monkeypatch)
    try:
        found = {name: unconfined.answer(name) for name in sorted(POSSIBLE)}
    finally:
        unconfined.pool.close()
    assert found == dict.fromkeys(sorted(POSSIBLE), "done")


def test_threads_go_on_to_work(inside: Inside, tmp_path: Path) -> None:
    assert inside.answer("threads", make("flac", tmp_path)) == "4 threads"


def test_an_abort_is_told_as_one(inside: Inside) -> None:
    assert "it died of SIGABRT" in inside.answer("abort")


def test_all_threads_are_confined(inside: Inside, wav: bytes) -> None:
    inside.sound(wav)
    tasks = Path(f"/proc/{inside.process.pid}/task")
    # A thread that has been joined is listed for a moment longer.
    wait_for(
        "no thread from before the sandbox, outside of Landlock", lambda: len(list(tasks.iterdir())) == 1
    )
    (task,) = tasks.iterdir()
    status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_memory_is_written_and_executed(inside: Inside, wav: bytes) -> None:
    inside.sound(wav)
    rights = [line.split()[1] for line in Path(f"/proc/{inside.process.pid}/maps").read_text().splitlines()]
    assert "r-xp" in rights
    assert [one for one in rights if "w" in one and "x" in one] == []


def test_every_format_is_decoded_as_without_a_sandbox(inside: Inside, tmp_path: Path) -> None:
    def check(form: Format) -> None:
        content = make(form.name, tmp_path)
        with opened(content) as descriptor:
            items = list(decode_upload.decode(descriptor, LIMITS))
        blocks = [item for item in items if isinstance(item, Block | Silence)]
        sounds = [b.samples if isinstance(b, Block) else np.zeros(b.samples) for b in blocks]
        rate, samples = inside.sound(content)
        assert rate == blocks[0].rate, form.name
        assert np.array_equal(samples, np.concatenate(sounds)), form.name

    inside.answer("open")
    pid = inside.process.pid
    for form in FORMATS:
        check(form)
    with pytest.raises(BadAudio, match="no audio or video format"):
        inside.sound(b"no sound" * 1000)
    assert inside.answer("new modules") == "none", "what is loaded later would not be found"
    assert inside.process.pid == pid


SUBTITLES = "1\n00:00:00,000 --> 00:00:01,000\nwords\n"


def test_a_film_with_subtitles_is_decoded(inside: Inside, tmp_path: Path) -> None:
    """PyAV loads modules of its own for them."""
    words, film = tmp_path / "words.srt", tmp_path / "film.mkv"
    words.write_text(SUBTITLES)
    command = ["ffmpeg", "-v", "error", "-i", str(CLIP), "-i", str(words)]
    subprocess.run([*command, "-c:a", "flac", "-c:s", "srt", str(film)], check=True, timeout=300)
    inside.answer("open")
    _rate, samples = inside.sound(film.read_bytes())
    assert len(samples) > 16_000
    assert inside.answer("new modules") == "none"


def test_it_is_given_nothing_but_its_socket(
    monkeypatch: pytest.MonkeyPatch, inside: Inside, wav: bytes
) -> None:
    monkeypatch.setenv("ASR_ADMIN_TOKEN", "a-token-of-the-operator")
    monkeypatch.setenv("ASR_WEBHOOK_SECRET", "whsec_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        inside.sound(wav)
    finally:
        os.close(held)
    pid = inside.process.pid
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    names = {variable.partition(b"=")[0].decode() for variable in environ if variable}
    assert not [name for name in names if name.startswith(("ASR", "AWS"))]
    assert names >= {"PYTHONPATH", "OPENBLAS_NUM_THREADS"}
    folder = Path(f"/proc/{pid}/fd")

    def kinds() -> list[str]:
        try:
            return sorted(str(link.readlink()).partition(":")[0] for link in folder.iterdir())
        except FileNotFoundError:  # closed between the list and the look
            return []

    # libffi keeps what the code of its callbacks lies in.
    own = ["/dev/null", "/dev/null", "pipe", "socket"]
    wait_for("the upload is closed", lambda: kinds() in (own, ["/dev/null", "/dev/null", "/memfd", *own[2:]]))
    assert "memfd:upload" not in " ".join(str(link.readlink()) for link in folder.iterdir())


def test_what_a_kernel_lacks_is_said_once_and_files_are_decoded(
    monkeypatch: pytest.MonkeyPatch, wav: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    landlocked = Inside("landlocked_helper", monkeypatch)
    try:
        with caplog.at_level(logging.WARNING):
            landlocked.sound(wav)
            landlocked.process.kill()
            landlocked.process.wait(PATIENCE)
            landlocked.sound(wav)
        (record,) = caplog.records
        assert record.getMessage() == (
            "the processes that decode uploads are not fully confined: this kernel or container lacks "
            "seccomp (Operation not permitted)"
        )
        # Landlock alone: files are out of reach by their names, and so is the network.
        for name in ("open", "list", "create", "mkdir", "open the memory of the worker"):
            assert landlocked.answer(name) == "EACCES", name
        if landlock_version() >= 6:
            assert landlocked.answer("kill the worker") == "EPERM"
    finally:
        landlocked.pool.close()


def landlock_version() -> int:
    return libc.call(444, None, 0, 1)


def test_what_it_says_on_standard_error_comes_into_the_log_as_one_line(
    inside: Inside, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(BadAudio, match="exited with 1"):
        inside.sound(escaping_helper.MARK + b"nothing of the kind\n")
    (record,) = caplog.records
    assert "KeyError: 'nothing of the kind'" in record.__dict__["stderr"]


def test_files_that_are_put_right_are_decoded_one_after_the_other(inside: Inside, wav: bytes) -> None:
    """Their bytes come by callbacks, whose memory cannot grow in the sandbox."""
    cut = wav[: len(wav) // 2]
    with opened(cut) as descriptor:
        for _ in range(40):
            decoded = inside.pool.decode(
                descriptor, max_rate=48_000, max_channels=2, cpu_seconds=100, refuse_incomplete=True
            )
            with pytest.raises(BadAudio, match="cut off"):
                list(decoded)
    assert len(inside.sound(cut)[1]) == pytest.approx(45_336 / 2, abs=50)
