"""The page at `/`, in a real browser against a real service."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from browser import chromium, microphone, visiting
from cutting import cutting
from incomplete import cut, wav
from playwright.sync_api import Browser, Error, Page, Route, expect
from recordings import write_recording
from service import CLIPS, Service, manifest, running, wait_for
from waiting import wait_until_holds

from asrsvc.speech.subtitles import to_srt, to_vtt
from asrsvc.speech.types import Segment, Word

CLIP = next(clip for clip in manifest() if clip["file"] == "en_1.flac")
REFUSAL = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'WHY'); }"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), ASR_WORKERS="1", ASR_THREADS="1") as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sound = tmp_path_factory.mktemp("sound") / "microphone.wav"
    samples, rate = soundfile.read(CLIPS / CLIP["file"], dtype="int16")
    soundfile.write(sound, np.concatenate([samples, np.zeros(rate, np.int16)]), rate, subtype="PCM_16")
    with chromium(*microphone(sound)) as started:
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with visiting(browser, service.url) as opened:
        yield opened


def give(page: Page, *paths: Path) -> None:
    page.set_input_files("#file", [*paths])


def done(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-state", "done")
    # What plays stands still: a word is heard until it is seen, however busy the machine.
    page.evaluate("document.querySelector('audio').playbackRate = 0")


def said(page: Page) -> str:
    return " ".join(page.locator(".words").all_text_contents())


def note_texts(page: Page, selector: str) -> None:
    """Note every text that an element has from now on; some stand there for a moment only."""
    page.evaluate(
        """(selector) => {
            const watched = document.querySelector(selector);
            window.texts = [];
            new MutationObserver(() => window.texts.push(watched.textContent))
                .observe(watched, { childList: true, characterData: true, subtree: true });
        }""",
        selector,
    )


def seconds(page: Page) -> float:
    return float(page.evaluate("document.querySelector('audio').currentTime"))


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


def test_a_file_becomes_text_that_can_be_read_and_heard(page: Page) -> None:
    give(page, CLIPS / CLIP["file"])
    done(page)
    assert said(page) == CLIP["withitn"]
    expect(page.locator("#result-name")).to_have_text(CLIP["file"])
    expect(page.locator("#badges")).to_contain_text("English")
    expect(page.locator("#badges")).to_contain_text("0:02")
    expect(page.locator(".sure")).to_have_text(re.compile(r"^\d+%$"))
    # The model is named, as its licence asks.
    expect(page.locator("#model")).to_contain_text("sensevoice-nano")


def test_the_text_comes_while_the_recording_is_decoded(page: Page, tmp_path: Path) -> None:
    write_recording(tmp_path / "long.flac", 1.0, seed=7)
    page.evaluate(
        """() => {
            window.states = [];
            new MutationObserver((changes) => {
                for (const added of changes.flatMap((change) => [...change.addedNodes]))
                    if (added.className.includes("segment")) window.states.push(document.body.dataset.state);
            }).observe(document.getElementById("text"), { childList: true });
        }"""
    )
    give(page, tmp_path / "long.flac")
    done(page)
    states = page.evaluate("window.states")
    assert len(states) > 5
    assert set(states) == {"busy"}


def test_a_word_that_is_clicked_is_heard(page: Page) -> None:
    give(page, CLIPS / CLIP["file"])
    done(page)
    page.locator(".word", has_text="1:25").click()
    expect(page.locator(".word", has_text="1:25")).to_have_class(re.compile("heard"))
    assert seconds(page) >= 1.0
    expect(page.locator("#player")).to_have_class(re.compile("playing"))
    page.locator("#play").click()
    expect(page.locator("#player")).not_to_have_class(re.compile("playing"))
    page.locator(".at").first.click()
    expect(page.locator(".word").first).to_have_class(re.compile("heard"))


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.locator("#samples button").first.focus()
    page.keyboard.press("Enter")
    done(page)
    expect(page.locator("#result-name")).to_be_focused()
    page.locator("#text").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".word.cursor")).to_have_text("table")
    page.keyboard.press("Enter")
    expect(page.locator(".word.cursor")).to_have_class(re.compile("heard"))
    page.keyboard.press(" ")
    expect(page.locator("#player")).not_to_have_class(re.compile("playing"))
    page.locator("#wave").focus()
    page.keyboard.press("Home")
    assert seconds(page) == 0
    page.keyboard.press("ArrowRight")
    assert seconds(page) > 2


def test_what_is_saved_is_what_the_service_writes(page: Page, tmp_path: Path) -> None:
    write_recording(tmp_path / "a talk.flac", 0.5, seed=3)
    give(page, tmp_path / "a talk.flac")
    done(page)
    saved = {}
    for ending in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as started:
            page.locator(f"[data-save={ending}]").click()
        assert started.value.suggested_filename == f"a talk.{ending}"
        saved[ending] = Path(started.value.path()).read_text(encoding="utf-8")
    answer = json.loads(saved["json"])
    segments = [as_segment(one) for one in answer["segments"]]
    assert answer["model_version"].startswith("sensevoice-nano")
    assert saved["txt"].splitlines() == [segment.text for segment in segments if segment.text]
    assert saved["srt"] == to_srt(segments)
    assert saved["vtt"] == to_vtt(segments)


def test_what_is_missing_of_a_recording_is_said_and_saved(page: Page, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(cut(wav(3), 0.6))
    warning = page.locator("#warnings li")
    expect(warning).to_have_count(0)
    give(page, tmp_path / "cut.wav")
    done(page)
    expect(warning).to_have_count(1)
    expect(warning).to_be_visible()
    expect(warning).to_contain_text("A part of the recording is missing. What is there has been transcribed.")
    expect(page.locator("#say")).to_contain_text("A part of the recording is missing.")
    assert serious(page) == []
    saved = {}
    for ending in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as started:
            page.locator(f"[data-save={ending}]").click()
        saved[ending] = Path(started.value.path()).read_text(encoding="utf-8")
    answer = json.loads(saved["json"])
    (told,) = answer["warnings"]
    assert (told["code"], told["param"]) == ("audio_incomplete", "file")
    expect(warning).to_contain_text(told["message"])
    segments = [as_segment(one) for one in answer["segments"]]
    assert segments
    assert saved["srt"] == to_srt(segments)
    assert saved["vtt"] == to_vtt(segments)
    assert saved["txt"].splitlines() == [segment.text for segment in segments if segment.text]
    page.locator("#tongue-button").click()
    expect(warning).to_contain_text("录音缺少一部分，已转写现有的内容。")
    expect(page.locator("#warnings")).to_have_attribute("aria-label", "关于录音的提示")
    assert serious(page) == []
    give(page, CLIPS / CLIP["file"])
    done(page)
    expect(page.locator("#warnings")).to_be_hidden()
    expect(warning).to_have_count(0)


def test_a_refusal_of_what_is_incomplete_is_said_in_both_languages(
    page: Page, service: Service, tmp_path: Path
) -> None:
    content = cut(wav(3), 0.6)
    (tmp_path / "cut.wav").write_bytes(content)
    real = service.transcribe("cut.wav", content, incomplete="refuse")
    assert real.status_code == 400
    page.route(
        "**/api/transcribe",
        lambda route: route.fulfill(status=400, content_type="application/json", body=real.content),
    )
    give(page, tmp_path / "cut.wav")
    expect(page.locator("#problem-title")).to_have_text("A part of the recording is missing")
    expect(page.locator("#problem-detail")).to_have_text(real.json()["error"]["message"])
    page.locator("#tongue-button").click()
    expect(page.locator("#problem-title")).to_have_text("录音缺少一部分")


def test_a_warning_of_newer_code_is_shown_as_the_text_that_it_is(page: Page) -> None:
    evil = '<img src=x onerror="window.pwned = 1">'
    whole = {"text": "", "language": "nospeech", "emotion": "unknown", "events": [], "duration": 1.0}
    warnings = [{"code": f"new{evil}", "message": evil, "param": "file"}]
    body = events({"type": "done", **whole, "warnings": warnings, "segments": []})
    page.route("**/api/transcribe", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    give(page, CLIPS / CLIP["file"])
    done(page)
    expect(page.locator("#warnings li")).to_have_text(f"Please note: {evil}")
    assert page.locator("#warnings img").count() == 0
    assert page.evaluate("window.pwned") is None


def as_segment(body: dict[str, Any]) -> Segment:
    """As far as subtitles are made of it."""
    words = tuple(Word(**word) for word in body["words"])
    names = ("start", "end", "text", "language", "emotion", "confidence")
    return Segment(**{name: body[name] for name in names}, events=tuple(body["events"]), words=words)


def test_the_text_can_be_copied(browser: Browser, service: Service) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with visiting(browser, service.url, permissions=permissions) as page:
        give(page, CLIPS / CLIP["file"])
        done(page)
        note_texts(page, "#copy")
        page.locator("#copy").click()
        expect(page.locator("#say")).to_have_text("Copied")
        assert page.evaluate("window.texts[0]") == "Copied"
        assert page.evaluate("navigator.clipboard.readText()") == CLIP["withitn"]


def test_what_is_said_into_the_microphone_becomes_text(page: Page) -> None:
    # The clip is heard from somewhere in its middle on, and again; what is lost in Opus depends on that. A
    # browser that pauses loses what is said meanwhile, though its clock goes on.
    for enough in (r"0[6-9]|[1-5]\d", r"1[2-9]|[2-5]\d", r"2[5-9]|[3-5]\d"):
        page.locator("#record").click()
        expect(page.locator("#clock")).to_have_text(re.compile(rf"^(0:({enough})|[1-9]\d*:\d\d)$"))
        page.locator("#stop").click()
        done(page)
        if re.search("table|1:25", said(page)):
            break
        page.locator("#new").click()
    assert re.search("table|1:25", said(page))
    expect(page.locator("#result-name")).to_have_text(re.compile(r"^recording [\d-]+ [\d.]+\.webm$"))

    def a_word_is_heard() -> None:
        page.locator(".word").first.click()
        expect(page.locator(".word.heard")).to_have_count(1, timeout=5000)

    # Such a recording says no length: the page looks for its end first, and goes back to its beginning.
    wait_until_holds(a_word_is_heard)


def test_a_recording_can_be_discarded(page: Page) -> None:
    page.locator("#record").click()
    expect(page.locator("#recorder")).to_be_visible()
    page.locator("#discard").click()
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#recorder")).to_be_hidden()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_file_can_be_dropped_and_pasted(page: Page, way: str) -> None:
    carried = page.evaluate_handle(
        """async (data) => {
            const bytes = await (await fetch("page/samples/en_1.flac")).arrayBuffer();
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "dropped.flac", { type: "audio/flac" }));
            return carried;
        }"""
    )
    if way == "drop":
        page.dispatch_event("#drop", "dragenter", {"dataTransfer": carried})
        expect(page.locator("#drop")).to_have_class(re.compile("over"))
        page.dispatch_event("#drop", "drop", {"dataTransfer": carried})
    else:
        page.evaluate(
            "(carried) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: carried }))",
            carried,
        )
    done(page)
    assert said(page) == CLIP["withitn"]


def test_choices_are_sent_and_kept(page: Page) -> None:
    page.locator("#itn").uncheck()
    page.locator("#language").select_option("en")
    give(page, CLIPS / CLIP["file"])
    done(page)
    assert said(page) == CLIP["woitn"]
    page.reload()
    expect(page.locator("#itn")).not_to_be_checked()
    expect(page.locator("#language")).to_have_value("en")


def test_a_failure_says_what_is_wrong_and_what_can_be_done(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound at all")
    give(page, tmp_path / "notes.txt")
    problem = page.locator("#problem")
    expect(problem).to_contain_text("This file cannot be read as sound")
    expect(problem).to_contain_text("notes.txt")
    expect(problem).to_contain_text(re.compile(r"Request [0-9a-f]{32}"))
    expect(page.locator("#choose")).to_be_visible()
    assert serious(page) == []
    (tmp_path / "empty.wav").touch()
    give(page, tmp_path / "empty.wav")
    expect(problem).to_contain_text("The file is empty")
    give(page, CLIPS / CLIP["file"])
    done(page)
    expect(problem).to_be_hidden()


def test_the_page_speaks_chinese(browser: Browser, service: Service, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound at all")
    with visiting(browser, service.url, locale="zh-CN") as page:
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page.locator("h1")).to_have_text("把声音写成文字。")
        give(page, tmp_path / "notes.txt")
        expect(page.locator("#problem-title")).to_have_text("无法从这个文件中读出声音")
        give(page, CLIPS / "zh_1.flac")
        done(page)
        expect(page.locator("#badges")).to_contain_text("普通话")
        assert serious(page) == []
        page.locator("#tongue-button").click()
        expect(page.locator("#badges")).to_contain_text("Mandarin")
        expect(page.locator("#copy")).to_have_text("Copy text")
        assert said(page) == next(c for c in manifest() if c["file"] == "zh_1.flac")["withitn"]
        page.reload()
        expect(page.locator("h1")).to_have_text("Speech, written down.")


def test_every_text_is_there_in_both_languages(page: Page) -> None:
    english, chinese = page.evaluate(
        """async () => {
            const words = await import("/page/words.js");
            const keys = (texts) => Object.entries(texts).flatMap(([key, value]) =>
                typeof value === "object" && key !== "words"
                    ? Object.keys(value).map((one) => `${key}.${one}`)
                    : [key]);
            return Object.values(words.TONGUES).map(keys);
        }"""
    )
    assert sorted(english) == sorted(chinese)
    for _ in range(2):
        assert "undefined" not in page.locator("body").inner_text()
        page.locator("#tongue-button").click()


def test_a_phone_has_room_for_all_of_it(browser: Browser, service: Service, tmp_path: Path) -> None:
    write_recording(tmp_path / "a recording with a name that is rather long.flac", 0.3, seed=5)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    with visiting(browser, service.url, **PHONE) as page:
        assert page.evaluate(fits)
        expect(page.locator(".for-touch").first).to_be_visible()
        assert serious(page) == []
        give(page, tmp_path / "a recording with a name that is rather long.flac")
        done(page)
        assert page.evaluate(fits)
        assert serious(page) == []
        page.locator(".word").first.tap()
        expect(page.locator(".word.heard")).to_have_count(1)
        small = page.evaluate(
            """[...document.querySelectorAll("button, select, a")].filter((one) => one.offsetParent)
                .map((one) => [one.id || one.textContent, one.getBoundingClientRect()])
                .filter(([, frame]) => frame.width < 24 || frame.height < 24).map(([name]) => name)"""
        )
        assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_obstacle_for_anybody(browser: Browser, service: Service, scheme: Any) -> None:
    with visiting(browser, service.url, color_scheme=scheme) as page:
        assert serious(page) == []
        page.locator("#record").click()
        expect(page.locator("#recorder")).to_be_visible()
        assert serious(page) == []
        give(page, CLIPS / "en_2.flac")
        done(page)
        page.locator(".word").first.click()
        assert serious(page) == []
        page.locator("#theme-button").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")


def events(*bodies: dict[str, Any]) -> str:
    lines = [f"data: {json.dumps(body)}\n\n" for body in bodies]
    return "".join([*lines, "data: [DONE]\n\n"])


def test_what_is_said_is_never_taken_for_html(page: Page) -> None:
    evil = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
    word = {"word": evil, "start": 0.0, "end": 1.0, "confidence": 0.3}
    segment = {
        "start": 0.0,
        "end": 1.0,
        "text": f"{evil} & so on",
        "language": "en",
        "emotion": '"><b>happy',
        "events": ["<i>bgm"],
        "confidence": 0.3,
        "words": [word],
    }
    whole = {key: segment[key] for key in ("text", "language", "emotion", "events")}
    body = events(
        {"type": "segment", "segment": segment},
        {"type": "done", **whole, "duration": 1.0, "segments": [segment], "model_version": evil},
    )

    def answer(route: Route) -> None:
        route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/api/transcribe", answer)
    content = (CLIPS / CLIP["file"]).read_bytes()
    page.set_input_files("#file", {"name": f"{evil}.flac", "mimeType": "audio/flac", "buffer": content})
    done(page)
    assert said(page) == f"{evil} & so on"
    expect(page.locator("#result-name")).to_have_text(f"{evil}.flac")
    assert page.locator("main script, main img, main b, main i").count() == 0
    assert page.evaluate("window.pwned") is None
    with page.expect_download() as started:
        page.locator("[data-save=vtt]").click()
    assert not set("<>/:") & set(started.value.suggested_filename.removesuffix(".vtt"))
    assert "&lt;script&gt;" in Path(started.value.path()).read_text()


def test_a_busy_service_is_asked_again(page: Page) -> None:
    asked = 0

    def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            error = {"message": "full", "type": "rate_limit_error", "param": None, "code": "over_capacity"}
            route.fulfill(status=429, headers={"Retry-After": "3"}, json={"error": error})
        else:
            route.continue_()

    page.route("**/api/transcribe", answer)
    note_texts(page, "#stage")
    give(page, CLIPS / CLIP["file"])
    done(page)
    stages = page.evaluate("window.texts")
    assert any(re.search(r"Trying again in \d s", stage) for stage in stages), stages
    assert asked == 2


def test_an_answer_that_is_not_ours_is_told_apart(page: Page) -> None:
    page.route("**/api/transcribe", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    give(page, CLIPS / CLIP["file"])
    expect(page.locator("#problem")).to_contain_text("The answer was not from this service")
    expect(page.locator("#again")).to_be_visible()


def test_the_upload_can_be_cancelled(page: Page) -> None:
    page.route("**/api/transcribe", lambda _route: None)  # never answered
    give(page, CLIPS / CLIP["file"])
    expect(page.locator("#cancel")).to_be_visible()
    page.locator("#cancel").click()
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_connection_that_is_lost_leaves_what_had_come(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    write_recording(tmp_path / "long.flac", 1.0, seed=11)
    with cutting(service.port) as proxy, visiting(browser, f"http://127.0.0.1:{proxy.port}") as page:
        expect(page.locator("#model")).to_contain_text("sensevoice-nano")
        proxy.stop_after = re.compile(rb'"type":"segment"[^\n]*\n\n')
        give(page, tmp_path / "long.flac")
        expect(page.locator(".segment")).not_to_have_count(0)
        proxy.cut()
        expect(page.locator("#problem")).to_contain_text("The connection was lost")
        expect(page.locator("#problem")).to_contain_text("What had come by then is below")
        kept = page.locator(".segment").count()
        assert kept >= 1
        with page.expect_download() as started:
            page.locator("[data-save=json]").click()
        saved = json.loads(Path(started.value.path()).read_text(encoding="utf-8"))
        assert saved["incomplete"] is True
        assert len(saved["segments"]) == kept
        proxy.stop_after = None
        page.locator("#again").click()
        done(page)
        assert page.locator(".segment").count() > kept


def test_a_service_that_is_gone_is_said_to_be(browser: Browser, service: Service) -> None:
    with cutting(service.port) as proxy, visiting(browser, f"http://127.0.0.1:{proxy.port}") as page:
        expect(page.locator("#model")).to_contain_text("sensevoice-nano")
        proxy.close()

        def fails() -> bool:
            give(page, CLIPS / CLIP["file"])
            expect(page.locator("body")).to_have_attribute("data-state", re.compile("^(done|failed)$"))
            return page.locator("body").get_attribute("data-state") == "failed"

        # The browser may have opened a connection more than it needed; each serves one request.
        wait_for("no connection of before is left", fails)
        expect(page.locator("#problem")).to_contain_text("The server could not be reached")


def test_subtitles_are_those_that_the_service_would_write(page: Page) -> None:
    chance = random.Random(5)
    talks = [talk(chance) for _ in range(80)]
    bodies = [[asdict(segment) for segment in segments] for segments in talks]
    written = page.evaluate(
        """async (talks) => {
            const { toSrt, toVtt } = await import("/page/subtitles.js");
            return talks.map((segments) => [toSrt(segments), toVtt(segments)]);
        }""",
        bodies,
    )
    for segments, (srt, vtt) in zip(talks, written, strict=True):
        assert srt == to_srt(segments)
        assert vtt == to_vtt(segments)


def talk(chance: random.Random) -> list[Segment]:
    """Some segments of words in several scripts, with marks, pauses and words that are too long."""
    segments, now = [], 0.0
    for _ in range(chance.randint(1, 5)):
        script = chance.choice(["en", "zh", "ja", "ko"])
        glue = " " if script in {"en", "ko"} else ""
        spoken: list[Word] = []
        start = now
        for _ in range(chance.randint(0, 60)):
            now += chance.choice([0.0, 0.0, 0.05, 0.3, 1.2])
            end = now + chance.choice([0.1, 0.25, 0.5, 9.0 if chance.random() < 0.02 else 0.2])
            spoken.append(Word(a_word(chance, script), round(now, 3), round(end, 3), 0.9))
            now = end
        text = glue.join(word.word for word in spoken)
        words = tuple(spoken) if chance.random() < 0.85 else ()
        segments.append(Segment(start, max(now, start + 1), text, script, "unknown", (), 0.9, words))
        now += chance.choice([0.0, 0.4, 3.0])
    return segments


def a_word(chance: random.Random, script: str) -> str:
    if chance.random() < 0.01:
        return "<b>&amp;-->" * chance.randint(1, 6)
    letters = {"en": "abcdefgh'é", "zh": "晚上半提醒我谢々", "ja": "あっーカャ電車", "ko": "배송일은오"}[
        script
    ]
    marks = {"en": [",", ".", "?", " a.m.", '."'], "ko": [",", ".", "?"]}.get(
        script, ["，", "。", "？", "」", "、"]
    )
    most = 60 if chance.random() < 0.01 else 8 if script == "en" else 2
    word = "".join(chance.choice(letters) for _ in range(chance.randint(1, most)))
    return word + (chance.choice(marks) if chance.random() < 0.2 else "")


@pytest.mark.parametrize(
    ("trick", "title"),
    [
        (
            "Object.defineProperty(window, 'isSecureContext', { value: false })",
            "Browsers record only on a secure page",
        ),
        (REFUSAL.replace("WHY", "NotAllowedError"), "The microphone may not be used"),
        (REFUSAL.replace("WHY", "NotFoundError"), "There is no microphone"),
    ],
)
def test_why_nothing_can_be_recorded_is_said(page: Page, trick: str, title: str) -> None:
    page.add_init_script(trick)
    page.reload()
    page.locator("#record").click()
    expect(page.locator("#problem-title")).to_have_text(title)
    expect(page.locator("#problem-detail")).not_to_be_empty()
    expect(page.locator("#again")).to_be_hidden()
    give(page, CLIPS / CLIP["file"])
    done(page)


def test_a_format_that_the_browser_cannot_play_is_read_all_the_same(page: Page, tmp_path: Path) -> None:
    samples, rate = soundfile.read(CLIPS / CLIP["file"], dtype="int16")
    soundfile.write(tmp_path / "old.aiff", samples, rate, subtype="PCM_16")
    give(page, tmp_path / "old.aiff")
    done(page)
    assert said(page) == CLIP["withitn"]
    expect(page.locator("#unplayable")).to_be_visible()
    expect(page.locator("#play")).to_be_hidden()


def test_a_recording_in_which_nobody_speaks_says_so(page: Page) -> None:
    give(page, CLIPS / "noise.flac")
    done(page)
    expect(page.locator(".nothing")).to_have_text("Nobody speaks in this recording.")


def test_the_policy_is_in_force(browser: Browser, service: Service) -> None:
    # The same watch is kept in every test of this module.
    with (
        pytest.raises(AssertionError, match=r"Content Security Policy.*TrustedHTML"),
        visiting(browser, service.url) as page,
    ):
        page.evaluate("document.body.setAttribute('style', 'color: red')")
        with (
            page.expect_console_message(lambda message: "TrustedHTML" in message.text),
            pytest.raises(Error, match="TrustedHTML"),
        ):
            page.evaluate("document.body.innerHTML = '<b>bold</b>'")
