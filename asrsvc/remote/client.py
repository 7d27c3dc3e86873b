"""Asking other machines: a recording is fetched, a webhook is called. Both go to listed hosts alone."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import ModuleType
from typing import Final, TypeAlias

from asrsvc.errors import (
    BadRequest,
    FetchFailed,
    FetchTimeout,
    TooLarge,
    UrlRefused,
)
from asrsvc.remote.addresses import Address
from asrsvc.remote.hosts import SETTING, HostList
from asrsvc.remote.resolve import Resolve, addresses, by_system
from asrsvc.remote.target import Target, joined, parse
from asrsvc.system.disk import lacks_descriptors, storage_error

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_KINDS: Final = re.compile(
    r"(audio|video)/.+|(application|binary)/(octet-stream|ogg|x-ogg|mp4|x-download|force-download)"
)
"""media types of recordings, and what servers say of files that they know nothing of; none is fine too"""
_PLAIN_KIND: Final = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40}")
_WRITE_BYTES: Final = 2**20
_ANSWER_BYTES: Final = 64 * 1024
"""of an answer to a webhook that are read, at most"""

Reserve: TypeAlias = Callable[[int], Awaitable[None]]
"""told how many bytes will come, at most, before the first does; raises where there is no room"""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What a fetch may take at most."""

    bytes: int
    """of the file"""
    idle_seconds: float
    """silence of the other side"""
    deadline: float
    """of time.monotonic(), for the whole file to be there"""


async def no_reserve(_size: int) -> None:
    """There is room."""


class Client:
    """Goes to the hosts of one list."""

    def __init__(self, hosts: HostList, resolve: Resolve = by_system) -> None:
        """Prepare; nothing is imported or opened before the first request.

        Args:
            hosts: the list.
            resolve: asks for a name.
        """
        self._hosts = hosts
        self._resolve = resolve

    async def check(self, text: str, field: str) -> Target:
        """Whether a request may go to an address, as far as that can be said now.

        Raises:
            BadRequest: it is no address.
            UrlRefused, FetchFailed, FetchTimeout: as `fetch`.
        """
        target = parse(text, field)
        await self._checked(target, field)
        return target

    async def fetch(
        self,
        text: str,
        descriptor: int,
        limits: FetchLimits,
        *,
        field: str = "url",
        reserve: Reserve = no_reserve,
    ) -> int:
        """Write the file that an address names; redirects are followed to listed hosts.

        Args:
            text: the address.
            descriptor: of the file that is written to.
            limits: of the fetch.
            field: of the request that names it.
            reserve: see `Reserve`.

        Returns:
            bytes of the file.

        Raises:
            BadRequest: it is no address.
            UrlRefused: its host is not in the list, or leads to a private address; or a redirect's.
            FetchFailed: there is no file, or none that may be a recording.
            FetchTimeout: it did not come in time.
            TooLarge: it is larger than the limit.
            NoSpace, OutOfDescriptors: the disk refuses, or the kernel.
        """
        connection = await _connection()
        target = parse(text, field)
        try:
            async with asyncio.timeout(max(0.0, limits.deadline - time.monotonic())):
                found = await self._checked(target, field)
                for _ in range(_MOST_REDIRECTS + 1):
                    async with connection.answer_of(
                        "GET",
                        target,
                        found,
                        headers={"Accept": "*/*"},
                        idle_seconds=limits.idle_seconds,
                        field=field,
                    ) as answer:
                        headers = _headers(answer.headers)
                        if answer.status in _REDIRECTS and "location" in headers:
                            target, found = await self._redirected(target, headers["location"], field)
                            continue
                        size = _check(target, answer.status, headers, limits, field)
                        await reserve(limits.bytes if size is None else size)
                        async with aclosing(answer.aiter_stream()) as chunks:
                            return await _save(chunks, descriptor, limits, field)
        except TimeoutError:
            raise FetchTimeout(
                f"{field}: {target.origin} did not send all of the file in time", param=field
            ) from None
        raise FetchFailed(f"{field} redirects more than {_MOST_REDIRECTS} times", param=field)

    async def post(
        self, text: str, headers: Mapping[str, str], content: bytes, *, seconds: float, field: str = "webhook"
    ) -> int:
        """Send something to an address; no redirect is followed.

        Args:
            text: the address.
            headers: of the request.
            content: of the request.
            seconds: for all of it.
            field: of the request that names the address.

        Returns:
            HTTP's number for how it was answered.

        Raises:
            BadRequest, UrlRefused, FetchFailed, FetchTimeout: as `fetch`.
        """
        connection = await _connection()
        target = parse(text, field)
        try:
            async with asyncio.timeout(seconds):
                found = await self._checked(target, field)
                async with connection.answer_of(
                    "POST",
                    target,
                    found,
                    headers=headers,
                    content=content,
                    idle_seconds=seconds,
                    field=field,
                ) as answer:
                    read = 0
                    async with aclosing(answer.aiter_stream()) as chunks:
                        async for chunk in chunks:
                            read += len(chunk)
                            if read > _ANSWER_BYTES:
                                break
                    return int(answer.status)
        except TimeoutError:
            raise FetchTimeout(
                f"{field}: {target.origin} did not answer within {seconds:g} s", param=field
            ) from None

    async def _checked(self, target: Target, field: str) -> tuple[Address, ...]:
        self._hosts.check(target, field)
        return await addresses(target, self._hosts, self._resolve, field)

    async def _redirected(
        self, target: Target, location: str, field: str
    ) -> tuple[Target, tuple[Address, ...]]:
        """Where to look next; where that is is not told: it may tell of a network.

        Raises:
            UrlRefused: nowhere that a request may go.
        """
        try:
            following = joined(target, location, field)
            return following, await self._checked(following, field)
        except (BadRequest, FetchFailed):
            raise UrlRefused(
                f"{field}: {target.origin} redirects to where no request may go by {SETTING}", param=field
            ) from None


