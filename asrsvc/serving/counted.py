"""How many uploads the application of a worker has to answer: one that answers none is found by that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Counted:
    """An ASGI application, with a count of the uploads that it has been given and not begun to answer."""

    def __init__(self, app: Callable[..., Any], changed: Callable[[], None]) -> None:
        """Prepare.

        Args:
            app: to be counted for.
            changed: called when the count has changed.
        """
        self.uploads = 0
        self._app = app
        self._changed = changed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] != "http" or scope["method"] != "POST" or "intake" not in scope.get("state", ()):
            await self._app(scope, receive, send)
            return
        open_ = 1
        self._add(1)

        async def send_on(message: Any) -> None:
            nonlocal open_
            self._add(-open_)
            open_ = 0
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            self._add(-open_)

    def _add(self, change: int) -> None:
        if change:
            self.uploads += change
            self._changed()
