"""A real browser for tests: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from waiting import PATIENCE

_PATIENCE = PATIENCE * 1000
"""milliseconds"""
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser for the time of a `with` block."""
    program = shutil.which("chromium")
    assert program is not None, "bin/test installs chromium"
    expect.set_options(timeout=_PATIENCE)
    root = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's own does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*_ARGUMENTS, *root, *arguments], timeout=_PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


def microphone(sound: Path) -> tuple[str, ...]:
    """Arguments of a browser whose microphone hears a WAV file, over and over, and may be used."""
    return (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
    )


class Visit:
    """A page that is open, and what it did that no page of ours may do."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.faults: list[str] = []
        self._url = url
        # Without movement: what is looked at is as it stays.
        usual = {"locale": "en-GB", "accept_downloads": True, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**usual, **options})
        self.context.set_default_timeout(_PATIENCE)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("request", self._asked)
        self.page.goto(url)

    def _said(self, message: ConsoleMessage) -> None:
        # What an answer's status was is in the console too; that is the server's affair.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            self.faults.append(f"asked {request.url}")


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page for the time of a `with` block; it fails if the page broke its own rules.

    Args:
        browser: to open it in.
        url: of the page.
        options: of the browser's context, as Playwright has them.
    """
    visit = Visit(browser, url, **options)
    try:
        yield visit.page
        assert not visit.faults, visit.faults
    finally:
        visit.context.close()
