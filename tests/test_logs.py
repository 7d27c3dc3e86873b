"""Log lines: one JSON object a line for machines, text for people, whatever a client sends."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import pty
import select
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from asrsvc.serving.logs import JsonFormatter, TextFormatter, configuration

DEADLINE = PATIENCE
"""seconds that a child process may take"""

Log = Callable[[logging.Logger], None]


def written(formatter: logging.Formatter, log: Log) -> str:
    """What a handler with this formatter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("asrsvc.test")  # noqa: LOG001 - known to nobody else
    logger.addHandler(handler)
    log(logger)
    return stream.getvalue()


def json_line(log: Log) -> dict[str, Any]:
    """The one line that is written, parsed strictly: NaN is no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = written(JsonFormatter(), log)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    line: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return line


def fail() -> None:
    raise ValueError("line one\nline two")


def log_failure(logger: logging.Logger) -> None:
    try:
        fail()
    except ValueError:
        logger.exception("it %s", "failed")


def test_a_json_line_has_the_keys_that_are_documented() -> None:
    line = json_line(lambda logger: logger.warning("%d of %d", 2, 3))
    assert list(line) == ["time", "level", "logger", "pid", "message"]
    assert line["message"] == "2 of 3"
    assert (line["level"], line["logger"], line["pid"]) == ("warning", "asrsvc.test", os.getpid())
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_extra_fields_are_keys_of_the_line() -> None:
    extra = {"request_id": "r-1", "status": 200, "total_ms": 1.5, "words": ["你", "好"], "none": None}
    line = json_line(lambda logger: logger.info("done", extra=extra))
    assert {name: line[name] for name in extra} == extra


def test_an_extra_field_that_is_no_json_is_written_as_text() -> None:
    line = json_line(lambda logger: logger.info("done", extra={"path": Path("/a"), "raw": b"x"}))
    assert (line["path"], line["raw"]) == ("/a", "b'x'")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], {"a": float("nan")}], ids=str)
def test_a_number_that_json_does_not_know_does_not_break_the_line(value: object) -> None:
    line = json_line(lambda logger: logger.info("done", extra={"value": value, "other": "x"}))
    assert (line["value"], line["other"], line["pid"]) == (str(value), "x", os.getpid())
    assert line["message"] == "done"


def test_an_extra_field_cannot_take_the_place_of_what_is_documented() -> None:
    extra = {"level": "fine", "time": 3, "logger": "another", "pid": 0, "trace": "none"}
    line = json_line(lambda logger: logger.warning("done", extra=extra))
    assert (line["level"], line["logger"], line["pid"]) == ("warning", "asrsvc.test", os.getpid())
    datetime.fromisoformat(line["time"])


@given(st.text(), st.text())
def test_any_text_stays_on_its_json_line(message: str, value: str) -> None:
    line = json_line(lambda logger: logger.info("%s", message, extra={"value": value}))
    assert (line["message"], line["value"]) == (message, value)


def test_the_traceback_is_in_the_json_line() -> None:
    line = json_line(log_failure)
    assert line["message"] == "it failed"
    assert line["trace"].startswith("Traceback (most recent call last):\n")
    assert line["trace"].endswith("ValueError: line one\nline two")
    assert "in fail" in line["trace"]


def test_a_text_line_is_for_people() -> None:
    text = written(
        TextFormatter(), lambda logger: logger.info("GET %s", "/health", extra={"status": 200, "ms": 1.5})
    )
    clock, level, pid, *rest = text.split()
    datetime.strptime(clock, "%H:%M:%S.%f")  # noqa: DTZ007 - a time of day
    assert (level, pid, rest) == ("info", f"[{os.getpid()}]", ["GET", "/health", "status=200", "ms=1.5"])


@given(st.text(), st.text())
def test_any_text_stays_on_its_text_line_and_moves_no_cursor(message: str, value: str) -> None:
    text = written(TextFormatter(), lambda logger: logger.info("%s", message, extra={"value": value}))
    assert len(text.splitlines()) == 1
    assert not {"Cc", "Zl", "Zp", "Cs"} & set(map(unicodedata.category, text.removesuffix("\n")))


SNEAKY = "a\x1b[2Jb\x9bc\u202ed\u2066e\u061cf\u2028g\x85h\rI\x00\ud800z"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
def test_what_controls_a_terminal_is_written_in_letters_wherever_it_stands(
    formatter: logging.Formatter,
) -> None:
    def log(logger: logging.Logger) -> None:
        extra = {"path": SNEAKY, "more": [SNEAKY, {SNEAKY: SNEAKY}], SNEAKY: 1}
        try:
            raise ValueError(SNEAKY)
        except ValueError:
            logger.exception("GET %s", SNEAKY, extra=extra)

    text = written(formatter, log)
    assert text.isascii()
    assert not {"Cc", "Cf", "Zl", "Zp", "Cs"} & set(map(unicodedata.category, text.replace("\n", "")))
    if isinstance(formatter, JsonFormatter):
        line = json.loads(text)
        assert (line["message"], line["path"], line[SNEAKY]) == (f"GET {SNEAKY}", SNEAKY, 1)
        assert line["more"] == [SNEAKY, {SNEAKY: SNEAKY}]


def test_text_of_all_languages_stays_readable() -> None:
    words = "晚上十一点半　提醒我 でんしゃ 열두 시 é 😀"
    text = written(TextFormatter(), lambda logger: logger.info("%s\n", words, extra={"text": words}))
    assert text.count(words) == 2


def test_the_traceback_follows_the_text_line() -> None:
    first, *rest = written(TextFormatter(), log_failure).splitlines()
    assert first.endswith("it failed")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-2:] == ["ValueError: line one", "line two"]


CHILD = (
    "import logging.config; from asrsvc.serving.logs import configuration\n"
    "logging.config.dictConfig(configuration({!r}, 'info'))\n"
    "logging.getLogger('asrsvc.x').info('hello', extra={{'n': 1}})\n"
)


def run_child(log_format: str, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", CHILD.format(log_format)], env=environment, **streams)


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_what_a_pipe_gets(log_format: str, is_json: bool) -> None:
    with run_child(log_format, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert said.startswith(b"{") == is_json
    if is_json:
        assert json.loads(said)["n"] == 1


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("json", True), ("text", False)])
def test_what_a_terminal_gets(log_format: str, is_json: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with run_child(log_format, stderr=theirs) as process:
            os.close(theirs)
            said = b""
            deadline = time.monotonic() + DEADLINE
            while b"\n" not in said:
                ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
                assert ready, "the terminal got no line"
                said += os.read(ours, 4096)
            assert process.wait(DEADLINE) == 0
    finally:
        os.close(ours)
    assert said.startswith(b"{") == is_json
    assert said.rstrip().endswith(b'"n": 1}' if is_json else b"hello n=1")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_holds_for_the_service_and_leaves_out_what_libraries_chat(level: str) -> None:
    loggers = configuration("json", level)["loggers"]
    assert loggers["asrsvc"]["level"] == loggers["gunicorn.error"]["level"] == level.upper()
    assert loggers["uvicorn"]["level"] == "WARNING"
    assert configuration("json", level)["root"]["level"] == "WARNING"


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(KeyError):
        configuration("xml", "info")
