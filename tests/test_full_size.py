"""The stand-in of SenseVoiceSmall's size: the same everywhere, whole or absent, laid out as published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest
import sentencepiece

from benchmarks import full_size
from benchmarks.full_size import MODEL_NAME, PIECES_NAME, STAMP_NAME, file_digests, make_full_size

SEED_0 = {
    "am.mvn": "de461f7e1f7a3720852619bd427fdc88cd5b4332c1e4cdf22dd187a6002e3e11",
    PIECES_NAME: "4c111fbe250565f7127aaedfb47fc30036862d5d4826c59a959f88ebfcd5d6bc",
    "config.yaml": "50c858f7cc2514c76686a600fc5815374d5de2860e91c4c6bd02644626cd0c9a",
    MODEL_NAME: "1f9b2f18d34d29757bf25581e1c0b163f3cd56d44f066073ebfa2db65e079141",
    "tokens.json": "c6f8d8c23047f17751ca1cbd8388042846de4e01607869ee362b54785c1b60f7",
}
"""SHA-256 by file: what seed 0 must give on every machine, with every version of NumPy and onnx."""

PUBLISHED_IDS = {
    "<unk>": 0,
    "<s>": 1,
    "</s>": 2,
    "<|zh|>": 24_884,
    "<|en|>": 24_885,
    "<|yue|>": 24_888,
    "<|ja|>": 24_892,
    "<|ko|>": 24_896,
    "<|nospeech|>": 24_992,
    "<|Speech|>": 24_993,
    "<|BGM|>": 24_995,
    "<|Laughter|>": 24_997,
    "<|Applause|>": 24_999,
    "<|HAPPY|>": 25_001,
    "<|SAD|>": 25_002,
    "<|ANGRY|>": 25_003,
    "<|NEUTRAL|>": 25_004,
    "<|FEARFUL|>": 25_005,
    "<|DISGUSTED|>": 25_006,
    "<|SURPRISED|>": 25_007,
    "<|EMO_UNKNOWN|>": 25_009,
    "<|Cry|>": 25_010,
    "<|Cough|>": 25_013,
    "<|withitn|>": 25_016,
    "<|woitn|>": 25_017,
    "<|Event_UNK|>": 25_019,
}
"""of the published tokens.json"""


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the large matrices out, so that a version is made in a moment."""
    fill = full_size.fill

    def fill_what_is_small(model: onnx.ModelProto, seed: int) -> None:
        small = [tensor for tensor in model.graph.initializer if len(tensor.dims) != 2]
        del model.graph.initializer[:]
        model.graph.initializer.extend(small)
        fill(model, seed)

    monkeypatch.setattr(full_size, "fill", fill_what_is_small)


def test_seed_0_gives_the_known_bytes(tmp_path: Path) -> None:
    folder = make_full_size(tmp_path / "version", seed=0)

    assert file_digests(folder) == SEED_0
    for name, digest in SEED_0.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.usefixtures("little")
def test_another_seed_gives_another_model_and_the_same_one_the_same(tmp_path: Path) -> None:
    first, again, other = (
        file_digests(make_full_size(tmp_path / name, seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )

    assert first == again
    assert {name for name in first if first[name] != other[name]} == {MODEL_NAME}


@pytest.mark.usefixtures("little")
def test_a_complete_folder_is_left_alone(tmp_path: Path) -> None:
    folder = make_full_size(tmp_path / "version")

    def written() -> dict[Path, tuple[int, int]]:
        """Which files there are, and when; not when they were read, which this does."""
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}

    before = written()
    make_full_size(folder)
    assert written() == before


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("damage", ["cut", "gone", "another seed"])
def test_a_folder_that_is_not_complete_is_made_anew(tmp_path: Path, damage: str) -> None:
    folder = make_full_size(tmp_path / "version", seed=int(damage == "another seed"))
    if damage == "cut":
        (folder / "tokens.json").write_bytes(b"[")
    elif damage == "gone":
        (folder / MODEL_NAME).unlink()

    make_full_size(folder, seed=0)

    assert (folder / MODEL_NAME).is_file()
    assert len(json.loads((folder / "tokens.json").read_bytes())) == 25_055
    assert json.loads((folder / STAMP_NAME).read_bytes())["seed"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"version", ".version.lock"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_model: onnx.ModelProto, _seed: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(full_size, "fill", fail)

    with pytest.raises(OSError, match="no space left"):
        make_full_size(tmp_path / "version")

    assert {path.name for path in tmp_path.iterdir()} == {".version.lock"}


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")

    with pytest.raises(FileExistsError, match=r"full-size\.json"):
        make_full_size(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("little")
def test_the_vocabulary_has_the_published_size_and_the_tags_at_their_published_ids(tmp_path: Path) -> None:
    folder = make_full_size(tmp_path / "version")

    processor = sentencepiece.SentencePieceProcessor()
    processor.load(str(folder / PIECES_NAME))
    pieces = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    assert pieces == json.loads((folder / "tokens.json").read_bytes())
    assert len(set(pieces)) == len(pieces) == 25_055
    assert {piece: pieces.index(piece) for piece in PUBLISHED_IDS} == PUBLISHED_IDS
    assert processor.decode([24_885, pieces.index("▁ban"), pieces.index("中")]) == "<|en|> ban中"
