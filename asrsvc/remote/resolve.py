"""From a host to the addresses that are connected to: asked once, checked, and used as they are.

What is checked is what is connected to: a name that stands for another address a moment later
(DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final, TypeAlias

from asrsvc.errors import FetchFailed, FetchTimeout, UrlRefused
from asrsvc.remote.addresses import Address
from asrsvc.remote.hosts import SETTING, HostList
from asrsvc.remote.target import Target

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""the addresses that a name stands for, as text; OSError where it stands for none"""

_SECONDS: Final = 10.0
_MOST: Final = 8
"""addresses of one host that are tried"""


async def by_system(host: str, port: int) -> Sequence[str]:
    """Ask as any program of this machine does; getaddrinfo(3).

    Raises:
        OSError: the name stands for nothing, or nobody can be asked.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def addresses(target: Target, hosts: HostList, resolve: Resolve, field: str) -> tuple[Address, ...]:
    """The addresses that a request may be sent to, in the order in which they are tried.

    Args:
        target: where to; its host is in the list.
        hosts: the list.
        resolve: asks for a name.
        field: of the request that names it.

    Raises:
        UrlRefused: it has none but private ones.
        FetchFailed: it has none at all.
        FetchTimeout: nobody says so in time.
    """
    found: list[Address]
    if target.address is not None:
        found = [target.address]
    else:
        try:
            async with asyncio.timeout(_SECONDS):
                found = [ip_address(text) for text in await resolve(target.host, target.port)]
        except TimeoutError:
            raise FetchTimeout(
                f"{field}: nobody said in {_SECONDS:g} s where {target.host} is", param=field
            ) from None
        except (OSError, ValueError):
            raise FetchFailed(f"{field}: no host is called {target.host}", param=field) from None
    allowed = hosts.allowed(target, found)
    if not allowed:
        raise UrlRefused(
            f"{field} names {target.origin[:100]}, which has no public address, and {SETTING} names no other",
            param=field,
        )
    return allowed[:_MOST]
