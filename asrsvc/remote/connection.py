"""One HTTP/1.1 request to addresses that have been checked; httpcore speaks, and goes nowhere else.

No proxy of the environment, no cookie, no redirect, no content that is unpacked on the way. httpcore takes a
fifth of the memory of httpx; even so, workers import this module when the first such request comes.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import certifi
import httpcore

from asrsvc.errors import FetchFailed, FetchTimeout, OutOfDescriptors
from asrsvc.remote.addresses import Address
from asrsvc.remote.target import Target
from asrsvc.system.disk import lacks_descriptors

_CONNECT_SECONDS: Final = 10.0
"""for one address, and again for TLS"""


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the given addresses, whatever name it is asked for; TLS and `Host` keep the name."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the name is known; its addresses have been checked
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers."""
        *others, last = self._addresses
        for address in others:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(str(last), port, timeout, local_address, socket_options)


@cache
def _trust() -> ssl.SSLContext:
    """Whom this machine trusts: as `SSL_CERT_FILE` and `SSL_CERT_DIR` say, else OpenSSL, else certifi."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ssl.create_default_context()
    return ssl.create_default_context(cafile=certifi.where())


def prepare() -> None:
    """Read the certificates of those who are trusted, which takes a moment: call it from a thread.

    Raises:
        OSError: they cannot be read.
    """
    _trust()


@asynccontextmanager
async def answer_of(
    method: str,
    target: Target,
    addresses: Sequence[Address],
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    idle_seconds: float,
    field: str,
) -> AsyncIterator[httpcore.Response]:
    """Send a request; its answer, whose header has come.

    Args:
        method: GET or POST.
        target: where to.
        addresses: of its host, checked.
        headers: beside `Host`.
        content: of the request.
        idle_seconds: silence, at most; the caller bounds the whole.
        field: of the request that names the target.

    Raises:
        FetchFailed: nobody answers there, or not as HTTP wants it; also while the answer is read.
        FetchTimeout: there is silence for too long.
    """
    sent: dict[bytes | str, bytes | str] = {
        "Host": target.authority,
        "User-Agent": "asrsvc",
        "Accept-Encoding": "identity",
    }
    sent.update(headers)
    url = httpcore.URL(
        scheme=target.scheme.encode(),
        host=target.host.encode(),
        port=target.port,
        target=target.path.encode(),
    )
    connect = min(_CONNECT_SECONDS, idle_seconds)
    timeouts = {"connect": connect, "pool": connect, "read": idle_seconds, "write": idle_seconds}
    try:
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=_trust(), max_connections=1, network_backend=_Pinned(addresses)
            ) as pool,
            pool.stream(
                method, url, headers=sent, content=content, extensions={"timeout": timeouts}
            ) as answer,
        ):
            yield answer
    except httpcore.ConnectTimeout:
        raise FetchTimeout(f"{field}: {target.origin} does not answer", param=field) from None
    except httpcore.TimeoutException:
        raise FetchTimeout(
            f"{field}: {target.origin} said nothing for {idle_seconds:g} s", param=field
        ) from None
    except httpcore.ConnectError as error:
        if lacks_descriptors(error):
            raise OutOfDescriptors(
                f"{field}: {target.origin} cannot be connected to now", param=field
            ) from None
        reason = (
            "shows no certificate that is trusted here" if _untrusted(error) else "cannot be connected to"
        )
        raise FetchFailed(f"{field}: {target.origin} {reason}", param=field) from None
    except (httpcore.NetworkError, httpcore.ProtocolError):
        raise FetchFailed(f"{field}: {target.origin} broke off, or speaks no HTTP", param=field) from None


def _untrusted(error: BaseException) -> bool:
    """Whether TLS failed for the other side's certificate."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
