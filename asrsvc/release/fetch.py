"""Asking a hub over HTTP: bounded in bytes, time, redirects and tries; a file goes on where it was cut.

RFC 9110 has the rules for ranges (§14) and for `If-Range` (§13.1.5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from asrsvc.errors import BadArgument, DownloadFailed, SourceError, WrongDigest
from asrsvc.release.hops import Hops
from asrsvc.release.manifest import FileRecord
from asrsvc.release.partial import Partial
from asrsvc.release.progress import Limits, Progress, Report
from asrsvc.release.reply import (
    Passing,
    check_hop,
    check_kind,
    check_status,
    extent,
    is_untrusted,
    validator,
    with_link,
)
from asrsvc.release.sources import shown
from asrsvc.system.documents import DocumentError, parse_json

_Found = TypeVar("_Found")

_REAL_PROGRESS_BYTES: Final = 1 << 20
"""new in one try, after which the tries are counted anew"""
_MOST_VALUES: Final = 500_000
"""in a hub's list; one of 3000 files has a tenth of it"""


class Fetcher:
    """The connections of one pull."""

    def __init__(self, limits: Limits, report: Report) -> None:
        self._limits = limits
        self._report = report
        self._received = 0
        self._hops = Hops()
        self._client = httpx.AsyncClient(
            transport=self._hops,
            follow_redirects=True,
            max_redirects=limits.redirects,
            timeout=limits.idle_seconds,
            headers={"User-Agent": "asrsvc", "Accept-Encoding": "identity"},
            event_hooks={"request": [check_hop]},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def head(self, url: str) -> httpx.Headers:
        """The header of the first answer, which may be a redirect.

        Raises:
            SourceError: there is no such thing.
            DownloadFailed: the hub fails.
        """

        async def attempt() -> httpx.Headers:
            answer = await self._client.head(url, follow_redirects=False)
            if not answer.is_redirect and answer.status_code != httpx.codes.METHOD_NOT_ALLOWED:
                check_status(answer)
            return answer.headers

        return await self._insist("the list of files", url, attempt)

    async def json(self, url: str) -> tuple[Any, httpx.Headers]:
        """What a hub says of itself, and the header of the answer.

        Raises:
            SourceError: there is no such thing.
            DownloadFailed: the hub fails, or says something else than JSON.
        """

        async def attempt() -> tuple[Any, httpx.Headers]:
            content = bytearray()
            async with self._client.stream("GET", url) as answer:
                check_status(answer)
                async for block in answer.aiter_raw():
                    content += block
                    if len(content) > self._limits.list_bytes:
                        limit = self._limits.list_bytes
                        raise DownloadFailed(f"{shown(url)} sends a list of more than {limit} bytes")
            try:
                return parse_json(bytes(content), most_values=_MOST_VALUES), answer.headers
            except DocumentError as error:
                kind = answer.headers.get("content-type", "no type")[:100]
                raise DownloadFailed(
                    f"{shown(url)} is no list of files ({len(content)} bytes, {kind}): a login, a proxy or a"
                    " wrong endpoint?"
                ) from error

        return await self._insist("the list of files", url, attempt)

    async def file(self, partial: Partial, target: Path | None) -> FileRecord:
        """Have a file whole and checked.

        Args:
            partial: what is known of it, and what has arrived of it.
            target: its place, where nothing is; None: it stays in its part.

        Raises:
            SourceError: there is no such file.
            WrongDigest: it is not the wanted one.
            DownloadFailed: the hub fails; what has arrived is kept.
            OSError: the disk refuses.
        """
        resumed = _may_resume(partial)
        if not resumed:
            partial.discard()
        try:
            record = await self._whole(partial, target)
        except WrongDigest:
            if not resumed:
                raise
            name = partial.wanted.name
            self._report(Progress("retry", name, detail="what was there did not fit: from the start"))
            partial.discard()
            record = await self._whole(partial, target)
        self._report(Progress("done", partial.wanted.name, record.size, record.size))
        return record

    async def _whole(self, partial: Partial, target: Path | None) -> FileRecord:
        wanted = partial.wanted
        if wanted.size is None or partial.size < wanted.size:
            await self._insist(wanted.name, wanted.url, lambda: self._more(partial), lambda: partial.size)
        return partial.complete(target)

    async def _more(self, partial: Partial) -> None:
        """One request: append what comes."""
        wanted, have = partial.wanted, partial.size
        if have and not _may_resume(partial):
            partial.discard()
            have = 0
        header = {"Range": f"bytes={have}-"} if have else {}
        if have and partial.validator:
            header["If-Range"] = partial.validator
        async with self._client.stream("GET", wanted.url, headers=header) as answer:
            if have and answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                if answer.headers.get("content-range") == f"bytes */{have}" and wanted.size is None:
                    return  # all of it was there
                partial.discard()
                raise Passing("it has another length than before")
            check_status(answer)
            check_kind(answer)
            partial.wanted = wanted = with_link(wanted, answer)
            start, total = extent(answer, have)
            if total is not None and wanted.size is not None and total > wanted.size:
                raise WrongDigest(f"{wanted.name} has {total} bytes, not {wanted.size}")
            if start == 0:
                partial.begin(validator(answer.headers))
            total = wanted.size if wanted.size is not None else total
            await self._append(partial, answer, start, total)
        if total is not None and partial.size < total:
            raise Passing(f"the answer ended after {partial.size} of {total} bytes")

    async def _append(self, partial: Partial, answer: httpx.Response, start: int, total: int | None) -> None:
        name, most = partial.wanted.name, self._limits.total_bytes
        done = start
        if start:
            self._report(Progress("resume", name, start, total))
        with partial.appended(None if total is None else total - start) as writer:
            async for block in answer.aiter_raw():
                done += len(block)
                self._received += len(block)
                if total is not None and done > total:
                    raise WrongDigest(f"{name} has more than the {total} bytes that were promised")
                if done > most or self._received > most:
                    raise SourceError(f"{name} and what came before it have more than {most} bytes")
                _write(writer, block)
                self._report(Progress("download", name, done, total))

    async def _insist(
        self,
        name: str,
        url: str,
        attempt: Callable[[], Awaitable[_Found]],
        arrived: Callable[[], int] = lambda: 0,
    ) -> _Found:
        """Try until it succeeds, but no more often than allowed without progress."""
        failures, mark = 0, arrived()
        while True:
            wait = 0.0
            try:
                self._hops.name(url)
                return await attempt()
            except Passing as error:
                reason, wait = str(error), error.retry_after
            except httpx.TooManyRedirects as error:
                raise DownloadFailed(
                    f"{name} ({shown(url)}) redirects more than {self._limits.redirects} times"
                ) from error
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, BadArgument) as error:
                raise DownloadFailed(
                    f"{name} ({shown(url)}) redirects to where it must not: {error}"
                ) from error
            except httpx.RequestError as error:
                reason = self._reason(error)
                if is_untrusted(error):
                    raise DownloadFailed(f"{name} ({shown(url)}): {reason}") from error
            if arrived() >= mark + _REAL_PROGRESS_BYTES:
                failures, mark = 0, arrived()
            failures += 1
            if failures >= self._limits.tries:
                raise DownloadFailed(f"{name} ({shown(url)}): {reason}; tried {failures} times")
            wait = max(wait, self._limits.backoff_seconds * 2 ** (failures - 1))
            wait = min(wait, self._limits.longest_backoff_seconds)
            self._report(Progress("retry", name, detail=f"{reason}; once more in {wait:g} s"))
            await asyncio.sleep(wait)

    def _reason(self, error: httpx.RequestError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"no byte for {self._limits.idle_seconds:g} s"
        return str(error) or type(error).__name__


def _may_resume(partial: Partial) -> bool:
    wanted = partial.wanted
    fits = wanted.size is None or partial.size <= wanted.size
    return partial.size > 0 and fits and (wanted.is_certain or partial.validator is not None)


def _write(writer: Any, block: bytes) -> None:
    """All of it: a writer without a buffer may take less."""
    rest = memoryview(block)
    while rest:
        rest = rest[writer.write(rest) :]
