"""The list of hosts that may be asked, `ASR_URL_HOSTS`: a pure decision over names and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

from asrsvc.errors import UrlRefused
from asrsvc.remote.addresses import Address, Network, is_public, plain
from asrsvc.remote.target import PORTS, Target

SETTING = "ASR_URL_HOSTS"


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the list: a name, `*.name`, `*`, an address or a network."""

    scheme: str
    name: str
    """empty: an address or a network"""
    network: Network | None
    port: int | None
    """None: any"""

    @classmethod
    def of(cls, text: str) -> Self:
        """An item as the setting has it, which has been checked there.

        Raises:
            ValueError: it is none.
        """
        found_scheme, separator, rest = text.partition("://")
        scheme, rest = (found_scheme, rest) if separator else ("https", text)
        if scheme not in PORTS:
            raise ValueError(f"{text!r} has no scheme that is known")
        try:
            return cls(scheme, "", ip_network(rest), None)
        except ValueError:
            pass
        host, colon, port = rest.rpartition(":")
        if not colon or rest.endswith("]"):
            host, port = rest, ""
        number = int(port) if port else None
        try:
            return cls(scheme, "", ip_network(host.strip("[]")), number)
        except ValueError:
            return cls(scheme, host, None, number)

    def takes(self, target: Target) -> bool:
        """Whether a request may go there, if its address may be asked."""
        if self.scheme != target.scheme or self.port not in {None, target.port}:
            return False
        if target.address is not None:
            return self.network is not None and plain(target.address) in self.network
        if self.name.startswith("*"):
            return target.host.endswith(self.name[1:]) and target.host != self.name[2:]
        return target.host == self.name

    def vouches(self, address: Address, port: int) -> bool:
        """Whether the operator has named this address, which nobody on the internet may be asked at."""
        return self.network is not None and address in self.network and self.port in {None, port}


@dataclass(frozen=True, slots=True)
class HostList:
    """All of them."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """The list as the setting has it."""
        return cls(tuple(Entry.of(text) for text in texts))

    def check(self, target: Target, field: str) -> None:
        """Whether a request may go to this host, as far as its name says.

        Args:
            target: where to.
            field: of the request that names it.

        Raises:
            UrlRefused: it may not.
        """
        if not any(entry.takes(target) for entry in self.entries):
            raise UrlRefused(
                f"{field} names {target.origin[:100]}, which is none of the hosts in {SETTING}", param=field
            )

    def allowed(self, target: Target, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """Those of a host's addresses that may be asked: public ones, and those that are named."""
        return tuple(dict.fromkeys(plain(a) for a in addresses if self._may_ask(target, plain(a))))

    def _may_ask(self, target: Target, address: Address) -> bool:
        if is_public(address) or any(entry.vouches(address, target.port) for entry in self.entries):
            return True
        # This name means this machine itself and nothing else (RFC 6761): who lists it has named the address.
        own = target.host == "localhost" and address.is_loopback
        return own and any(entry.name == "localhost" and entry.takes(target) for entry in self.entries)
