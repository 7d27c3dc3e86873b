"""An address that a request names, taken apart (RFC 3986); one that could be read in two ways is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from asrsvc.errors import BadRequest
from asrsvc.remote.addresses import Address

PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*")
"""a last label that makes a name an IPv4 address in one of its old forms (WHATWG URL, "ends in a number")"""
_UNWRITABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_SAFE: Final = "/?%:@!$&'()*+,;=-._~"
_SHOWN: Final = 60  # characters of a wrong value that a message repeats


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes."""

    scheme: str
    """http or https"""
    host: str
    """a name in lower case, without a dot at its end, or an address"""
    port: int
    path: str
    """with its query, as it is sent: ASCII, beginning with a slash"""
    address: Address | None
    """where the host is one"""

    @property
    def authority(self) -> str:
        """Host and port, as the header `Host` has them."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What a message may repeat: a path or a query may hold secrets."""
        return f"{self.scheme}://{self.authority}"


def parse(text: str, field: str) -> Target:
    """Take an address apart.

    Args:
        text: absolute, with http or https.
        field: of the request that it comes from.

    Raises:
        BadRequest: it is no such address; the message says why.
    """
    text = text.strip(" ")
    if _UNWRITABLE.search(text):
        raise _wrong(text, field, "an address without control characters is right")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _wrong(text, field, "https://host/path is right") from None
    scheme = parts.scheme.lower()
    if scheme not in PORTS or not parts.netloc:
        raise _wrong(text, field, "https://host/path is right")
    if "@" in parts.netloc:
        raise BadRequest(f"{field} has a user name or a password in it; none is right", param=field)
    if port == 0:
        raise _wrong(text, field, "a port from 1 to 65535 is right")
    host, address = _host(parts.hostname or "", text, field, bracketed="[" in parts.netloc)
    path = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE)
    return Target(scheme, host, port or PORTS[scheme], path, address)


def joined(target: Target, location: str, field: str) -> Target:
    """Where a redirect leads.

    Raises:
        BadRequest: as `parse`.
    """
    try:
        text = urljoin(f"{target.origin}{target.path}", location.strip())
    except ValueError:
        raise BadRequest(f"{field} redirects to what is no address", param=field) from None
    return parse(text, field)


def _host(host: str, text: str, field: str, *, bracketed: bool) -> tuple[str, Address | None]:
    try:
        if bracketed:
            if "%" in host:
                raise ValueError
            v6 = IPv6Address(host)
            return str(v6), v6
        if not host.isascii():
            raise BadRequest(
                f"{field} is {text[:_SHOWN]!r}; a name in ASCII is right (xn--… stands for others)",
                param=field,
            )
        name = host.removesuffix(".")
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            v4 = IPv4Address(name)
            return str(v4), v4
    except ValueError:
        raise _wrong(text, field, "a host name or an address in its usual form is right") from None
    if not _NAME.fullmatch(name):
        raise _wrong(text, field, "a host name is right")
    return name, None


def _wrong(text: str, field: str, right: str) -> BadRequest:
    return BadRequest(f"{field} is {text[:_SHOWN]!r}; {right}", param=field)
