"""Makes a model version of SenseVoiceSmall's true size, with random weights, for tests and benchmarks.

`data/sensevoice-small.skeleton.onnx.xz` is the graph of the published `model_quant.onnx` (50 + 20 SANM
blocks, d 512, 4 heads, ffn 2048, vocabulary 25,055; dynamic int8, MatMul only, per channel), without its
weights. Filled with random values it has the size, the operators and the shapes of the published file, so
it costs what that costs; its text is meaningless. Beside it go the other files of the published layout.

    python benchmarks/full_size.py [FOLDER]

The same seed gives the same bytes on every machine. Needs the packages onnx, numpy, sentencepiece and
protobuf (one as new as sentencepiece's generated code asks for: it says so), about 0.8 GB of memory for a
few seconds, and 240 MB of disk.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import lzma
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from sentencepiece import sentencepiece_model_pb2

ROOT: Final = Path(__file__).resolve().parents[1]
SKELETON: Final = ROOT / "benchmarks" / "data" / "sensevoice-small.skeleton.onnx.xz"
DEFAULT_FOLDER: Final = ROOT / "var" / "full-size"
"""git-ignored; safe to delete"""

MODEL_NAME: Final = "model_quant.onnx"
PIECES_NAME: Final = "chn_jpn_yue_eng_ko_spectok.bpe.model"
STAMP_NAME: Final = "full-size.json"
"""Written last: seed, recipe, and the size and SHA-256 of every file. A folder without it is not complete."""

RECIPE: Final = 1
"""Raise it when the same seed gives other bytes than before."""

VOCABULARY_SIZE: Final = 25_055
FEATURE_SIZE: Final = 560
"""80 mel bins x 7 stacked frames"""
MEL_BINS: Final = 80

FIRST_TAG_ID: Final = 24_884
_LANGUAGES: Final = """
    zh en zh/en en/zh yue minnan wuyu dialect ja de es ru ko fr pt tr pl ca nl ar sv it id hi fi vi he
    uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy
    ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb
    my bo tl mg as tt haw ln ha ba jw su
"""
_TASKS_EVENTS_EMOTIONS: Final = """
    ASR AED SER nospeech Speech /Speech BGM /BGM Laughter /Laughter Applause /Applause
    HAPPY SAD ANGRY NEUTRAL FEARFUL DISGUSTED SURPRISED OTHER EMO_UNKNOWN
    Cry Sneeze Breath Cough Sing Speech_Noise withitn woitn GBG Event_UNK
"""
_SPARE_TAGS: Final = 35

_CONFIG: Final = """\
encoder: SenseVoiceEncoderSmall
encoder_conf:
  output_size: 512
  attention_heads: 4
  linear_units: 2048
  num_blocks: 50
  tp_blocks: 20
  dropout_rate: 0.1
  positional_dropout_rate: 0.1
  attention_dropout_rate: 0.1
  input_layer: pe
  pos_enc_class: SinusoidalPositionEncoder
  normalize_before: true
  kernel_size: 11
  sanm_shfit: 0
  selfattention_layer_type: sanm
model: SenseVoiceSmall
model_conf:
  length_normalized_loss: true
  sos: 1
  eos: 2
  ignore_id: -1
tokenizer: SentencepiecesTokenizer
tokenizer_conf:
  bpemodel: null
  unk_symbol: <unk>
  split_with_space: true
frontend: WavFrontend
frontend_conf:
  fs: 16000
  window: hamming
  n_mels: 80
  frame_length: 25
  frame_shift: 10
  lfr_m: 7
  lfr_n: 6
  cmvn_file: null
input_size: 560
vocab_size: 25055
ctc_conf:
  dropout_rate: 0.0
  ctc_type: builtin
  reduce: true
  ignore_nan_grad: true
