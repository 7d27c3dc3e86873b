"""Who may ask for what: decided from the header of a request alone, so before it waits for anything.

With API keys: health and the page's own files are for all, `/admin` has a guard of its own, `/metrics`
takes the operator's token too, and all else needs a key. Without keys, on an address of this machine
alone: no web page of another site may use the service through the browser of a person who sits here
(DNS rebinding, cross-site requests), so Host and Origin are looked at.
"""

from __future__ import annotations

import hmac
import logging
import math
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from asrsvc.errors import AsrError, LimitReached, OverCapacity, Unauthorised
from asrsvc.serving.keys import Key, KeyRing
from asrsvc.serving.limits import NO_TICKET, Allowance, ClientTable, Refused
from asrsvc.settings import Settings, is_public
from asrsvc.web import sites
from asrsvc.web.addresses import Proxies, subscriber
from asrsvc.web.clients import OPERATOR, Client
from asrsvc.web.ops import Problem
from asrsvc.web.sites import Sites

log = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/", "/docs", "/favicon.ico", "/health", "/health/live", "/health/ready"})
"""for all, with GET and HEAD, though there are keys: health, and the page"""
OPEN_FOLDER: Final = "/page/"
"""the page's own static files, the same"""
_ADMIN: Final = "/admin"
_METRICS: Final = "/metrics"
_KEYS_BROKEN: Final = "the file of API keys is not as it must be; the keys from before are in force"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the header says, and where it came from."""

    method: str
    path: str
    headers: Headers
    peer: str
    """address of the other side of the connection; empty for a Unix socket"""
    local: bool = False
    """whether it came to the ops listener"""
    authority: str | None = None
    """what the request target names, where it has its absolute form"""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may go on, as far as who sends it is concerned."""

    client: Client
    allowance: Allowance
    ticket: int = NO_TICKET


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide."""

    client_rate: int
    client_concurrency: int
    proxies: Proxies
    hosts: frozenset[str]
    """names that Host may have beside those of this machine; empty: see `checks_hosts`"""
    origins: frozenset[str]
    checks_api: bool
    """whether Host and Origin are looked at on the API's listener"""
    checks_ops: bool
    """the same for the ops listener"""
    admin_token: str
    ops_needs_token: bool
    """whether other machines reach the ops listener, and there is a token"""

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Those of the settings in force."""
        unguarded = settings.api_keys is None and not settings.bind.startswith("unix:")
        return cls(
            client_rate=settings.client_rate,
            client_concurrency=settings.client_concurrency or 0,
            proxies=Proxies.of(settings.trusted_proxies),
            hosts=frozenset(settings.allowed_hosts),
            origins=frozenset(settings.cors_origins),
            checks_api=unguarded and (not is_public(settings.bind) or bool(settings.allowed_hosts)),
            # No web page reaches a Unix socket.
            checks_ops=not settings.ops_bind.startswith("unix:") and not is_public(settings.ops_bind),
            admin_token=settings.admin_token,
            ops_needs_token=is_public(settings.ops_bind) and bool(settings.admin_token),
        )


class Access:
    """Lets requests in, or says why not."""

    def __init__(self, rules: Rules, keys: KeyRing | None, table: ClientTable) -> None:
        """Prepare.

        Args:
            rules: from the settings.
            keys: None: no key is needed.
            table: where limits are counted, over all workers.
        """
        self._rules = rules
        self._sites = Sites(rules.hosts, rules.origins)
        self.keys = keys
        self.table = table

    def problems(self) -> tuple[Problem, ...]:
        """What is not as it should be."""
        if self.keys is None:
            return ()
        self.keys.look()
        return (Problem(_KEYS_BROKEN, self.keys.problem),) if self.keys.problem else ()

    def is_operator(self, asked: Asked) -> bool:
        """Whether one who has been let in may see what is the operator's alone: paths, contents of files."""
        if asked.local and not self._rules.ops_needs_token:
            return True
        try:
            return self._is_operator(_bearer(asked.headers))
        except Unauthorised:
            return False

    def identify(self, asked: Asked) -> tuple[Client, Allowance]:
        """Who asks, and what is allowed to them; to be asked at any time, since it counts nothing.

        Raises:
            BadRequest: the header names several hosts or sites, or none that could be.
            Unauthorised, NotPermitted: who may not.
        """
        sites.check_once(asked.headers)
        if asked.peer:  # programs that come to a Unix socket may put its path into Host, and no browser comes
            sites.check_host(asked.headers, asked.authority)
        address = self._rules.proxies.client_address(asked.peer, asked.headers)
        if asked.local:
            if self._rules.checks_ops:
                self._sites.check(asked.headers)
            if self._rules.ops_needs_token and not _is_free(asked):
                self._check_operator(asked)
            return Client(OPERATOR, "operator", address), Allowance("")
        if self.keys is None:
            if self._rules.checks_api:
                self._sites.check(asked.headers)
            return self._by_address(address)
        if _is_free(asked):
            return Client(address, "address", address), Allowance("")
        secret = _bearer(asked.headers)
        if asked.path == _METRICS and self._is_operator(secret):
            return Client(OPERATOR, "operator", address), Allowance("")
        return self._by_key(self.keys.find(secret), address)

    def admit(self, asked: Asked) -> Admission:
        """Let a request in and count it; `leave` must follow.

        Raises:
            Unauthorised, NotPermitted: who may not.
            LimitReached, OverCapacity: not now.
        """
        client, allowance = self.identify(asked)
        if asked.method != "POST" or not allowance.client:
            return Admission(client, allowance)
        entered = self.table.enter(allowance)
        if isinstance(entered, Refused):
            raise _limit(client, allowance, entered)
        return Admission(client, allowance, entered)

    def withdraw(self, admission: Admission) -> None:
        """Nothing was done for it: it does not count."""
        self.table.leave(admission.ticket)
        self.table.refund(admission.allowance)

    def leave(self, admission: Admission) -> None:
        """The request has ended."""
        self.table.leave(admission.ticket)

    def headers(self, allowance: Allowance) -> dict[str, str]:
        """What an answer says of the client's rate."""
        standing = self.table.standing(allowance) if allowance.client else None
        if standing is None:
            return {}
        return {
            "X-RateLimit-Limit": str(allowance.rate),
            "X-RateLimit-Remaining": str(standing.remaining),
            "X-RateLimit-Reset": str(math.ceil(standing.reset_seconds)),
        }

    def _by_address(self, address: str) -> tuple[Client, Allowance]:
        client = Client(address, "address", address)
        allowance = Allowance(
            f"address:{subscriber(address)}", self._rules.client_rate, self._rules.client_concurrency
        )
        return client, allowance

    def _by_key(self, key: Key, address: str) -> tuple[Client, Allowance]:
        rules = self._rules
        client = Client(key.name, "key", address, key.identity)
        rate = rules.client_rate if key.rate is None else key.rate
        concurrency = rules.client_concurrency if key.concurrency is None else key.concurrency
        return client, Allowance(client.label, rate, concurrency)

    def _is_operator(self, secret: str) -> bool:
        token = self._rules.admin_token
        return bool(token) and hmac.compare_digest(secret.encode(), token.encode())

    def _check_operator(self, asked: Asked) -> None:
        if not self._is_operator(_bearer(asked.headers)):
            raise Unauthorised("this needs Authorization: Bearer and the token of ASR_ADMIN_TOKEN")