async def _connection() -> ModuleType:
    """What speaks HTTP, imported and ready."""

    def load() -> ModuleType:
        from asrsvc.remote import connection  # noqa: PLC0415 - most services never need it

        connection.prepare()
        return connection

    try:
        return await asyncio.to_thread(load)
    except OSError as error:
        if lacks_descriptors(error):
            raise storage_error("nobody can be asked", error) from error
        raise FetchFailed(f"the certificates of this machine cannot be read: {error.strerror}") from error


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name; of several, all."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _check(
    target: Target, status: int, headers: dict[str, str], limits: FetchLimits, field: str
) -> int | None:
    """Whether a header promises a recording; its bytes, if it says so.

    Raises:
        FetchFailed: it does not.
        TooLarge: it promises too much.
    """
    if status != 200:
        raise FetchFailed(f"{field}: {target.origin} answers with status {status}; 200 is right", param=field)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not _KINDS.fullmatch(kind):
        shown = kind if _PLAIN_KIND.fullmatch(kind) else "something else"
        raise FetchFailed(
            f"{field}: {target.origin} sends {shown}; audio, video or application/octet-stream is right",
            param=field,
            code="url_wrong_type",
        )
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise FetchFailed(f"{field}: {target.origin} sends it packed, which was not asked for", param=field)
    text = headers.get("content-length", "")
    size = int(text) if text.isascii() and text.isdecimal() and "transfer-encoding" not in headers else None
    if size is not None and size > limits.bytes:
        raise _too_large(limits.bytes, f"{size} bytes", field)
    return size


async def _save(chunks: AsyncGenerator[bytes, None], descriptor: int, limits: FetchLimits, field: str) -> int:
    size = written = 0
    waiting: list[bytes] = []
    async for chunk in chunks:
        size += len(chunk)
        if size > limits.bytes:
            raise _too_large(limits.bytes, f"over {limits.bytes} bytes", field)
        waiting.append(chunk)
        if size - written >= _WRITE_BYTES:
            await _write(descriptor, waiting, field)
            waiting, written = [], size
    await _write(descriptor, waiting, field)
    return size


async def _write(descriptor: int, chunks: list[bytes], field: str) -> None:
    def write() -> None:
        rest = memoryview(b"".join(chunks))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    task = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})  # the descriptor is closed then, and may become another file's
        raise
    except OSError as error:
        raise storage_error(f"what {field} names cannot be stored", error, param=field) from error


def _too_large(limit: int, found: str, field: str) -> TooLarge:
    return TooLarge(
        f"what {field} names is too large: {found}; the limit is {limit // 2**20} MiB ({limit} bytes)",
        param=field,
    )