"""


def make_full_size(folder: Path = DEFAULT_FOLDER, seed: int = 0) -> Path:
    """Makes the version folder unless it is there, complete, and of this seed and recipe.

    Several processes may ask for the same folder at once: one builds it, the others wait.

    Args:
        folder: where the version shall be; an older one made here is replaced, anything else is refused.
        seed: of the random weights, 0 to 2**32 - 1.

    Returns:
        folder

    Raises:
        FileExistsError: folder holds files that were not made here.
    """
    wanted = {"recipe": RECIPE, "seed": seed, "skeleton_sha256": _sha256(SKELETON)}
    if _is_complete(folder, wanted):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / STAMP_NAME).is_file():
        raise FileExistsError(f"{folder} holds files, but no {STAMP_NAME}: it was not made here")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock")):
        if not _is_complete(folder, wanted):
            _build(folder, wanted, seed)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path, wanted: dict[str, object], seed: int) -> None:
    """Builds beside the folder, then puts the finished version in its place."""
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = staging / "new"
        fresh.mkdir()
        _write_version(fresh, seed)
        _write_stamp(fresh, wanted)
        if folder.exists():
            folder.rename(staging / "old")
        fresh.rename(folder)
    finally:
        shutil.rmtree(staging)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, as they were when the folder was made."""
    stamp = json.loads((folder / STAMP_NAME).read_text("utf-8"))
    return {name: entry["sha256"] for name, entry in stamp["files"].items()}


def pieces() -> list[str]:
    """The vocabulary: the published special tags at their published ids, stand-ins for all other pieces.

    Ids 0 to 2 are <unk> (the CTC blank), <s> and </s>; 24884 to 25054 are the tags, in the order of the
    published tokens.json. Between them: ASCII, kana, Han characters, Hangul, and syllables with and without
    the mark of a word's beginning, in about the published proportions.
    """
    ordinary = list(islice(_ordinary_pieces(), FIRST_TAG_ID - 3))
    spare = [f"SPECIAL_TOKEN_{number}" for number in range(1, _SPARE_TAGS + 1)]
    tags = [f"<|{name}|>" for name in (*_LANGUAGES.split(), *_TASKS_EVENTS_EMOTIONS.split(), *spare)]
    return ["<unk>", "<s>", "</s>", *ordinary, *tags]


def _ordinary_pieces() -> Iterator[str]:
    syllables = ["".join(s) for s in product("bcdfghjklmnprstvwz", "aeiou", ("", "l", "n", "r", "s", "t"))]
    yield from (chr(code) for code in range(0x21, 0x7F))
    yield "▁"
    yield from (f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    yield from (chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)))
    yield from "、。，？！"
    yield from (chr(code) for code in range(0xAC00, 0xAC00 + 2_000))
    yield from (chr(code) for code in range(0x4E00, 0x4E00 + 7_000))
    yield from (f"▁{syllable}" for syllable in syllables)
    yield from syllables
    yield from (f"▁{first}{second}" for first, second in product(syllables, syllables))


def _write_version(folder: Path, seed: int) -> None:
    vocabulary = pieces()
    _write(folder / "config.yaml", _CONFIG.encode())
    _write(folder / "am.mvn", _cmvn().encode())
    _write(folder / "tokens.json", json.dumps(vocabulary, ensure_ascii=False).encode())
    _write(folder / PIECES_NAME, _sentencepiece_model(vocabulary))
    model = onnx.load_model_from_string(lzma.decompress(SKELETON.read_bytes()))
    fill(model, seed)
    # Deterministic serialisation fixes the order of map entries: without it the digest may differ.
    _write(folder / MODEL_NAME, model.SerializeToString(deterministic=True))


def fill(model: onnx.ModelProto, seed: int) -> None:
    """Gives every empty initialiser of the graph random or neutral values of its type and shape, in place.

    RandomState, not default_rng: NumPy promises that its streams never change (NEP 19).
    """
    random = np.random.RandomState(seed)
    for tensor in model.graph.initializer:
        count = int(np.prod(tensor.dims))
        if count == 0 or _has_data(tensor):
            continue
        if tensor.data_type == onnx.TensorProto.UINT8:
            tensor.raw_data = _quantised(random, count) if len(tensor.dims) == 2 else bytes([128]) * count
        elif tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.raw_data = _floats(random, tensor.name, count, len(tensor.dims)).tobytes()
        else:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise ValueError(f"{tensor.name} is empty and of type {kind}, which the recipe does not know")


