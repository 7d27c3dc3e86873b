"""`/docs` in a real browser, and the page where the service wants a key or has narrow limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, visiting
from playwright.sync_api import Browser, expect
from service import CLIPS, PROJECT, Service, running
from waiting import PATIENCE


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "asrsvc.serving.keys_tool", "--file", str(keys), "add", "somebody"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    return made.stdout.split()[-1]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, keys: Path, key: str) -> Iterator[Service]:
    assert key
    folder = tmp_path_factory.mktemp("guarded")
    limits = {"ASR_MAX_UPLOAD_MB": "1", "ASR_API_KEYS": str(keys)}
    with running(folder, ASR_WORKERS="1", ASR_THREADS="1", **limits) as started:
        yield started


def test_the_page_asks_for_the_key_and_keeps_it_in_its_tab(
    browser: Browser, guarded: Service, key: str
) -> None:
    with visiting(browser, guarded.url) as page:
        dialog = page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        expect(page.locator("#key")).to_be_focused()
        page.locator("#key").fill("not-this-one")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The server did not accept this key")
        page.locator("#key").fill("ключ")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The server did not accept this key")
        page.locator("#key").fill(f" {key} ")
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#model")).to_contain_text("sensevoice-nano")
        page.set_input_files("#file", CLIPS / "en_1.flac")
        expect(page.locator("body")).to_have_attribute("data-state", "done")
        page.reload()
        expect(page.locator("#model")).to_contain_text("sensevoice-nano")
        expect(dialog).to_be_hidden()
        assert key not in json.dumps(page.evaluate("({ ...localStorage })"))
        assert key not in page.url


def test_a_key_that_is_asked_for_late_sends_the_recording_again(
    browser: Browser, guarded: Service, key: str
) -> None:
    with visiting(browser, guarded.url) as page:
        page.locator("#key-dialog").get_by_role("button", name="Cancel").click()
        page.set_input_files("#file", CLIPS / "en_1.flac")
        expect(page.locator("#key-dialog")).to_be_visible()
        page.locator("#key").fill(key)
        page.locator("#key").press("Enter")
        expect(page.locator("body")).to_have_attribute("data-state", "done")


def test_what_is_refused_before_it_was_sent_whole_says_why(
    browser: Browser, guarded: Service, key: str, tmp_path: Path
) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(40 * 2**20))
    with visiting(browser, guarded.url) as page:
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#key-dialog")).to_be_hidden()
        page.set_input_files("#file", tmp_path / "large.wav")
        expect(page.locator("#problem")).to_contain_text("The recording is too large")
        expect(page.locator("#problem")).to_contain_text("the limit is 1 MiB")
        expect(page.locator("#again")).to_be_hidden()


def test_the_description_is_shown_and_needs_the_key(browser: Browser, guarded: Service, key: str) -> None:
    with visiting(browser, f"{guarded.url}/docs") as page:
        expect(page.locator("#key-form")).to_be_visible()
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        operation = page.locator("#operations-Transcribe-transcribe")
        expect(operation).to_contain_text("/api/transcribe")
        operation.locator("button.opblock-summary-control").click()
        expect(operation).to_contain_text("curl -s -F file=@meeting.m4a")
        expect(operation).to_contain_text("import httpx")
        # The viewer asks the service itself, with the key.
        models = page.locator("[id$=listModels]")
        models.locator("button.opblock-summary-control").click()
        models.get_by_role("button", name="Try it out").click()
        with page.expect_response("**/v1/models") as answered:
            models.get_by_role("button", name="Execute").click()
        assert answered.value.status == 200


def test_only_the_page_itself_is_there_without_a_key(guarded: Service) -> None:
    with guarded.client() as client:
        for path in ("/", "/docs", "/page/main.js", "/page/samples/en_1.flac"):
            assert client.get(path).status_code == 200
        for path in ("/openapi.json", "/v1/models", "/page"):
            assert client.get(path).status_code == 401
        assert client.post("/page/main.js").status_code == 401
