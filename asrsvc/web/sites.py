"""Which host a request may name, and which site's web page may send it: decided by its header.

A browser lets any page send requests to this machine, and lets any name lead to it (DNS rebinding); but it
always tells the truth in Host, Origin and Sec-Fetch-Site, which no page can write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from starlette.datastructures import Headers

from asrsvc.errors import BadRequest, NotPermitted
from asrsvc.web.addresses import Authority, authority

_HTTP: Final = 80
_SHOWN: Final = 100  # characters of a wrong value that a message repeats
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})
"""values of Sec-Fetch-Site (W3C Fetch Metadata) for pages that are not the service's own"""


def check_once(headers: Headers) -> None:
    """Whether the header names one host and one site at most: whoever reads the other one is misled.

    Raises:
        BadRequest: it names more (RFC 9112, section 3.2; RFC 6454, section 7.3).
    """
    for name in ("Host", "Origin"):
        count = len(headers.getlist(name))
        if count > 1:
            raise BadRequest(
                f"the header has {name} {count} times; once is right", param=name, code="header_repeated"
            )


def check_host(headers: Headers, target: str | None) -> None:
    """Whether Host names a host, and the same as the request target.

    Args:
        headers: with one Host at most.
        target: host and port of a request target in its absolute form; None: it has none.

    Raises:
        BadRequest: it does not (RFC 9112, section 3.2).
    """
    host = headers.get("host")
    named = _authority("Host", host) if host is not None else None
    if target is None:
        return
    wanted = _authority("the request target", target)
    if named is None or _with_port(named) != _with_port(wanted):
        raise BadRequest(
            f"the request target names {target[:_SHOWN]!r}, and Host {(host or '')[:_SHOWN]!r};"
            " the same is right",
            param="Host",
            code="invalid_host",
        )


def _authority(where: str, text: str) -> Authority:
    try:
        return authority(text)
    except ValueError as error:
        raise BadRequest(
            f"{where} is {text[:_SHOWN]!r}: {error}", param="Host", code="invalid_host"
        ) from None


def _with_port(named: Authority) -> Authority:
    return replace(named, port=_HTTP if named.port is None else named.port)


@dataclass(frozen=True, slots=True)
class Sites:
    """What is looked at where no key says who asks."""

    hosts: frozenset[str]
    """names that Host may have beside those of this machine"""
    origins: frozenset[str]
    """other sites whose pages may use the service, in lower case; `*`: any"""

    def check(self, headers: Headers) -> None:
        """Whether it was a program that sent the request, the service's own page, or one that is allowed.

        Args:
            headers: with one Host and one Origin at most.

        Raises:
            NotPermitted: it may have come from a page of another site.
        """
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            raise NotPermitted(
                f"Host is {host[:_SHOWN]!r}: this service is asked by localhost or an address;"
                " for another name see ASR_ALLOWED_HOSTS",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is None:
            self._check_fetch(headers)
            return
        if self.origins & {"*", origin.lower()}:
            return
        # The page's own: the same host and port, over http, or https where a proxy speaks TLS.
        if host is None or origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
            raise NotPermitted(
                f"the web page of {origin[:_SHOWN]!r} may not use this service; see ASR_CORS_ORIGINS",
                code="origin_not_allowed",
            )

    def _check_fetch(self, headers: Headers) -> None:
        """Where a page takes a picture or a script a browser names no Origin, but tells whose page it is."""
        site = headers.get("sec-fetch-site", "").lower()
        if site not in _OTHER_SITES or "*" in self.origins or _is_visit(headers):
            return
        raise NotPermitted(
            f"a web page of another site (Sec-Fetch-Site: {site}) may not use this service; see"
            " ASR_CORS_ORIGINS",
            code="origin_not_allowed",
        )

    def _is_ours(self, host: str) -> bool:
        # Any address is right: only a name can be made to lead here (DNS rebinding).
        try:
            found = authority(host)
        except ValueError:
            return False
        own = found.name == "localhost" or found.name.endswith(".localhost") or found.address is not None
        return own or found.name in self.hosts


def _is_visit(headers: Headers) -> bool:
    """Whether a person follows a link of another site: the answer is shown, and that site cannot read it."""
    told = (headers.get("sec-fetch-mode", "").lower(), headers.get("sec-fetch-dest", "").lower())
    return told == ("navigate", "document")
