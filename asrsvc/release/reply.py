"""What an answer of a hub means: later perhaps, never, another file, or the file from a certain byte on."""

from __future__ import annotations

import re
import ssl
from dataclasses import replace
from typing import Final

import httpx

from asrsvc.errors import DownloadFailed, SourceError, WrongDigest
from asrsvc.release.partial import Wanted
from asrsvc.release.sources import check_url, shown

_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
_ABSENT: Final = {401, 403, 404, 410, 451}
"""Hugging Face answers 401 for what does not exist"""
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Passing(Exception):
    """A failure that may be over at the next try.

    Args:
        reason: what a person is told.
        retry_after: seconds that the other side asks for.
    """

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


async def check_hop(request: httpx.Request) -> None:
    """Look at each address, those of redirects too.

    Raises:
        BadArgument: it must not be asked.
    """
    check_url(str(request.url))


def check_status(answer: httpx.Response) -> None:
    """Whether it brings what was asked for.

    Raises:
        Passing: it may do so later.
        SourceError: there is no such thing.
        DownloadFailed: anything else.
    """
    code = answer.status_code
    place = shown(str(answer.url))
    if code in _PASSING:
        after = answer.headers.get("retry-after", "")
        raise Passing(f"{place} answers {code}", float(after) if re.fullmatch(r"\d{1,6}", after) else 0)
    if code in _ABSENT:
        raise SourceError(f"{place} answers {code}: it does not exist, or is not for everybody")
    if code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
        raise DownloadFailed(f"{place} answers {code}")


def check_kind(answer: httpx.Response) -> None:
    """Whether it is a file.

    Raises:
        DownloadFailed: it is a web page.
    """
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html":
        raise DownloadFailed(
            f"{shown(str(answer.url))} is a web page, no file: a login, a proxy or a wrong endpoint?"
        )


def with_link(wanted: Wanted, answer: httpx.Response) -> Wanted:
    """With what the hub says of the file on its way to the storage.

    Raises:
        WrongDigest: it says something else than its list.
    """
    for step in [*answer.history, answer]:
        said = step.headers.get("x-linked-etag", "").removeprefix("W/").strip('"').lower()
        size = step.headers.get("x-linked-size", "")
        if re.fullmatch(r"\d{1,18}", size) and wanted.size is None:
            wanted = replace(wanted, size=int(size))
        if re.fullmatch(r"[0-9a-f]{64}", said):
            if wanted.sha256 not in {None, said}:
                raise WrongDigest(f"{wanted.name} has the SHA-256 {said}, not {wanted.sha256}")
            wanted = replace(wanted, sha256=said)
    return wanted


def extent(answer: httpx.Response, have: int) -> tuple[int, int | None]:
    """Where the body of an answer begins in the file, and how long the file is, in bytes.

    Args:
        answer: to a request for all from `have` on.
        have: bytes.

    Raises:
        DownloadFailed: it is another part of the file.
    """
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match is None or int(match[1]) != have:
            raise DownloadFailed(f"{shown(str(answer.url))} sends another range than the one asked for")
        return have, None if match[3] == "*" else int(match[3])
    length = answer.headers.get("content-length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def validator(header: httpx.Headers) -> str | None:
    """What `If-Range` may name: a strong ETag, else a date."""
    etag = str(header.get("etag", ""))
    date: str | None = header.get("last-modified")
    return etag if etag.startswith('"') else date


def is_untrusted(error: BaseException | None) -> bool:
    """Whether the other side could not prove who it is."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
