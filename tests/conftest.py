"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).resolve().parent.parent


# A machine that pauses says nothing of what is tested.
settings.register_profile(
    "asrsvc", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
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


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds bin/, asrsvc/ and tests/."""
    return CHECKOUT


@pytest.fixture(scope="session")
def embedded_model(checkout: Path) -> Path:
    """The folder of the model inside the package."""
    (folder,) = (path for path in (checkout / "asrsvc" / "models").iterdir() if path.is_dir())
    return folder