def _is_free(asked: Asked) -> bool:
    """Whether no key is asked for here: it is for all, or `/admin`, which asks itself."""
    if asked.path == _ADMIN or asked.path.startswith(f"{_ADMIN}/"):
        return True
    return asked.method in {"GET", "HEAD"} and (
        asked.path in OPEN_PATHS or asked.path.startswith(OPEN_FOLDER)
    )


def _bearer(headers: Headers) -> str:
    """The key that a request shows.

    Raises:
        Unauthorised: it shows none.
    """
    given = headers.getlist("authorization")
    if not given:
        raise Unauthorised("an API key is needed: Authorization: Bearer …", code="missing_api_key")
    scheme, _, secret = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorised("Authorization is not: Bearer and an API key", code="invalid_api_key")
    return secret.strip()


def _limit(client: Client, allowance: Allowance, refused: Refused) -> AsrError:
    seconds = max(1, math.ceil(refused.retry_seconds))
    match refused.reason:
        case "rate":
            return LimitReached(
                f"{client.name} may send {allowance.rate} requests a minute: try again in {seconds} s",
                code="rate_limit_exceeded",
                retry_after=seconds,
            )
        case "concurrency":
            return LimitReached(
                f"{client.name} may have {allowance.concurrency} requests at the same time",
                code="concurrency_limit_exceeded",
                retry_after=seconds,
            )
        case _:
            return OverCapacity("as many requests are under way as may be: try again in a second")
