"""Rewrites SenseVoice's graph for one span at a time, so that it gives the same numbers sooner.

Each step drops work whose result is known beforehand, or moves data less; none changes a rounding. What
was tried, what it brought, and what was left out because it is not exact: docs/performance-notes.md.

The token ids are those of the published file. Its confidences are computed here with ONNX Runtime's exp
and sum instead of NumPy's: they agree to float rounding (`PROBABILITY_TOLERANCE`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from asrsvc.release.graph import Graph, attribute, contrib, node
from asrsvc.speech.engine import FRAME_OUTPUTS, LOGITS
from asrsvc.speech.runtime import onnxruntime

_INPUTS: Final = {"speech", "language", "textnorm"}
_LENGTHS: Final = "speech_lengths"
PROBABILITY_TOLERANCE: Final = 1e-5
"""by how much, of its value, a posterior probability may differ from that of the published file"""

_QUANTISED: Final = "DynamicQuantizeMatMul"


def transform(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a published graph, with uint8 or int8 weights.

    The result takes one span: `speech` of shape (1, T, 560), without `speech_lengths`, for there is no
    padding. It gives `ctc_logits`, bit for bit the published file's, and beside them
    `asrsvc.speech.engine.FRAME_OUTPUTS`: who asks for those alone never sees the logits (17 MB for 10 s
    of sound). A block that is built otherwise than SenseVoice's is left as it is.

    Args:
        model: as published, or with its matrices re-encoded; it is not changed.

    Returns:
        another model, fused as ONNX Runtime runs it, so with operators of its own; or `model` itself if
        it still asks for lengths after all that, and so is no SenseVoice that is known here.
    """
    fused = _fused(model)
    graph = Graph(fused)
    _drop_masks(graph)
    _drop_shape_arithmetic(graph)
    _read_heads_in_place(graph)
    _quantise_without_relu(graph)
    _add_frames(fused, graph)
    graph.finish()
    if {value.name for value in fused.graph.input} != _INPUTS:
        return model
    for value in fused.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return fused