def _has_data(tensor: onnx.TensorProto) -> bool:
    return any(
        len(data) for data in (tensor.raw_data, tensor.float_data, tensor.int32_data, tensor.int64_data)
    )


def _quantised(random: np.random.RandomState, count: int) -> bytes:
    """Weights of a quantised matrix: uniform integers 96 to 159, around the zero point 128."""
    weights = np.frombuffer(random.bytes(count), dtype=np.uint8) & np.uint8(63)
    weights += np.uint8(96)
    return weights.tobytes()


def _floats(random: np.random.RandomState, name: str, count: int, dimensions: int) -> Any:
    """float32 (count,), little-endian: what a tensor of this name may hold."""
    if "scale" in name:
        return np.full(count, 0.001, dtype="<f4")
    if name.endswith("bias"):
        return np.zeros(count, dtype="<f4")
    if dimensions == 1 and name.startswith("onnx::Mul_"):
        # The weight of a layer normalisation: the exporter named it after the node that it goes to.
        return np.ones(count, dtype="<f4")
    return (random.standard_normal(count) * 0.02).astype("<f4")


def _cmvn() -> str:
    """An am.mvn (Kaldi's nnet1 text) with about what speech has: shift = -mean, scale = 1 / deviation.

    As of log mel energies of 16-bit samples: means from 9.5 in the lowest bin to 14.5, deviations of 5 to 6.
    """
    position = np.linspace(0.0, 1.0, MEL_BINS)
    shift = np.tile(-(9.5 + 5.0 * np.sin(2.2 * position)), FEATURE_SIZE // MEL_BINS)
    scale = np.tile(0.17 + 0.03 * position, FEATURE_SIZE // MEL_BINS)
    size = f"{FEATURE_SIZE} {FEATURE_SIZE}"
    rows = {"<AddShift>": shift, "<Rescale>": scale}
    body = [
        f"{name} {size}\n<LearnRateCoef> 0 [ {' '.join(f'{x:.7g}' for x in row)} ]"
        for name, row in rows.items()
    ]
    return "\n".join(["<Nnet>", f"<Splice> {size}", "[ 0 ]", *body, "</Nnet>", ""])


def _sentencepiece_model(vocabulary: list[str]) -> bytes:
    """A SentencePiece BPE model with these pieces and no text normalisation, tags as user-defined symbols.

    It decodes ids as the published one does; it encodes nothing sensibly, for its merges were never learnt.
    """
    generated: Any = sentencepiece_model_pb2  # made at import: type checkers see nothing in it
    proto = generated.ModelProto()
    kinds = proto.SentencePiece
    special = {"<unk>": kinds.UNKNOWN, "<s>": kinds.CONTROL, "</s>": kinds.CONTROL}
    for index, piece in enumerate(vocabulary):
        entry = proto.pieces.add()
        entry.piece = piece
        entry.type = special.get(piece, kinds.USER_DEFINED if index >= FIRST_TAG_ID else kinds.NORMAL)
        entry.score = 0.0 if entry.type != kinds.NORMAL else 3.0 - index
    trainer = proto.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(vocabulary)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    return bytes(proto.SerializeToString(deterministic=True))


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_stamp(folder: Path, wanted: dict[str, object]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }
    _write(folder / STAMP_NAME, json.dumps({**wanted, "files": files}, indent=1).encode() + b"\n")


def _is_complete(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether the stamp is of this seed and recipe and every file that it names has its size."""
    try:
        stamp = json.loads((folder / STAMP_NAME).read_text("utf-8"))
        same = all(stamp.get(key) == value for key, value in wanted.items())
        return same and all(
            (folder / name).stat().st_size == entry["bytes"] for name, entry in stamp["files"].items()
        )
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Command line: makes the folder, prints its path on stdout and what was done on stderr."""
    parser = argparse.ArgumentParser(
        description="Make a model version of SenseVoiceSmall's size with random weights, unless it is there."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DEFAULT_FOLDER, help="where (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    folder = make_full_size(options.folder, options.seed)
    print(f"complete after {time.monotonic() - began:.1f} s", file=sys.stderr)
    for name, digest in file_digests(folder).items():
        print(f"{digest}  {name}", file=sys.stderr)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
