"""From a request that has been read to the place where it is worked on: here, or in another worker.

A body that is slow to arrive holds no place: the worker that has accepted its connection reads it, and only
a request that is whole waits for the engine. If this worker is idle, it goes on with it; else the connection
and the file with what has come travel through the queue, and whoever takes them answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from asrsvc.errors import HandedOn, OverCapacity
from asrsvc.serving.lanes import LaneName, Waiting
from asrsvc.serving.limits import ClientTable
from asrsvc.serving.parcel import Parcel, Read, head_of, pack
from asrsvc.serving.places import Place, Places
from asrsvc.serving.protocol import LingeringProtocol
from asrsvc.serving.queue import Queue
from asrsvc.system.disk import storage_error


class Intake:
    """The way of one connection's request."""

    def __init__(
        self,
        places: Places,
        queues: Mapping[LaneName, Queue],
        tickets: ClientTable,
        protocol: LingeringProtocol,
        read: Callable[[int], None],
    ) -> None:
        """Prepare.

        Args:
            places: of this worker.
            queues: what waits, by size.
            tickets: where requests are counted.
            protocol: of the connection.
            read: told how many bodies more are being read: they are lost with this process.
        """
        self._places = places
        self._queues = queues
        self._tickets = tickets
        self._protocol = protocol
        self._read = read

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While the body of the request is read."""
        self._read(1)
        try:
            yield
        finally:
            self._read(-1)

    def check_room(self, lane: LaneName, client: int) -> None:
        """See, before a body is read, that its request could wait.

        Raises:
            OverCapacity: its client has as many in the queue as it may.
        """
        queue = self._queues[lane]
        if queue.has_room(client):
            return
        self._places.drop_dead(lane, client)
        if not queue.has_room(client):
            raise _full()

    def enter(self, lane: LaneName, client: int, scope: Mapping[str, Any], form: Read) -> Place:
        """A place for a request that has been read.

        Args:
            lane: its size.
            client: the number of its client.
            scope: its ASGI scope; the state holds its ticket, and what its log line will say.
            form: its form, whose descriptor stays the caller's.

        Raises:
            HandedOn: another worker will answer it, or this one again.
            OverCapacity: it may not wait.
            NoSpace, OutOfDescriptors: it cannot be written down.
        """
        state = scope["state"]
        place = self._places.enter(lane, client, state["ticket"])
        if place is not None:
            return place
        self.hand_on(lane, client, scope, form)
        raise HandedOn

    def hand_on(self, lane: LaneName, client: int, scope: Mapping[str, Any], form: Read) -> None:
        """Put a request into the queue; the caller ends without a word.

        Raises:
            OverCapacity, NoSpace, OutOfDescriptors: as `enter`; then nothing has been done.
        """
        state = scope["state"]
        parcel = Parcel(
            head=head_of(scope),
            fields=state["read"][0],
            lists=state["read"][1],
            size=form.size,
            has_file=form.descriptor is not None,
            begun=form.begun,
            started=state["started"],
            request_id=state["request_id"],
            note=dict(state["note"]),
        )
        with ExitStack() as own:
            try:
                connection = own.enter_context(self._protocol.connection())
                spool = pack(parcel, form.descriptor)
            except OSError as error:
                raise storage_error("the upload cannot be stored", error, param="file") from error
            if form.descriptor is None:
                own.callback(os.close, spool)
            ahead = self._protocol.is_ahead
            self._put(lane, Waiting(connection, spool, time.monotonic(), state["ticket"], client, ahead))
        self._protocol.let_go()

    def _put(self, lane: LaneName, waiting: Waiting) -> None:
        queue = self._queues[lane]
        self._protocol.pause()
        self._tickets.hand_on(waiting.ticket)  # before: another worker may have it at once
        if queue.put(waiting):
            return
        self._places.drop_dead(lane, waiting.client)
        if not queue.put(waiting):
            self._tickets.take(waiting.ticket)
            self._protocol.go_on()
            raise _full()


def _full() -> OverCapacity:
    return OverCapacity("as many requests wait as may wait: try again in a second")
