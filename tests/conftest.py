"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).resolve().parent.parent


# A machine that pauses says nothing of what is tested. Examples are the same each time: what is found by
# chance would fail whoever runs the tests that day. `--hypothesis-profile=search` looks for more of them.
settings.register_profile(
    "asrsvc",
    settings.default,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("asrsvc"), derandomize=False, max_examples=2000)
settings.load_profile("asrsvc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the tests marked soak too: long ones")


def pytest_configure() -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests that use ONNX Runtime themselves report nothing either
    # A shell lets its background jobs ignore SIGINT, and so would every process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="long: runs with --soak"))


# A test may be skipped on a machine that lacks what it needs. In continuous integration that is a failure,
# else nobody would notice that it never runs. Only the long tests, which run with --soak, are left out there.


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI", "") in {"", "0", "false"} or not report.skipped or hasattr(report, "wasxfail"):
        return
    # of a skip: the file, the line and the reason
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"no test may be skipped where CI is set: {reason.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--soak") or not item.get_closest_marker("soak"):
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds bin/, asrsvc/ and tests/."""
    return CHECKOUT


@pytest.fixture(scope="session")
def embedded_model(checkout: Path) -> Path:
    """The folder of the model inside the package."""
    (folder,) = (path for path in (checkout / "asrsvc" / "models").iterdir() if path.is_dir())
    return folder
