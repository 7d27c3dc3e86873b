"""Addresses of clients: behind proxies, as subscribers, and in Host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.datastructures import Headers

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_CHAIN: Final = 50
_IPV6_PREFIX: Final = 64  # what one subscriber has
_LONGEST_HOST: Final = 300
"""characters of a host with its port: a name in DNS has 253"""
_LARGEST_PORT: Final = 65535
_AUTHORITY: Final = re.compile(
    # An IPv6 address may have a zone (RFC 6874), which says nothing here.
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)(?:%(?:25)?[A-Za-z0-9._~-]+)?\]"
    r"|(?P<name>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))"
    r"(?::(?P<port>[0-9]*))?"
)


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
        found = ip_of(name)
        if found is None:
            with suppress(ValueError):
                found = authority(name).address  # with a port, or in brackets, as some proxies write it
        if found is None:
            return
        yield str(found)


@dataclass(frozen=True, slots=True)
class Authority:
    """What `Host` names: uri-host [":" port] (RFC 9110, section 7.2; RFC 3986, section 3.2.2)."""

    name: str
    """in lower case, without a dot at its end; empty: an address, or nothing"""
    address: Address | None
    port: int | None


def authority(text: str) -> Authority:
    """Take apart what `Host`, or a request target in its absolute form, names.

    An address has its usual form alone: `127.1`, `2130706433` and `0177.0.0.1` are names.

    Raises:
        ValueError: it is none; a sentence that says what would be right.
    """
    if len(text) > _LONGEST_HOST:
        raise ValueError(f"it has {len(text)} characters; {_LONGEST_HOST} are the most")
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError("a name or an address is right, and perhaps a colon and a port")
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _LARGEST_PORT:
        raise ValueError(f"a port to {_LARGEST_PORT} is right")
    if found["v6"] is not None:
        try:
            address = ipaddress.IPv6Address(found["v6"])
        except ValueError:
            raise ValueError("an IPv6 address in brackets is right") from None
        return Authority("", address.ipv4_mapped or address, port)
    name = found["name"].lower()
    if (v4 := ip_of(name)) is not None:
        return Authority("", v4, port)
    labels = name.removesuffix(".").split(".")
    if name and not all(labels):
        raise ValueError("a name without empty parts between its dots is right")
    return Authority(".".join(labels), None, port)


def ip_of(text: str) -> Address | None:
    """The address of this text, an IPv4 one in IPv6's clothes as itself, without a zone; None: it is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))
    return found


def subscriber(address: str) -> str:
    """What an address is counted by: an IPv6 subscriber has a whole network."""
    found = ip_of(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return address