def _fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """As ONNX Runtime runs it: so the steps see few forms of it, and what it would do is done."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory(prefix="asrsvc-") as folder:
        path = Path(folder) / "fused.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _drop_masks(graph: Graph) -> None:
    """One span has no padding: its mask is all ones, and what a mask does then is nothing."""
    ones: set[str] = set()
    never: set[str] = set()
    same: dict[str, str] = {}
    for entry in graph.nodes:
        first = entry.input[0] if entry.input else ""
        result = entry.output[0]
        if (entry.op_type == "Less" and _comes_from(graph, entry.input[1], _LENGTHS)) or (
            entry.op_type in ("Cast", "Unsqueeze", "Reshape") and first in ones
        ):
            ones.add(result)
        elif entry.op_type == "Equal" and first in ones and _is_zero(graph, entry.input[1]):
            never.add(result)
        elif entry.op_type == "Where" and first in never:
            same[result] = entry.input[2]
        elif entry.op_type == "Mul" and entry.input[1] in ones:
            same[result] = first
    graph.bypass(same)


def _comes_from(graph: Graph, value: str, source: str) -> bool:
    maker = graph.maker(value)
    while maker is not None and maker.op_type in ("Add", "Cast", "Unsqueeze"):
        value = maker.input[0]
        maker = graph.maker(value)
    return value == source


def _is_zero(graph: Graph, name: str) -> bool:
    value = graph.constant(name)
    return value is not None and not value.any()


def _drop_shape_arithmetic(graph: Graph) -> None:
    """With a batch of one, only the number of frames is open: one -1 says it."""
    for entry in graph.nodes:
        if entry.op_type != "Reshape":
            continue
        maker = graph.maker(entry.input[1])
        if maker is None or maker.op_type != "Concat":
            continue
        dimensions = [_dimension(graph, value) for value in maker.input]
        if dimensions.count(-1) <= 1:
            entry.input[1] = graph.add_shape(*dimensions)
    graph.drop_unread()


def _dimension(graph: Graph, value: str) -> int:
    """A constant, 1 for what is read as the first dimension of a shape, -1 for what is read elsewhere."""
    known = graph.constant(value)
    if known is not None:
        return int(known.reshape(-1)[0])
    maker = graph.maker(value)
    while maker is not None and maker.op_type == "Unsqueeze":
        maker = graph.maker(maker.input[0])
    if maker is None or maker.op_type != "Gather":
        return -1
    axis = graph.constant(maker.input[1])
    return 1 if axis is not None and not axis.any() else -1


def _read_heads_in_place(graph: Graph) -> None:
    """Queries, keys and values are read where they lie, (T, heads, size), by a strided matrix product.

    Instead of three transposed copies per block.
    """
    changes = []
    for split in graph.nodes:
        if split.op_type != "Split" or len(split.output) != 3:
            continue
        change = _attention(graph, split)
        if change is not None:
            changes.append(change)
    graph.replace(changes)


def _attention(
    graph: Graph, split: onnx.NodeProto
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]] | None:
    queries, keys, values = split.output
    first = _follow(graph, queries, ("Reshape", "Transpose", "FusedMatMul"))
    second = _follow(graph, keys, ("Reshape", "Transpose"))
    third = _follow(graph, values, ("Reshape", "Transpose"))
    if not (first and second and third):
        return None
    product = first[2]
    last = _follow(graph, product.output[0], ("Softmax", "MatMul", "Transpose", "Reshape"))
    if not last:
        return None
    softmax, mixture, turned, joined = last
    old = [*first, *second, *third, *last]
    shapes = {head[0].input[1] for head in (first, second, third)}
    shape = graph.constant(first[0].input[1])
    orders = [attribute(entry, "perm", []) for entry in (first[1], second[1], third[1], turned)]
    if (
        len(shapes) != 1
        or shape is None
        or len(shape) != 4
        or orders != [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3], [0, 2, 1, 3]]
        or list(product.input) != [first[1].output[0], second[1].output[0]]
        or list(mixture.input) != [softmax.output[0], third[1].output[0]]
        or any(graph.readers(entry.output[0]) != 1 for entry in old[:-1])
        or any(attribute(product, name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB"))
        or attribute(softmax, "axis", -1) != -1
    ):
        return None
    heads = graph.add_shape(-1, int(shape[2]), int(shape[3]))
    stem = joined.output[0]
    new = [node("Reshape", [value, heads], [f"{value}/heads"]) for value in (queries, keys, values)]
    new += [
        contrib(
            "FusedMatMul",
            [f"{queries}/heads", f"{keys}/heads"],
            [f"{stem}/scores"],
            alpha=attribute(product, "alpha", 1.0),
            transB=1,
            transBatchA=1,
            transBatchB=1,
        ),
        node("Softmax", [f"{stem}/scores"], [f"{stem}/weights"], axis=-1),
        contrib("FusedMatMul", [f"{stem}/weights", f"{values}/heads"], [f"{stem}/context"], transBatchB=1),
        node("Transpose", [f"{stem}/context"], [f"{stem}/turned"], perm=[1, 0, 2]),
        node("Reshape", [f"{stem}/turned", joined.input[1]], [stem]),
    ]
    return old, new


def _follow(graph: Graph, value: str, kinds: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes of these kinds, each reading what the one before gives; empty if they are not there."""
    found = []
    for kind in kinds:
        reader = graph.reader(value, kind)
        if reader is None:
            return []
        found.append(reader)
        value = reader.output[0]
    return found


