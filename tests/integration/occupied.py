"""A service whose places for long recordings are all taken by one client, and its queue."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import soundfile
from bodies import Reply, connection, exchange, read_reply, request, upload
from service import CLIPS, is_read, wait_for
from waiting import PATIENCE

from asrsvc.serving.places import MOST_LONG

_STABLE_SECONDS = 1.0
"""a worker that has a place takes what waits within a fraction of that"""


@cache
def hours() -> bytes:
    """A form with two hours of speech, large enough to count as long by its bytes."""
    samples, rate = soundfile.read(CLIPS / "en_1.flac", dtype="float32")
    assert rate == 16_000
    content = io.BytesIO()
    soundfile.write(content, np.resize(samples[::2], 2 * 3600 * 8000), 8000, format="WAV", subtype="PCM_U8")
    return upload(content.getvalue())


def queue_length(port: int, lane: str) -> int:
    """Requests of this size that wait, as the service says."""
    return _metric(port, f'asr_queue_length{{lane="{lane}"}}')


def in_hand(port: int) -> int:
    """Requests that workers have begun and not ended, as the service says; of those whose clients have gone
    too.
    """
    return _metric(port, "asr_requests_in_progress") - 1  # this one


def _metric(port: int, name: str) -> int:
    text = exchange(port, request(b"", method="GET", path="/metrics")).body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return round(float(line.split()[1]))


def _send(made: socket.socket, content: bytes) -> bool:
    """Whether all could be sent: who is refused early may send on for half a minute, and is cut off then.

    The answer has come before that, and can be read still.
    """
    try:
        made.sendall(content)
    except ConnectionError:
        return False
    return True


class Sender:
    """One upload, sent and answered in a thread."""

    def __init__(self, port: int, body: bytes, request_id: str) -> None:
        self.made = socket.create_connection(("127.0.0.1", port), timeout=4 * PATIENCE)
        self.request_id = request_id
        self.sent = False
        self.reply: Reply | None = None
        self._body = body
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.sent = _send(self.made, request(self._body, X_Request_Id=self.request_id))
            reply = read_reply(self.made)
            self.reply = reply if reply.raw else None  # nothing comes when it has left
        except OSError:
            pass  # it has left

    def leave(self) -> None:
        """Cut the connection; with a reset, for an end would stand behind what is not read yet."""
        if self.made.fileno() < 0:
            return  # it has left already
        self.made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        try:
            self.made.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was quicker
        self._thread.join()
        self.made.close()


class Occupation:
    """Hours of sound in every long place that one client may have, and more in the queue."""

    def __init__(self, port: int, waiting: int, name: str) -> None:
        """Send until so many wait.

        Raises:
            TimeoutError: they do not come to wait.
        """
        self.port = port
        self.senders: list[Sender] = []
        try:
            self._fill(waiting, name)
        except BaseException:
            self.end()
            raise

    def _fill(self, waiting: int, name: str) -> None:
        body = hours()
        # The places of those who have just left would be free in a moment, for what is to wait.
        wait_for("nothing is in hand", lambda: in_hand(self.port) <= 0)
        deadline = time.monotonic() + 2 * PATIENCE
        while (length := self._stable_length()) < waiting or not self._all_taken():
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {length} of {waiting} requests wait")
            if length >= waiting:
                continue  # a worker pauses that has a place for them
            sender = Sender(self.port, body, f"{name}-{len(self.senders)}-{time.monotonic_ns()}")
            self.senders.append(sender)
            wait_for(
                "the upload is read",
                lambda sender=sender: sender.reply or (sender.sent and is_read(self.port, sender.made)),
            )
            assert sender.reply is None or sender.reply.status == 429, sender.reply.raw[:1000]
            self._drop_refused()
        self._drop_refused()

    def _drop_refused(self) -> None:
        """What waited before them had not been taken yet; they may be told so after all was read."""
        for sender in [one for one in self.senders if one.reply is not None and one.reply.status == 429]:
            sender.leave()
            self.senders.remove(sender)

    def _stable_length(self) -> int:
        """How many wait, once that has been the same for a while."""
        length, since = queue_length(self.port, "long"), time.monotonic()
        while time.monotonic() - since < _STABLE_SECONDS:
            now = queue_length(self.port, "long")
            if now != length:
                length, since = now, time.monotonic()
            time.sleep(0.05)
        return length

    def _all_taken(self) -> bool:
        """Whether every worker has as many in hand as it takes of one client."""
        return in_hand(self.port) >= _metric(self.port, "asr_workers_wanted") * (MOST_LONG // 2)

    @property
    def last(self) -> Sender:
        """The one that was sent last: it waits."""
        return self.senders[-1]

    def replies(self) -> list[Reply]:
        """Answers that have come."""
        return [sender.reply for sender in self.senders if sender.reply is not None]

    def end(self) -> None:
        """All of them leave."""
        for sender in self.senders:
            sender.leave()


@contextmanager
def occupied(port: int, waiting: int = 1, name: str = "hours") -> Iterator[Occupation]:
    """The service at this port is occupied for the time of a `with` block."""
    made = Occupation(port, waiting, name)
    try:
        yield made
    finally:
        made.end()


def ask_for_long(port: int, **options: str) -> Reply:
    """Send an upload that counts as long by its bytes; the answer to it."""
    with connection(port) as made:
        _send(made, request(hours(), **options))
        return read_reply(made)
