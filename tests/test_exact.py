"""The rewritten graph: bit for bit the published one's numbers for any span, and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from broken_models import INPUTS, NANO, OUTPUTS, edit_network, write_network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from asrsvc.release.exact import transform
from asrsvc.release.graph import Graph, attribute, node
from asrsvc.speech.engine import Engine
from asrsvc.speech.features import FEATURE_SIZE, FbankExtractor
from asrsvc.speech.frames import Frames
from asrsvc.speech.session import MODEL_FILE
from asrsvc.speech.text import Vocabulary, read
from asrsvc.speech.types import LANGUAGES, FloatArray

CLIPS = sorted((Path(__file__).resolve().parent / "data" / "clips").glob("*.flac"))
PUBLISHED = Engine.load(NANO, threads=1)
VOCABULARY = Vocabulary(next(NANO.glob("*.bpe.model")))


@pytest.fixture(scope="module")
def rewritten() -> onnx.ModelProto:
    return transform(onnx.load(NANO / MODEL_FILE))


@pytest.fixture(scope="module")
def engine(rewritten: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("rewritten")
    onnx.save(rewritten, folder / MODEL_FILE)
    return Engine.load(folder, threads=1)


def same_words(frames: Frames, published: Frames) -> None:
    np.testing.assert_array_equal(frames.ids, published.ids)
    assert frames.best.tobytes() == published.best.tobytes()
    np.testing.assert_allclose(frames.probabilities, published.probabilities, rtol=1e-5, atol=0)
    assert frames.first.tobytes() == published.first.tobytes()
    arrays = [(one.ids, one.best, one.probabilities, one.first) for one in (frames, published)]
    assert [array.dtype for array in arrays[0]] == [array.dtype for array in arrays[1]]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    st.tuples(st.sampled_from(LANGUAGES), st.booleans()),
)
def test_noise_of_any_length_gives_the_same_logits_to_the_bit(
    engine: Engine, length: int, seed: int, loudness: float, said: tuple[str, bool]
) -> None:
    noise = np.random.default_rng(seed).standard_normal((length, FEATURE_SIZE), dtype=np.float32)
    language, use_itn = said
    ask = ([noise * np.float32(loudness)], [language], [use_itn])
    (wanted,) = PUBLISHED.logits(*ask)
    (logits,) = engine.logits(*ask)
    assert logits.shape == wanted.shape
    assert logits.tobytes() == wanted.tobytes()
    same_words(engine.run(*ask)[0], Frames.of_logits(wanted))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.stem)
def test_speech_gives_the_same_logits_to_the_bit_and_the_same_words(engine: Engine, clip: Path) -> None:
    samples: FloatArray = soundfile.read(clip, dtype="float32")[0]
    ask = ([FbankExtractor(NANO / "am.mvn").features(samples)], ["auto"], [True])
    (wanted,) = PUBLISHED.logits(*ask)
    assert engine.logits(*ask)[0].tobytes() == wanted.tobytes()
    (frames,) = engine.run(*ask)
    same_words(frames, Frames.of_logits(wanted))
    ours, theirs = (read(heard, VOCABULARY) for heard in (frames, PUBLISHED.run(*ask)[0]))
    assert (ours.text, ours.language, ours.emotion, ours.events) == (
        theirs.text,
        theirs.language,
        theirs.emotion,
        theirs.events,
    )
    assert ours.confidence == pytest.approx(theirs.confidence, rel=1e-5)


def test_several_spans_give_what_each_gives_alone(engine: Engine) -> None:
    random = np.random.default_rng(1)
    batch = [random.standard_normal((length, FEATURE_SIZE), dtype=np.float32) for length in (30, 1, 90)]
    asks = [("zh", True), ("auto", False), ("ko", True)]
    together = engine.run(batch, *zip(*asks, strict=True))
    logits = engine.logits(batch, *zip(*asks, strict=True))
    for features, (language, use_itn), frames, rows in zip(batch, asks, together, logits, strict=True):
        (alone,) = PUBLISHED.logits([features], [language], [use_itn])
        assert rows.tobytes() == alone.tobytes()
        same_words(frames, Frames.of_logits(alone))


def test_the_rewritten_engine_warms_up(engine: Engine) -> None:
    engine.warm_up()
    assert engine.vocabulary_size == PUBLISHED.vocabulary_size


def test_nothing_is_left_of_masks_shape_arithmetic_and_copies(rewritten: onnx.ModelProto) -> None:
    """So that a new ONNX Runtime that fuses otherwise is noticed: then nothing is wrong, only slower."""
    kinds = Counter(entry.op_type for entry in rewritten.graph.node)
    blocks = kinds["Conv"]
    assert blocks == 9
    assert kinds["FusedMatMul"] == 2 * blocks
    assert kinds["Transpose"] == 3 * blocks
    assert kinds["MatMulIntegerToFloat"] == blocks
    assert kinds["Less"] == 0
    assert kinds["Where"] == blocks  # of the scale without ReLU
    assert len(rewritten.graph.node) < 350


def test_the_given_model_is_not_changed() -> None:
    model = onnx.load(NANO / MODEL_FILE)
    before = model.SerializeToString(deterministic=True)
    assert transform(model) is not model
    assert model.SerializeToString(deterministic=True) == before


def test_a_network_that_is_built_otherwise_is_left_alone(tmp_path: Path) -> None:
    write_network(tmp_path, INPUTS, OUTPUTS)
    model = onnx.load(tmp_path / MODEL_FILE)
    assert transform(model) is model


def test_attention_of_another_kind_is_left_alone_and_stays_exact(tmp_path: Path) -> None:
    """Another order of dimensions behind the heads: the strided product would be wrong."""

    def turn(model: onnx.ModelProto) -> None:
        for entry in model.graph.node:
            if entry.op_type == "Softmax":
                entry.attribute[0].i = 2
                break

    edit_network(copy_network(tmp_path), turn)
    other = tmp_path / "other"
    other.mkdir()
    onnx.save(transform(onnx.load(tmp_path / MODEL_FILE)), other / MODEL_FILE)
    ask = ([np.ones((20, FEATURE_SIZE), np.float32)], ["auto"], [True])
    (wanted,), (logits,) = (Engine.load(folder, threads=1).logits(*ask) for folder in (tmp_path, other))
    assert logits.tobytes() == wanted.tobytes()


def copy_network(folder: Path) -> Path:
    (folder / MODEL_FILE).write_bytes((NANO / MODEL_FILE).read_bytes())
    return folder


def small_graph() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Add", ["b", "one"], ["y"]),
        node("Neg", ["x"], ["unread"]),
    ]
    one = numpy_helper.from_array(np.array([1.0], np.float32), "one")
    return helper.make_model(helper.make_graph(nodes, "small", values[:1], values[1:], [one]))


def test_a_bypassed_value_is_read_from_its_source_and_what_nobody_reads_goes() -> None:
    model = small_graph()
    graph = Graph(model)
    graph.bypass({"b": "a"})
    graph.finish()
    assert [(entry.op_type, list(entry.input)) for entry in model.graph.node] == [
        ("Relu", ["x"]),
        ("Add", ["a", "one"]),
    ]


def test_nodes_put_in_stand_behind_what_they_read() -> None:
    model = small_graph()
    graph = Graph(model)
    old = [entry for entry in graph.nodes if entry.op_type == "Relu"]
    new = [node("Abs", ["c"], ["a"]), node("Exp", ["x"], ["c"])]
    graph.replace([(old, new)])
    graph.finish()
    assert [entry.op_type for entry in model.graph.node] == ["Exp", "Abs", "Identity", "Add"]
    onnx.checker.check_model(model)


def test_nodes_that_wait_for_one_another_are_refused() -> None:
    model = small_graph()
    graph = Graph(model)
    graph.replace([([graph.nodes[0]], [node("Abs", ["b"], ["a"])])])
    with pytest.raises(ValueError, match="cannot run: nobody gives [ab] before"):
        graph.finish()


def test_an_attribute_that_is_not_there_has_its_default() -> None:
    assert attribute(node("Transpose", ["x"], ["y"], perm=[1, 0]), "perm", []) == [1, 0]
    assert attribute(node("Transpose", ["x"], ["y"]), "perm", []) == []
