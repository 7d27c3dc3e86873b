"""Where the workers' metrics are kept; the master knows no more of them than this."""

from __future__ import annotations

import shutil
from pathlib import Path


def metric_folder(runtime_dir: Path) -> Path:
    """The folder, below ASR_RUNTIME_DIR."""
    return runtime_dir / "metrics"


def empty_metric_folder(runtime_dir: Path) -> None:
    """Begin to count anew: at a start, and not where a new master takes over.

    Raises:
        OSError: the disk refuses.
    """
    folder = metric_folder(runtime_dir)
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o750)
