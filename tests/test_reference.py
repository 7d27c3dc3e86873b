"""asrsvc gives the numbers that funasr-onnx gives: features, and token ids of both models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
import reference_funasr
import soundfile
from reference_funasr import Ask, FloatArray
from waiting import PATIENCE

from asrsvc.speech.engine import Engine
from asrsvc.speech.features import FbankExtractor
from asrsvc.speech.frames import Frames
from asrsvc.speech.text import collapse
from asrsvc.speech.types import LANGUAGES
from benchmarks.full_size import FEATURE_SIZE, make_full_size

pytestmark = pytest.mark.skipif(reference_funasr.MISSING is not None, reason=str(reference_funasr.MISSING))

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "tests" / "data" / "clips"
NANO = ROOT / "asrsvc" / "models" / "sensevoice-nano"
ASKS: list[Ask] = [(language, use_itn) for language in LANGUAGES for use_itn in (True, False)]
BATCH_LENGTHS = (
    (500,),
    (240, 9),
    (150, 31, 2),
    (90, 64, 45, 3),
    (1,),
    (120, 80),
    (17, 1, 5),
    (60, 40, 20, 10),
)
"""frames of each matrix of each batch"""
DEADLINE = 2 * PATIENCE
"""seconds that the reference may take for all that one test asks"""


@pytest.fixture(scope="module")
def reference() -> Iterator[Executor]:
    with reference_funasr.reference() as executor:
        yield executor


@pytest.fixture(scope="module")
def clips() -> dict[str, FloatArray]:
    """file name → samples, float32, (n,), 16 kHz"""
    return {name: soundfile.read(CLIPS / name, dtype="float32")[0] for name in spoken()}


def spoken() -> dict[str, str]:
    """file name → the language that is spoken in it, or nospeech"""
    return {
        clip["file"]: clip["language"] for clip in json.loads((CLIPS / "manifest.json").read_text("utf-8"))
    }


def token_ids(frames: Frames) -> list[int]:
    """Token ids, tags included."""
    ids: list[int] = collapse(frames.ids)[0].tolist()
    return ids


def test_features_are_those_of_wavfrontend_at_dither_0(
    reference: Executor, clips: dict[str, FloatArray]
) -> None:
    """Tolerance 5e-4 after CMVN, where values span about -4 to 4.

    Measured largest difference: 5.1e-5 on the clips, 1.1e-4 on noise: both compute in float32, in another
    order. The lengths of the noise are those at which the number of windows or of stacked frames changes.
    """
    random = np.random.default_rng(3)
    lengths = (400, 559, 560, 1_200, 1_359, 1_360, 1_519, 1_520, 15_999, 16_000, 160_000)
    noise = [random.uniform(-0.5, 0.5, length).astype(np.float32) for length in lengths]
    quiet = random.uniform(-1e-4, 1e-4, 16_000).astype(np.float32)
    waveforms = [*clips.values(), *noise, quiet]

    expected = reference.submit(reference_funasr.features, NANO, waveforms).result(DEADLINE)

    extractor = FbankExtractor(NANO / "am.mvn")
    for waveform, wanted in zip(waveforms, expected, strict=True):
        features = extractor.features(waveform)
        assert features.dtype == np.float32
        assert features.shape == wanted.shape
        np.testing.assert_allclose(features, wanted, rtol=0, atol=5e-4)


def test_every_clip_gives_the_same_token_ids_with_language_auto_and_named_with_and_without_itn(
    reference: Executor, clips: dict[str, FloatArray]
) -> None:
    """From the waveform on, each side with its own features; clips without speech in every language.

    Not asked for: a language that is not spoken. The model never learnt that, two tokens are often almost
    as likely there, and the rounding of the features decides: 5 of 80 such answers differ, by a token.
    The next test shows that the features alone are the cause.
    """
    waveforms = list(clips.values())
    promised = reference.submit(reference_funasr.ids_of_waveforms, NANO, waveforms, ASKS)

    extractor = FbankExtractor(NANO / "am.mvn")
    ids = ids_of_features([extractor.features(waveform) for waveform in waveforms])

    compared = 0
    for (name, language), ours, wanted in zip(spoken().items(), ids, promised.result(DEADLINE), strict=True):
        for ask, our_ids, wanted_ids in zip(ASKS, ours, wanted, strict=True):
            if language == "nospeech" or ask[0] in ("auto", language):
                assert our_ids == wanted_ids, (name, ask)
                compared += 1
    assert compared == 10 * 4 + 2 * 12


def test_from_the_same_features_every_clip_gives_the_same_token_ids_in_every_language(
    reference: Executor, clips: dict[str, FloatArray]
) -> None:
    waveforms = list(clips.values())
    features = reference.submit(reference_funasr.features, NANO, waveforms).result(DEADLINE)
    promised = reference.submit(reference_funasr.ids_of_waveforms, NANO, waveforms, ASKS)

    assert ids_of_features(features) == promised.result(DEADLINE)


def ids_of_features(features: list[FloatArray]) -> list[list[list[int]]]:
    """What asrsvc answers with the embedded model to each matrix (T, 560), asked for in each way of ASKS."""
    engine = Engine.load(NANO, threads=1)
    return [
        [token_ids(engine.run([matrix], [language], [use_itn])[0]) for language, use_itn in ASKS]
        for matrix in features
    ]


def test_random_features_give_the_same_token_ids_on_the_full_size_graph(reference: Executor) -> None:
    """20 matrices of 1 to 500 frames in batches of 1 to 4, in all languages, with and without ITN."""
    folder = make_full_size()
    random = np.random.default_rng(20)
    batches = [
        [random.standard_normal((length, FEATURE_SIZE), dtype=np.float32) for length in lengths]
        for lengths in BATCH_LENGTHS
    ]
    asks = [[ASKS[int(random.integers(len(ASKS)))] for _ in lengths] for lengths in BATCH_LENGTHS]
    promised = reference.submit(reference_funasr.ids_of_batches, folder, batches, asks)

    engine = Engine.load(folder, threads=1)
    ids = []
    for batch, ask in zip(batches, asks, strict=True):
        languages, use_itn = zip(*ask, strict=True)
        ids.append([token_ids(frames) for frames in engine.run(batch, languages, use_itn)])

    assert ids == promised.result(DEADLINE)
    assert len({token for batch in ids for row in batch for token in row}) > 200, "too few to prove much"
