from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers with the embedded model, shared by the tests of a module."""
    folder: Path = tmp_path_factory.mktemp("service")
    with running(folder, ASR_WORKERS="2", ASR_THREADS="1") as started:
        yield started