def _quantise_without_relu(graph: Graph) -> None:
    """Quantised from 0 up, what is below 0 becomes 0 anyway: the ReLU before it is not needed.

    Its result lies between 0 and m = max(x, 0), so DynamicQuantizeLinear takes the zero point 0 and the
    scale m / 255, or 1 if m is 0.
    """
    changes = []
    for relu in graph.nodes:
        if relu.op_type != "Relu" or graph.readers(relu.output[0]) != 1:
            continue
        product = graph.reader(relu.output[0], _QUANTISED)
        if product is None or len(product.input) < 4 or product.input[0] != relu.output[0]:
            continue
        (value,) = relu.input
        weight, weight_scale, weight_zero, *bias = product.input[1:]
        zero = graph.add_constant("zero", np.array(0.0, dtype=np.float32))
        one = graph.add_constant("one", np.array(1.0, dtype=np.float32))
        levels = graph.add_constant("levels", np.array(255.0, dtype=np.float32))
        zero_point = graph.add_constant("zero_point", np.array(0, dtype=np.uint8))
        stem = relu.output[0]
        new = [
            node("ReduceMax", [value], [f"{stem}/max"], keepdims=0),
            node("Relu", [f"{stem}/max"], [f"{stem}/top"]),
            node("Div", [f"{stem}/top", levels], [f"{stem}/step"]),
            node("Equal", [f"{stem}/top", zero], [f"{stem}/empty"]),
            node("Where", [f"{stem}/empty", one, f"{stem}/step"], [f"{stem}/scale"]),
            node("QuantizeLinear", [value, f"{stem}/scale", zero_point], [f"{stem}/quantised"]),
            contrib(
                "MatMulIntegerToFloat",
                [
                    f"{stem}/quantised",
                    weight,
                    f"{stem}/scale",
                    weight_scale,
                    zero_point,
                    weight_zero,
                    *bias,
                ],
                list(product.output),
            ),
        ]
        changes.append(([relu, product], new))
    graph.replace(changes)


def _add_frames(model: onnx.ModelProto, graph: Graph) -> None:
    """Best token, its logit, the sum for its posterior probability, and the first frame, beside the logits.

    The sum of exp(logit - best logit) is made for frames alone whose best token is not the blank: the
    others need no confidence, and they are most.
    """
    ids, best, frames, sums, first = FRAME_OUTPUTS
    (logits,) = (value for value in model.graph.output if value.name == LOGITS)
    size = logits.type.tensor_type.shape.dim[2].dim_value
    ones = graph.add_constant("last_axis", np.array([1], dtype=np.int64))
    top = graph.add_constant("first_frame", np.array(0, dtype=np.int64))
    new = [
        node("Reshape", [LOGITS, graph.add_shape(-1, size)], ["logits/rows"]),
        node("ArgMax", ["logits/rows"], ["logits/ids"], axis=1, keepdims=0),
        node("Cast", ["logits/ids"], [ids], to=TensorProto.INT32),
        node("Unsqueeze", ["logits/ids", ones], ["logits/column"]),
        node("GatherElements", ["logits/rows", "logits/column"], ["logits/best"], axis=1),
        node("Reshape", ["logits/best", graph.add_shape(-1)], [best]),
        node("NonZero", ["logits/ids"], ["logits/places"]),
        node("Reshape", ["logits/places", graph.add_shape(-1)], [frames]),
        node("Gather", ["logits/rows", frames], ["logits/spoken"], axis=0),
        node("Gather", ["logits/best", frames], ["logits/top"], axis=0),
        node("Sub", ["logits/spoken", "logits/top"], ["logits/below"]),
        node("Exp", ["logits/below"], ["logits/odds"]),
        node("ReduceSum", ["logits/odds", ones], [sums], keepdims=0),
        node("Gather", ["logits/rows", top], [first], axis=0),
    ]
    graph.replace([((), new)])
    del model.graph.output[:]
    model.graph.output.append(logits)
    shapes = {
        ids: (TensorProto.INT32, "T"),
        best: (TensorProto.FLOAT, "T"),
        frames: (TensorProto.INT64, "N"),
        sums: (TensorProto.FLOAT, "N"),
        first: (TensorProto.FLOAT, size),
    }
    for name, (kind, length) in shapes.items():
        model.graph.output.append(helper.make_tensor_value_info(name, kind, [length]))
