"""The ONNX session: what it refuses by name, and that a batch says what its spans say alone."""

from __future__ import annotations

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from broken_models import (
    INPUTS,
    NANO,
    OUTPUTS,
    Io,
    copy_of_nano,
    edit_network,
    set_weight,
    write_network,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from waiting import PATIENCE

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.speech.engine import Engine
from asrsvc.speech.features import FEATURE_SIZE, FbankExtractor
from asrsvc.speech.frames import Frames
from asrsvc.speech.session import MODEL_FILE
from asrsvc.speech.text import collapse
from asrsvc.speech.types import FloatArray

CLIPS = Path(__file__).resolve().parent / "data" / "clips"
LANGUAGES = {
    clip["file"]: clip["language"] for clip in json.loads((CLIPS / "manifest.json").read_text("utf-8"))
}
ENGINE = Engine.load(NANO, threads=1)

Ask = tuple[str, str, bool]
"""a clip's file, the language that is asked for, use_itn"""


@functools.cache
def features(file: str) -> FloatArray:
    samples, _rate = soundfile.read(CLIPS / file, dtype="float32")
    return FbankExtractor(NANO / "am.mvn").features(samples)


def token_ids(frames: Frames) -> list[int]:
    ids: list[int] = collapse(frames.ids)[0].tolist()
    return ids


@functools.cache
def ids_alone(ask: Ask) -> list[int]:
    file, language, use_itn = ask
    (frames,) = ENGINE.run([features(file)], [language], [use_itn])
    return token_ids(frames)


def asks() -> st.SearchStrategy[Ask]:
    """A clip in its own language, named or not; one without speech in any."""
    files = st.sampled_from(sorted(LANGUAGES))
    return files.flatmap(
        lambda file: st.tuples(
            st.just(file),
            st.sampled_from(
                ("auto", "zh", "en") if LANGUAGES[file] == "nospeech" else ("auto", LANGUAGES[file])
            ),
            st.booleans(),
        )
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(asks(), min_size=1, max_size=4))
def test_a_batch_gives_each_span_the_tokens_that_it_has_alone(batch: list[Ask]) -> None:
    files, languages, use_itn = zip(*batch, strict=True)
    results = ENGINE.run([features(file) for file in files], languages, use_itn)
    assert [token_ids(frames) for frames in results] == [ids_alone(ask) for ask in batch]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_there_are_as_many_results_as_spans_each_four_frames_longer(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    batch = [random.standard_normal((length, FEATURE_SIZE), dtype=np.float32) for length in lengths]
    results = ENGINE.logits(batch, ["auto"] * len(batch), [True] * len(batch))
    assert [logits.shape for logits in results] == [(length + 4, 1307) for length in lengths]
    assert {logits.dtype for logits in results} == {np.dtype(np.float32)}


def test_the_same_span_gives_the_same_logits_to_the_bit() -> None:
    frames = features("en_1.flac")
    (once,) = ENGINE.logits([frames], ["en"], [True])
    (again,) = Engine.load(NANO, threads=1).logits([frames], ["en"], [True])
    assert once.tobytes() == again.tobytes()


def test_a_missing_network_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: no such file$"):
        Engine.load(tmp_path, threads=1)


def test_a_folder_in_the_place_of_the_network_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).mkdir()
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: no such file$"):
        Engine.load(tmp_path, threads=1)


@pytest.mark.parametrize("kept", [0, 1, 1000, 0.5, 0.99, -1])
def test_a_truncated_network_is_refused_by_name(kept: float, tmp_path: Path) -> None:
    whole = (NANO / MODEL_FILE).read_bytes()
    size = int(kept * len(whole)) if isinstance(kept, float) else kept
    (tmp_path / MODEL_FILE).write_bytes(whole[:size])
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: ") as caught:
        Engine.load(tmp_path, threads=1)
    assert "\n" not in caught.value.message


@settings(max_examples=25, deadline=None)
@given(noise=st.binary(max_size=300))
def test_bytes_that_are_no_network_are_refused_by_name(
    noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / MODEL_FILE).write_bytes(noise)
    with pytest.raises(ModelError, match=r"model_quant\.onnx: "):
        Engine.load(folder, threads=1)


def test_a_network_whose_weights_lie_in_a_file_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(NANO / MODEL_FILE)
    onnx.save(model, tmp_path / MODEL_FILE, save_as_external_data=True, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: ONNX Runtime cannot load it"):
        Engine.load(tmp_path, threads=1)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({**INPUTS, "prompt": (TensorProto.INT32, ["B"])}, OUTPUTS, "has the inputs .*prompt"),
        (
            {name: io for name, io in INPUTS.items() if name != "textnorm"},
            OUTPUTS,
            "has the inputs .*; SenseVoice's are .*textnorm",
        ),
        ({**INPUTS, "language": (TensorProto.INT64, ["B"])}, OUTPUTS, "has the inputs .*int64"),
        ({**INPUTS, "speech": (TensorProto.FLOAT, ["B", "T", "F"])}, OUTPUTS, "features of shape .*560"),
        ({**INPUTS, "speech": (TensorProto.FLOAT, None)}, OUTPUTS, "features of shape .*560"),
        (INPUTS, {"ctc_logits": OUTPUTS["ctc_logits"]}, "encoder_out_lens is missing"),
        (
            INPUTS,
            {"logits": (TensorProto.INT32, ["B"]), "encoder_out_lens": OUTPUTS["encoder_out_lens"]},
            "has the outputs .*logits.*; ctc_logits is missing",
        ),
        (INPUTS, {**OUTPUTS, "ctc_logits": (TensorProto.INT32, ["B", "L", 1307])}, "ctc_logits .*int32"),
    ],
    ids=[
        "one input more",
        "one input less",
        "input of another type",
        "features of any size",
        "features of any shape",
        "no lengths",
        "no logits",
        "logits that are integers",
    ],
)
def test_a_network_that_is_not_sensevoice_is_refused_by_name(
    inputs: Io, outputs: Io, message: str, tmp_path: Path
) -> None:
    write_network(tmp_path, inputs, outputs)
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: .*({message})"):
        Engine.load(tmp_path, threads=1)


