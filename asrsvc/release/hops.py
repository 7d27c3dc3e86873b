"""Where the requests of a pull may go: to what the operator has named, and from there to public addresses.

A hub redirects to its storage, wherever that is. So that a hub cannot have this machine ask its own
services, its neighbours, or what a cloud tells it of itself, a redirect to an address that is not public is
refused, unless the source is itself inside the house. What is checked is what is connected to: a name that
stands for another address a moment later (DNS rebinding) changes nothing.

A proxy of the environment (`HTTPS_PROXY`) finds names by itself, and decides by itself; an address that a
redirect names is looked at here all the same.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx

from asrsvc.errors import BadArgument
from asrsvc.release.sources import is_loopback, shown
from asrsvc.remote.addresses import Address, is_public, plain

_MOST: Final = 8
"""addresses of one host that are tried"""
_CONNECT_SECONDS: Final = 10.0
"""for one address, if there are others"""


class Hops(httpx.AsyncBaseTransport):
    """The connections of one pull. Redirects come here as requests of their own."""

    def __init__(self) -> None:
        self._trust = httpx.create_ssl_context()
        self._proxies = getproxies()
        self._named: set[str] = set()
        self._inside = False
        """whether a source is in the house: then redirects may lead there too"""
        # One for each name: connections are kept by address, and certificates are of names.
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    def name(self, url: str) -> None:
        """The operator has named this address, or it is made of one that was named."""
        self._named.add(httpx.URL(url).host)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, if it may go there.

        Raises:
            BadArgument: it may not.
            httpx.TransportError: nobody can be asked there.
        """
        url = request.url
        proxy = self._proxy(url)
        if proxy is not None:
            self._check(url, _literal(url.host))
            return await self._transport(f"proxy {proxy}", proxy).handle_async_request(request)
        addresses = self._check(url, await _addresses(request))[:_MOST]
        for address in addresses[:-1]:
            try:
                return await self._ask(request, address, several=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._ask(request, addresses[-1], several=False)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()

    def _check(self, url: httpx.URL, addresses: Sequence[Address]) -> Sequence[Address]:
        """Those of a host's addresses that may be asked.

        Raises:
            BadArgument: it has some, and none may be.
        """
        public = [address for address in addresses if is_public(address)]
        if url.host in self._named:
            self._inside = self._inside or len(public) < len(addresses)
        if self._inside or url.host in self._named:
            return addresses
        if public or not addresses:  # none: a name that a proxy looks up
            return public
        raise BadArgument(
            f"{shown(str(url))} is at an address that is not public, and the source is: only a source inside"
            " the house may redirect to one"
        )

    async def _ask(self, request: httpx.Request, address: Address, *, several: bool) -> httpx.Response:
        timeout = dict(request.extensions.get("timeout", {}))
        if several:
            timeout["connect"] = min(timeout.get("connect") or _CONNECT_SECONDS, _CONNECT_SECONDS)
        sent = httpx.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "timeout": timeout, "sni_hostname": request.url.host},
        )
        return await self._transport(request.url.host, None).handle_async_request(sent)

    def _transport(self, key: str, proxy: str | None) -> httpx.AsyncHTTPTransport:
        if key not in self._transports:
            self._transports[key] = httpx.AsyncHTTPTransport(verify=self._trust, proxy=proxy)
        return self._transports[key]

    def _proxy(self, url: httpx.URL) -> str | None:
        """The proxy of the environment; none stands between this machine and itself."""
        if is_loopback(url.host) or proxy_bypass(url.host):
            return None
        found = self._proxies.get(url.scheme) or self._proxies.get("all")
        return found if found is None or "://" in found else f"http://{found}"


def _literal(host: str) -> list[Address]:
    """The address that a host is; none for a name."""
    try:
        return [plain(ip_address(host))]
    except ValueError:
        return []


async def _addresses(request: httpx.Request) -> list[Address]:
    """The addresses of a request's host, as any program of this machine finds them; getaddrinfo(3).

    Raises:
        httpx.ConnectError: it has none.
    """
    host, port = request.url.host, request.url.port
    if found := _literal(host):
        return found
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host}: {error}", request=request) from error
    return list(dict.fromkeys(plain(ip_address(str(entry[4][0]).partition("%")[0])) for entry in entries))
