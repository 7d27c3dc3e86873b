"""A line of requests that wait, held by the kernel: each is a connection and a file with what has come.

A lane is a pair of Unix SOCK_SEQPACKET sockets that the master makes and every worker inherits, old
and new. A worker that has read a request passes both descriptors in (SCM_RIGHTS, unix(7)) with the time
when the request began to wait; a worker with a free slot takes the oldest one out. Nothing waits in a
process that may leave or die, and how many wait is the kernel's own count.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from asrsvc.serving.limits import NO_TICKET

# CLOCK_MONOTONIC when it began to wait, seconds; its ticket in the table of clients; the number of its
# client; whether the first bytes of its answer have been sent.
_MESSAGE: Final = struct.Struct("!dqq?")
_DESCRIPTORS: Final = 2
_CONTROL_BYTES: Final = socket.CMSG_LEN(_DESCRIPTORS * array.array("i").itemsize)
# A waiting connection takes less than this of the socket's buffer (skb and its control message).
_BUFFER_BYTES: Final = 1024
_SO_SNDBUFFORCE: Final = 32  # socket(7); not in Python's socket module
_DEAD: Final = select.POLLHUP | select.POLLERR
AHEAD: Final = b"HTTP/1.1 "
"""what every answer begins with"""
# What the kernel says when there is no room: a full buffer, or too many descriptors in flight.
_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE})


class LaneName(IntEnum):
    """How much work a request is taken to be; each size has a queue of its own."""

    SHORT = 0
    LONG = 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits, or has waited."""

    connection: socket.socket
    spool: int
    """descriptor of the file that holds the request; see `asrsvc.serving.parcel`"""
    arrived: float
    """time.monotonic() when it began to wait, seconds"""
    ticket: int = NO_TICKET
    """in the table of clients"""
    client: int = 0
    """number of its client; see `asrsvc.serving.limits.number_of`"""
    ahead: bool = False
    """whether the first bytes of its answer have been sent; see `listens`"""

    def close(self) -> None:
        """Let go of both descriptors."""
        self.connection.close()
        os.close(self.spool)


class Lane:
    """One line of waiting connections, first come, first served."""

    def __init__(self, entrance: socket.socket, exit_: socket.socket, limit: int) -> None:
        self._entrance = entrance
        self._exit = exit_
        self._limit = limit

    @classmethod
    def create(cls, limit: int) -> Lane:
        """Make an empty lane.

        Args:
            limit: connections that may wait.
        """
        entrance, exit_ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        size = limit * _BUFFER_BYTES
        try:
            entrance.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
        except PermissionError:
            # Not root: net.core.wmem_max is the limit, about 270 connections by default.
            entrance.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        return cls._non_blocking(entrance, exit_, limit)

    @classmethod
    def inherit(cls, descriptors: tuple[int, int], limit: int) -> Lane:
        """Take over a lane of another program, by the numbers of its two descriptors."""
        entrance, exit_ = (socket.socket(fileno=number) for number in descriptors)
        return cls._non_blocking(entrance, exit_, limit)

    @classmethod
    def _non_blocking(cls, entrance: socket.socket, exit_: socket.socket, limit: int) -> Lane:
        entrance.settimeout(0)
        exit_.settimeout(0)
        return cls(entrance, exit_, limit)

    def descriptors(self) -> tuple[int, int]:
        """Numbers of the entrance and the exit, to be inherited."""
        return self._entrance.fileno(), self._exit.fileno()

    def fileno(self) -> int:
        """The exit's descriptor: readable while somebody waits."""
        return self._exit.fileno()

    def close(self) -> None:
        """Let go of both ends; what waits is lost with the last process that has them."""
        self._entrance.close()
        self._exit.close()

    def set_limit(self, limit: int) -> None:
        """Let so many connections wait from now on (the buffer stays as it was made)."""
        self._limit = limit

    def __len__(self) -> int:
        """Connections that wait now."""
        held = array.array("i", [0])
        fcntl.ioctl(self._exit.fileno(), termios.FIONREAD, held)
        return held[0] // _MESSAGE.size

    def put(self, waiting: Waiting) -> bool:
        """Let a request wait; False if the lane is full. The caller closes its own descriptors."""
        if len(self) >= self._limit:
            return False
        message = _MESSAGE.pack(waiting.arrived, waiting.ticket, waiting.client, waiting.ahead)
        descriptors = [waiting.connection.fileno(), waiting.spool]
        try:
            socket.send_fds(self._entrance, [message], descriptors)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    def look(self) -> tuple[float, int] | None:
        """When the request that has waited longest began to wait (time.monotonic()), and the number of its
        client; None: none waits.
        """
        try:
            message = self._exit.recv(_MESSAGE.size, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        arrived, _ticket, client, _ahead = _MESSAGE.unpack(message)
        return float(arrived), int(client)

    def take(self, *, alone: bool = False) -> Waiting | None:
        """The request that has waited longest; None: none waits, or this process has no descriptors free.

        A descriptor that does not fit into the table of the process that receives it is lost (recvmsg(2),
        MSG_CTRUNC). So the message is looked at first, which opens descriptors in this process, and only then
        taken out: where they do not fit, the request stays for a process that has room.

        One whose client has gone is still given out; `wanted` tells.

        Args:
            alone: whether no other process takes from this lane meanwhile. Else the message may be another
                one by then, and its own descriptors have to be received.
        """
        received = self._receive(socket.MSG_PEEK)
        if received is None:
            return None
        if alone:
            self._exit.recv(_MESSAGE.size)  # without a buffer for descriptors: the kernel closes its own
            return received
        received.close()
        return self._receive(0)

    def _receive(self, flags: int) -> Waiting | None:
        # socket.recv_fds drops its flags.
        try:
            message, controls, _flags, _address = self._exit.recvmsg(_MESSAGE.size, _CONTROL_BYTES, flags)
        except BlockingIOError:
            return None
        descriptors = array.array("i")
        for level, kind, data in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if len(descriptors) < _DESCRIPTORS:
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        arrived, ticket, client, ahead = _MESSAGE.unpack(message)
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(0)
        return Waiting(connection, descriptors[1], arrived, ticket, client, ahead)


def wanted(waiting: Waiting) -> Waiting | None:
    """The request, with what is known now of its client; None: nobody is left who would read the answer."""
    if not has_gone(waiting.connection):
        return waiting
    if waiting.ahead:
        return None if is_dead(waiting.connection.fileno()) else waiting
    return replace(waiting, ahead=True) if listens(waiting.connection) else None


def has_gone(connection: socket.socket) -> bool:
    """Whether the other side will send no more: it has closed, or shut down its half (shutdown(2))."""
    return bool(_events(connection.fileno()))


def is_dead(descriptor: int) -> bool:
    """Whether it is known that nobody is left who would read an answer."""
    return bool(_events(descriptor) & _DEAD)


def listens(connection: socket.socket) -> bool:
    """Whether the other side, which will send no more, may still want its answer.

    What tells a half that was shut down from a connection that was closed is the reply to something that is
    sent: a closed one resets the connection. So the first bytes of the answer, which are always the same,
    are sent ahead. From this machine the reset is there at once, from another after a moment.
    """
    try:
        connection.send(AHEAD)
    except OSError:
        return False
    return not is_dead(connection.fileno())


def _events(descriptor: int) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return sum(events for _descriptor, events in poll.poll(0))
