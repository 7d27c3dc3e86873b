"""How log lines look: JSON for machines, text for a terminal. Used by the master and its workers."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from asrsvc.system.printable import printable, printable_json, printable_lines

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, pid, message, and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        line = {**line, **_extra(record), **line}  # the documented keys come first and stay what they are
        try:
            return printable_json(line, default=str)
        except (TypeError, ValueError):  # NaN, a key that is no text, a circle
            plain = {n: v if isinstance(v, str | int | None) else str(v) for n, v in line.items()}
            return printable_json(plain)


class TextFormatter(logging.Formatter):
    """For people: time, level, pid, message, then `name=value` for what `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record. Whatever a client put into its path, a line is a line."""
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        said = printable(record.getMessage() + extra)
        line = f"{_time(record)[11:23]} {record.levelname.lower():7} [{record.process}] {said}"
        if not record.exc_info:
            return line
        return f"{line}\n{printable_lines(self.formatException(record.exc_info))}"


def configuration(log_format: str, level: str) -> dict[str, Any]:
    """A `logging.config.dictConfig` for gunicorn, uvicorn and asrsvc.

    Args:
        log_format: json, text, or auto (text if standard error is a terminal).
        level: least severe level to log.
    """
    if log_format == "auto":
        log_format = "text" if sys.stderr.isatty() else "json"
    formatter = {"json": JsonFormatter, "text": TextFormatter}[log_format]
    one = {"level": level.upper(), "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": one,
            "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": False},
            "uvicorn": {**one, "level": "WARNING"},
            "asrsvc": one,
        },
    }
