"""The field `url`: a recording on another machine, fetched into the form as if it had been uploaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from starlette.requests import Request

from asrsvc.errors import BadRequest, Cancelled
from asrsvc.remote.client import Client, FetchLimits, Reserve, no_reserve
from asrsvc.remote.hosts import SETTING
from asrsvc.remote.target import parse
from asrsvc.system.disk import storage_error
from asrsvc.web.fields import Field
from asrsvc.web.form import Form
from asrsvc.web.upload import UploadLimits, spool_file

T = TypeVar("T")

URL: Final = Field(
    "url",
    f"https address of the recording, instead of file; its host must be one of {SETTING}",
    most_bytes=8192,
)


class UrlField:
    """Fetches what forms name."""

    def __init__(self, client: Client | None, limits: UploadLimits) -> None:
        """Prepare.

        Args:
            client: goes to the hosts that may be asked; None: there are none.
            limits: of uploads, which hold for what is fetched too.
        """
        self._client = client
        self._limits = limits

    async def fetch(
        self,
        request: Request,
        form: Form,
        *,
        open_file: Callable[[], int] | None = None,
        reserve: Reserve = no_reserve,
    ) -> None:
        """Put the recording into a form that names one and holds none.

        A remote host has as long as an upload: what the form itself took is taken off.

        Args:
            request: whose body has been read.
            form: of it.
            open_file: gives the descriptor of what the file is written to; else it is a file without a name.
            reserve: told its size, or the limit, before it comes.

        Raises:
            BadRequest, UrlRefused, FetchFailed, FetchTimeout, TooLarge, NoSpace, OutOfDescriptors: see
                `Client.fetch`.
            Cancelled: the client has gone.
        """
        text = form.fields.get(URL.name, "").strip()
        if not text or form.descriptor is not None:  # it may have been fetched before the request waited
            return
        if self._client is None:
            raise BadRequest(
                f"url is off here: {SETTING} names no hosts; send the recording as file",
                param="url",
                code="url_off",
            )
        limits = FetchLimits(self._limits.bytes, self._limits.idle_seconds, form.begun + self._limits.seconds)
        note = request.scope["state"]["note"]
        note["url_host"] = parse(text, URL.name).host[:100]
        begun = time.monotonic()
        try:
            form.descriptor = (open_file or self._spool_file)()
            form.size = await _unless_gone(
                request, self._client.fetch(text, form.descriptor, limits, reserve=reserve)
            )
        except OSError as error:
            raise storage_error("what url names cannot be stored", error, param="url") from error
        finally:
            note["fetch_ms"] = round((time.monotonic() - begun) * 1000, 1)
        if form.size == 0:
            raise BadRequest("what url names is empty: 0 bytes", param="url", code="file_empty")

    def _spool_file(self) -> int:
        return spool_file(self._limits.spool_dir)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result, if the client is there to hear of it; its body has been read to its end.

    Raises:
        Cancelled: the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the client has gone")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.wait({task, gone})
        if not task.cancelled():
            task.exception()  # looked at: what failed after the client had gone is of no interest


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
