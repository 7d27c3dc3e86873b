"""Threads for what waits for the disk, so that it never waits on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """A few threads of their own: a slow disk must not take those that others need."""

    def __init__(self, number: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def run(self, work: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """Wait for a call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments, **more))

    async def finish(self, work: Callable[..., T], *arguments: Any) -> T:
        """The same, to its end even if this task is cancelled meanwhile: what it made must be known."""
        task = asyncio.ensure_future(self.run(work, *arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(Exception):
                await task
            raise
