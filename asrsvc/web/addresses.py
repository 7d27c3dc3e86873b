"""Addresses of clients: behind proxies, as subscribers, and in Host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

_LONGEST_CHAIN: Final = 50
_IPV6_PREFIX: Final = 64  # what one subscriber has


@dataclass(frozen=True, slots=True)
class Proxies:
    """Those whose X-Forwarded-For is believed."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    unix: bool
    """whether whoever comes by a Unix socket is one"""

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Proxies:
        """Those that ASR_TRUSTED_PROXIES names."""
        networks = (ipaddress.ip_network(name) for name in names if name != "unix")
        return cls(tuple(networks), "unix" in names)

    def client_address(self, peer: str, headers: Headers) -> str:
        """The client's own address: the last in the chain of proxies that no trusted proxy vouches for.

        Args:
            peer: the other side of the connection; empty for a Unix socket.
            headers: of the request.
        """
        address = peer or "unix"
        for hop in _hops(headers):
            if not self._trusts(address):
                break
            address = hop
        return address

    def _trusts(self, address: str) -> bool:
        if address == "unix":
            return self.unix
        found = ip_of(address)
        return found is not None and any(
            found.version == network.version and found in network for network in self.networks
        )


def _hops(headers: Headers) -> Iterator[str]:
    """The addresses of X-Forwarded-For, the last first, up to one that is no address."""
    chain = ",".join(headers.getlist("x-forwarded-for")).split(",")
    for item in reversed(chain[-_LONGEST_CHAIN:]):
        name = item.strip()
        if name.startswith("[") or name.count(":") == 1:  # with a port, as some proxies write it
            name = host_name(name)
        found = ip_of(name)
        if found is None:
            return
        yield str(found)


def host_name(host: str) -> str:
    """What Host names, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def ip_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of this text, an IPv4 one in IPv6's clothes as itself; None: it is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def subscriber(address: str) -> str:
    """What an address is counted by: an IPv6 subscriber has a whole network."""
    found = ip_of(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return address
