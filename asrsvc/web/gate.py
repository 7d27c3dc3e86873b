"""The door of the application: who may not come in is answered here, and each answer says its limits."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asrsvc.errors import AsrError, HandedOn, OverCapacity, Unauthorised
from asrsvc.serving.limits import number_of
from asrsvc.web.access import Access, Admission, Asked
from asrsvc.web.answers import error_response

_EXPOSED: Final = (
    "Retry-After",
    "X-Model-Version",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
    "X-Warnings",
)


def guarded(app: ASGIApp, access: Access, origins: tuple[str, ...]) -> ASGIApp:
    """The application behind the door.

    Args:
        app: what is behind it.
        access: who may come in.
        origins: web pages of other sites that may (ASR_CORS_ORIGINS).
    """
    gate: ASGIApp = Gate(app, access)
    if not origins:
        return gate
    # Outside of the door: a browser asks without the key whether it may send it.
    return _Origins(
        gate,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
        max_age=600,
    )


class _Origins(CORSMiddleware):
    """Compares origins as the access rules do: whatever their case."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3); what names two origins is nobody's, and the door says so."""
        if scope["type"] == "http" and len(Headers(scope=scope).getlist("origin")) > 1:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether this one may read the answers."""
        return super().is_allowed_origin(origin.lower())


class Gate:
    """Lets a request in, with who sends it in `scope["state"]["client"]`, or answers it.

    A request that brings work gets its `ticket` into the state, and the `client_number` that queues know its
    client by; one that has come through the queue has both already.

    Ticket and place are given back before the last byte of the answer goes out: a client that asks one
    after the other may ask again as soon as it has that byte. The state's `leave` gives them back, once.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stay = _Stay(self._access, scope, send)
        state: dict[str, Any] = scope["state"]
        state["leave"], state["withdraw"] = stay.leave, stay.withdraw
        try:
            try:
                stay.admission = admission = self._admit(scope)
            except AsrError as error:
                await self._refuse(error, scope, receive, stay.send)
                return
            if scope["method"] == "POST":
                stay.limits = self._access.headers(admission.allowance)
            state["client"] = admission.client
            state["is_admitted"] = partial(self._is_admitted, asked_of(scope))
            state.setdefault("ticket", admission.ticket)
            state["client_number"] = number_of(admission.allowance.client)
            if admission.client.kind != "operator":
                scope["client"] = (admission.client.address, 0)
            await self._app(scope, receive, stay.send)
        except HandedOn:
            stay.forget()
            raise
        finally:
            stay.leave()

    def _is_admitted(self, asked: Asked) -> bool:
        """Whether who was let in may still ask."""
        try:
            self._access.identify(asked)
        except AsrError:
            return False
        return True

    def _admit(self, scope: Scope) -> Admission:
        """Raises an AsrError where the request goes no further."""
        asked = asked_of(scope)
        if (
            "place" in scope["state"]
        ):  # it was counted before it waited; its key may have been revoked meanwhile
            return Admission(*self._access.identify(asked))
        return self._access.admit(asked)

    async def _refuse(self, error: AsrError, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"].setdefault("note", {})["error"] = error.code
        headers: dict[str, str] = {}
        if isinstance(error, Unauthorised):
            headers["WWW-Authenticate"] = "Bearer"
        if error.status == OverCapacity.status:
            headers |= self._standing(scope)
        await error_response(error, headers)(scope, receive, send)

    def _standing(self, scope: Scope) -> dict[str, str]:
        try:
            _client, allowance = self._access.identify(asked_of(scope))
        except AsrError:
            return {}
        return self._access.headers(allowance)


class _Stay:
    """What a request holds while it is worked on: its ticket in the table of clients, and its place."""

    def __init__(self, access: Access, scope: Scope, send: Send) -> None:
        self.admission: Admission | None = None
        self.limits: dict[str, str] = {}
        """headers that its answer has"""
        self._access = access
        self._state: dict[str, Any] = scope["state"]
        self._send = send
        self._left = False

    def leave(self) -> None:
        """Give both back; once, since a ticket may be another client's by then."""
        if self._left:
            return
        self._left = True
        if "place" in self._state:
            self._state["place"].release()  # with its ticket
        elif self.admission is not None:
            self._access.leave(self.admission)

    def forget(self) -> None:
        """Give nothing back: somebody else goes on with it."""
        self._left = True

    def withdraw(self) -> None:
        """Give it back, and count nothing: nothing was done for the request."""
        if not self._left and self.admission is not None:
            self._left = True
            self._access.withdraw(self.admission)

    async def send(self, message: Message) -> None:
        """Send a piece of the answer (ASGI 3)."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self.limits.items():
                headers[name] = value
        if _is_the_end(message):
            self.leave()
        await self._send(message)


def _is_the_end(message: Message) -> bool:
    """Whether the work is done when this goes out: the head of an answer that is whole, or a last piece."""
    if message["type"] == "http.response.start":
        bodiless = message["status"] in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        return bodiless or any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
    return message["type"] == "http.response.body" and not message.get("more_body", False)


def asked_of(scope: Scope) -> Asked:
    """What a request's scope says of it."""
    peer = scope.get("client")
    return Asked(
        method=scope["method"],
        path=scope["path"],
        headers=Headers(scope=scope),
        peer=peer[0] if peer else "",
        local=bool(scope["state"].get("local")),
        authority=scope["state"].get("authority"),
    )
