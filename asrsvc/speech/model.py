"""One version's folder, opened: the engine, the features and the vocabulary that belong together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asrsvc.errors import ModelError
from asrsvc.speech.engine import Engine
from asrsvc.speech.features import FbankExtractor
from asrsvc.speech.text import Vocabulary
from asrsvc.system.documents import parse_json, read_bytes
from asrsvc.system.plain_yaml import parse_yaml

DEFAULT_MAX_SPAN_SECONDS: Final = 30.0
# What `features` computes; another front end would give the network numbers it has never seen.
_FRONTEND: Final = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
}
# The published files have 1.9 and 352 KB. What is larger costs more than a model is worth waiting for.
_MOST_CONFIG_BYTES: Final = 2**16
_MOST_CONFIG_VALUES: Final = 5_000
_MOST_TOKENS_BYTES: Final = 2**22
_MOST_TOKENS_VALUES: Final = 2**18


@dataclass(frozen=True, slots=True)
class Model:
    """A model version ready to recognise."""

    version: str
    """id of the version"""
    engine: Engine
    extractor: FbankExtractor
    vocabulary: Vocabulary
    max_span_seconds: float
    """the longest stretch of sound that the network has learnt to hear, seconds"""

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        version: str,
        threads: int,
        device: str = "cpu",
        baked: Path | None = None,
        run: bool = True,
    ) -> Model:
        """Open a folder of the published layout and run it once.

        Args:
            folder: holds model_quant.onnx, am.mvn, config.yaml, tokens.json and one *.bpe.model.
            version: what to call it in answers and logs.
            threads: intra-op threads of the engine.
            device: see `open_session`.
            baked: folder of the version's faster twin; None: the published file is opened.
            run: False for who lets it hear something at once.

        Raises:
            ModelError: a file is missing or damaged or does not fit the others; the message names it.
            InferenceFailed: the network does not run.
        """
        max_span_seconds = _read_config(folder / "config.yaml")
        extractor = FbankExtractor(folder / "am.mvn")
        with ThreadPoolExecutor(1, "asr-open") as aside:
            # ONNX Runtime does not hold Python's lock.
            opening = aside.submit(Engine.load, folder, threads=threads, device=device, baked=baked)
            vocabulary = Vocabulary(_bpe_model(folder))
            engine = opening.result()
        vocabulary.check_size(engine.vocabulary_size)
        _check_tokens(folder / "tokens.json", engine.vocabulary_size)
        if run:
            engine.warm_up()
        return cls(version, engine, extractor, vocabulary, max_span_seconds)


def _bpe_model(folder: Path) -> Path:
    found = sorted(folder.glob("*.bpe.model"))
    if len(found) != 1:
        raise ModelError(f"{folder}: holds {len(found)} files *.bpe.model; exactly one is right")
    return found[0]


def _read_config(path: Path) -> float:
    try:
        text = read_bytes(path, _MOST_CONFIG_BYTES).decode("utf-8")
        config = parse_yaml(text, most_values=_MOST_CONFIG_VALUES)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no mapping")
    frontend = config.get("frontend_conf", {})
    if not isinstance(frontend, dict):
        raise ModelError(f"{path}: frontend_conf is {type(frontend).__name__}; a mapping is right")
    for name, value in _FRONTEND.items():
        if frontend.get(name, value) != value:
            raise ModelError(f"{path}: frontend_conf.{name} is {frontend[name]!r}; {value!r} is supported")
    seconds = config.get("max_span_seconds", DEFAULT_MAX_SPAN_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 60:
        raise ModelError(f"{path}: max_span_seconds is {seconds!r}; a number from 1 to 60 is right")
    return float(seconds)


def _check_tokens(path: Path, expected_size: int) -> None:
    try:
        tokens = parse_json(read_bytes(path, _MOST_TOKENS_BYTES), most_values=_MOST_TOKENS_VALUES)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(tokens, list) or len(tokens) != expected_size:
        size = len(tokens) if isinstance(tokens, list) else "no"
        raise ModelError(f"{path}: lists {size} tokens; the network has {expected_size} outputs")
    if not all(isinstance(token, str) for token in tokens):
        raise ModelError(f"{path}: lists a token that is no text")
