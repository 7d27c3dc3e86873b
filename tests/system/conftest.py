"""The service under a systemd of its own, one for each file of tests that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from box import Box
from world import World, note


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[World]:
    failed = request.session.testsfailed
    box = Box(tmp_path_factory.mktemp("box"))
    try:
        box.boot()
        box.install()
        box.start_proxy()
        yield World(box)
        if request.session.testsfailed > failed:
            note(box.journal()[-20_000:])
    finally:
        box.end()


@pytest.fixture
def running(world: World) -> World:
    """The service with its socket units, whole."""
    box = world.box
    if not world.first:
        box.run("systemctl", "start", "asr.socket", "asr-ops.socket")
        box.run("systemctl", "start", "asr")
        world.first = box.status()["version"]
        world.second = box.add_version("/opt/asr/tests/data/sensevoice-nano-prev", "second")
    box.run("systemctl", "start", "asr")
    box.wait_until_serving()
    return world