@pytest.mark.parametrize("shape", [None, ["B", "L", "V"], ["B"]], ids=str)
def test_a_network_that_does_not_say_how_many_tokens_it_knows_is_refused_by_name(
    shape: list[str] | None, tmp_path: Path
) -> None:
    write_network(tmp_path, outputs={**OUTPUTS, "ctc_logits": (TensorProto.FLOAT, shape)}, reshape=True)
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model_quant\.onnx: gives ctc_logits of shape"):
        Engine.load(tmp_path, threads=1)


def test_features_of_80_values_are_refused_by_name(tmp_path: Path) -> None:
    def narrow(model: onnx.ModelProto) -> None:
        (speech,) = (value for value in model.graph.input if value.name == "speech")
        speech.type.tensor_type.shape.dim[2].dim_value = 80
        del model.graph.node[:]
        del model.graph.output[:]
        model.graph.output.append(model.graph.input[1])

    copy_of_nano(tmp_path)
    edit_network(tmp_path, narrow)
    with pytest.raises(ModelError, match=r"model_quant\.onnx: takes features of shape .*80\]; .*560"):
        Engine.load(tmp_path, threads=1)


def test_a_tiny_network_with_the_right_inputs_and_outputs_runs(tmp_path: Path) -> None:
    write_network(tmp_path)
    engine = Engine.load(tmp_path, threads=1)
    engine.warm_up()
    assert engine.vocabulary_size == 1307


@pytest.mark.parametrize(
    ("frames_more", "said_more"), [(4, 3), (4, 5), (0, 4), (3, 4), (0, 0)], ids="+{}".format
)
def test_other_frames_than_the_sound_asks_for_are_a_failure(
    frames_more: int, said_more: int, tmp_path: Path
) -> None:
    write_network(tmp_path, frames_more=frames_more, said_more=said_more)
    engine = Engine.load(tmp_path, threads=1)
    with pytest.raises(InferenceFailed, match="the engine answered"):
        engine.warm_up()


def test_another_vocabulary_than_declared_is_a_failure(tmp_path: Path) -> None:
    """ONNX Runtime itself only warns."""
    logits = (TensorProto.FLOAT, ["B", "L", 40])
    write_network(tmp_path, outputs={**OUTPUTS, "ctc_logits": logits}, reshape=True)
    engine = Engine.load(tmp_path, threads=1)
    lengths = [57, 1307, 69]  # 57 * 1307 * 69 = 3 * (1307 + 4) * 1307, so that the reshape runs
    batch = [np.zeros((length, FEATURE_SIZE), np.float32) for length in lengths]
    with pytest.raises(InferenceFailed, match=r"logits of shape .*; \(3, 1311, 40\) .* are right"):
        engine.run(batch, ["auto"] * 3, [True] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("weight", ["MatMul_1884_scale", "ctc.ctc_lo.bias"])
def test_a_network_that_gives_nan_or_infinity_fails_when_it_warms_up(
    weight: str, value: float, tmp_path: Path
) -> None:
    edit_network(copy_of_nano(tmp_path), set_weight(weight, value))
    engine = Engine.load(tmp_path, threads=1)
    with pytest.raises(InferenceFailed, match="not finite"):
        engine.warm_up()


def test_a_network_that_is_whole_warms_up() -> None:
    ENGINE.warm_up()


def test_what_onnx_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    write_network(tmp_path, reshape=True)
    engine = Engine.load(tmp_path, threads=1)
    with pytest.raises(InferenceFailed, match="^the engine failed: ") as caught:
        engine.warm_up()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_gpu_that_onnx_runtime_does_not_know_is_refused_with_what_to_install(device: str) -> None:
    with pytest.raises(
        ModelError, match=rf"^ASR_DEVICE={device} needs .*CUDAExecutionProvider.*install onnxruntime-gpu"
    ):
        Engine.load(NANO, threads=1, device=device)


def test_threads_may_run_the_engine_side_by_side() -> None:
    files = sorted(LANGUAGES)
    with ThreadPoolExecutor(4) as threads:
        promised = [
            threads.submit(ENGINE.run, [features(file)], ["auto"], [True]) for file in files for _ in range(3)
        ]
        ids = [token_ids(future.result(timeout=2 * PATIENCE)[0]) for future in promised]
    assert ids == [ids_alone((file, "auto", True)) for file in files for _ in range(3)]
