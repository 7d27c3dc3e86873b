"""Decoding in helper processes, kept warm and replaced when they die."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from asrsvc.errors import BadAudio, OutOfDescriptors
from asrsvc.speech.answers import Answer, Nonsense, Refused
from asrsvc.speech.decoded import FileLimits
from asrsvc.speech.helper import Helper, Request
from asrsvc.speech.types import FloatArray, Notice
from asrsvc.system.disk import lacks_descriptors

log = logging.getLogger(__name__)

_IDLE_KEPT: Final = 2
_MOST_WITH_SPARE: Final = 3  # at work: a short request, a long one and a job
_GRACE: Final = 5.0  # seconds in which a process that has closed its socket, or seen it close, ends
# What is left of a short file that nobody wants any more is read: that costs less than a new process.
_LEFT_SECONDS: Final = 0.05
_LEFT_MESSAGES: Final = 4


class _State(Enum):
    """Where the messages about a file are."""

    LOST = auto()
    """inside one, or behind one that is none"""
    BETWEEN = auto()
    """behind a whole one, and others follow"""
    DONE = auto()


class HelperPool:
    """Helpers for the requests of one worker: as many as are asked for at once, a few kept idle."""

    def __init__(self, *, memory_bytes: int, block_timeout: float, spare: bool = False) -> None:
        """Prepare an empty pool.

        Args:
            memory_bytes: address space of a helper beyond what it starts with.
            block_timeout: seconds for one block of about ten seconds of sound, at most.
            spare: whether one helper more than are at work is kept ready, so that a request that comes
                while a long recording is decoded does not wait for the start of a process.
        """
        self._memory_bytes = memory_bytes
        self._block_timeout = block_timeout
        self._spare = spare
        self._idle: list[Helper] = []
        self._at_work = 0
        self._lock = threading.Lock()
        self._lacking_said = False

    def warm_up(self) -> None:
        """Start one helper, so that the first file does not wait for its start."""
        self._keep(Helper(self._memory_bytes, gently=True))

    def close(self) -> None:
        """End all idle helpers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for helper in idle:
            _end(helper, _GRACE)

    def pids(self) -> list[int]:
        """Process ids of the idle helpers."""
        with self._lock:
            return [helper.pid for helper in self._idle]

    def decode(
        self,
        descriptor: int,
        *,
        max_rate: int,
        max_channels: int,
        cpu_seconds: float,
        min_rate: int = 1,
        max_seconds: float = math.inf,
        max_values: float = math.inf,
        declared: Callable[[float], None] = lambda _seconds: None,
        refuse_incomplete: bool = False,
        warn: Callable[[Notice], None] = lambda _notice: None,
    ) -> Iterator[tuple[int, FloatArray]]:
        """Decode a file: mono blocks, shape (n,), float32, each with its sample rate in Hz, which may change.

        Args:
            descriptor: of the file, open for reading; its position is neither used nor moved.
            max_rate: Hz; a higher rate is refused.
            max_channels: more are refused.
            cpu_seconds: CPU time for the whole file.
            min_rate: Hz; a lower rate is refused.
            max_seconds: what is longer by its header, or by a hole in its time stamps, is refused.
            max_values: samples of all its channels together; more are refused.
            declared: told the length in seconds that the file declares or FFmpeg estimates, if there is one.
            refuse_incomplete: whether it is an error that parts of the recording are missing.
            warn: told otherwise that they are.

        Raises:
            BadAudio: the file cannot be decoded, or it crashed or hung the decoder, or it is incomplete.
            TooLarge: it is longer than `max_seconds`, or has more samples than `max_values`.
            OutOfDescriptors: no process can be started.
        """
        limits = FileLimits(
            max_rate=max_rate,
            max_channels=max_channels,
            max_seconds=max_seconds,
            max_values=max_values,
            min_rate=min_rate,
            refuse_incomplete=refuse_incomplete,
        )
        answer = Answer(max_rate, declared, warn)
        helper = self._take()
        state = _State.LOST
        try:
            helper.request(descriptor, Request(limits, cpu_seconds))
            self._start_spare()
            while state is not _State.DONE:
                state = _State.LOST
                kind, payload = helper.receive(self._block_timeout)
                if kind == b"L":
                    self._say_lacking(payload)
                    continue
                block = answer.read(kind, payload)
                state = _State.BETWEEN
                if block is not None:
                    yield answer.rate, block
                elif kind == b"E":
                    state = _State.DONE
        except TimeoutError:
            log.warning("a decoder process was ended: it gave nothing for %g s", self._block_timeout)
            raise BadAudio(
                f"file cannot be decoded: its decoder gave nothing for {self._block_timeout:g} s",
                param="file",
                code="audio_decoder_hung",
            ) from None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            how = helper.end(_GRACE)
            said = helper.said()
            log.warning("a decoder process was lost: %s", how, extra={"stderr": said} if said else None)
            raise _died(how) from None
        except Nonsense as nonsense:
            log.warning("a decoder process was ended: it said %s", nonsense)
            raise _died("it was ended") from None
        except Refused as refusal:
            state = _State.DONE
            raise refusal.error from None
        finally:
            self._let_go(helper, state)

    def _take(self) -> Helper:
        with self._lock:
            self._at_work += 1
            while self._idle:
                helper = self._idle.pop()
                if helper.alive():
                    return helper
                _end(helper)
        try:
            return Helper(self._memory_bytes)
        except BaseException as error:
            with self._lock:
                self._at_work -= 1
            if isinstance(error, OSError) and lacks_descriptors(error):
                raise OutOfDescriptors(f"no decoder can be started: {error.strerror}") from error
            raise

    def _start_spare(self) -> None:
        """Have a helper ready for the next request that comes while all of them are at work."""
        with self._lock:
            wanted = self._spare and not self._idle and self._at_work < _MOST_WITH_SPARE
        if wanted:
            with contextlib.suppress(OSError):  # then the next request starts one, or says why not
                self._keep(Helper(self._memory_bytes, gently=True))

    def _let_go(self, helper: Helper, state: _State) -> None:
        """A file has ended, one way or the other."""
        with self._lock:
            self._at_work -= 1
        reusable = state is _State.DONE or (state is _State.BETWEEN and _reads_on(helper))
        if reusable and helper.alive():
            self._keep(helper)
        else:
            _end(helper)

    def _keep(self, helper: Helper) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_KEPT:
                self._idle.append(helper)
                return
        with contextlib.suppress(OSError):
            _end(helper, _GRACE)

    def _say_lacking(self, payload: memoryview) -> None:
        """Log what a helper's sandbox lacks on this host, once."""
        with self._lock:
            said, self._lacking_said = self._lacking_said, True
        if not said:
            try:
                lacking = ", ".join(map(str, json.loads(bytes(payload))))
            except (TypeError, ValueError, RecursionError):
                lacking = "what it does not say"
            log.warning(
                "the processes that decode uploads are not fully confined: this kernel or container lacks %s",
                lacking,
            )


def _end(helper: Helper, grace: float = 0.0) -> None:
    helper.end(grace)
    helper.said()


def _reads_on(helper: Helper) -> bool:
    """Read what a helper still says of a file that nobody wants, if that is little; whether it was."""
    try:
        for _ in range(_LEFT_MESSAGES):
            if helper.receive(_LEFT_SECONDS)[0] in {b"E", b"X"}:
                return True
    except (OSError, EOFError):
        pass
    return False


def _died(how: str) -> BadAudio:
    return BadAudio(
        f"file cannot be decoded: it is damaged, its decoder did not survive it ({how})",
        param="file",
        code="audio_decoder_died",
    )
