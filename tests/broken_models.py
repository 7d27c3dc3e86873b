"""Copies of the embedded model with one thing changed, and tiny networks made from nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asrsvc.speech.session import MODEL_FILE

NANO = Path(__file__).resolve().parents[1] / "asrsvc" / "models" / "sensevoice-nano"

Io = Mapping[str, tuple[int, Sequence[int | str] | None]]
"""name → element type and shape of inputs or outputs"""

INPUTS: Io = {
    "speech": (TensorProto.FLOAT, ["B", "T", 560]),
    "speech_lengths": (TensorProto.INT32, ["B"]),
    "language": (TensorProto.INT32, ["B"]),
    "textnorm": (TensorProto.INT32, ["B"]),
}
OUTPUTS: Io = {
    "ctc_logits": (TensorProto.FLOAT, ["B", "L", 1307]),
    "encoder_out_lens": (TensorProto.INT32, ["B"]),
}


def copy_of_nano(folder: Path) -> Path:
    """A copy of the embedded model's files that may be changed."""
    shutil.copytree(NANO, folder, dirs_exist_ok=True)
    return folder


def edit_network(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change the network of a folder in place."""
    model = onnx.load(folder / MODEL_FILE)
    change(model)
    onnx.save(model, folder / MODEL_FILE)


def set_weight(name_end: str, value: float) -> Callable[[onnx.ModelProto], None]:
    """A change: the first value of the only float weight whose name ends so."""

    def change(model: onnx.ModelProto) -> None:
        (weight,) = (w for w in model.graph.initializer if w.name.endswith(name_end))
        values = numpy_helper.to_array(weight).copy()
        values.flat[0] = value
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    return change


def write_network(
    folder: Path,
    inputs: Io = INPUTS,
    outputs: Io = OUTPUTS,
    *,
    frames_more: int = 4,
    said_more: int = 4,
    reshape: bool = False,
) -> None:
    """A network that gives zeros.

    Args:
        folder: where `model_quant.onnx` is written.
        inputs: what it declares; all must be there for it to run.
        outputs: what it declares.
        frames_more: frames of logits beyond the longest span.
        said_more: what it adds to the lengths to say how many frames there are.
        reshape: to the lengths, as if they were a shape: ONNX Runtime cannot infer what that gives.
    """
    constants = {
        "more": np.array([said_more], np.int32),
        "pad": np.array([0, 0, 0, 0, frames_more, 0], np.int64),
        "zeros": np.zeros((560, 1307), np.float32),
    }
    nodes = []
    if "ctc_logits" in outputs and "speech" in inputs:
        kind, _ = outputs["ctc_logits"]
        nodes += [
            helper.make_node("Pad", ["speech", "pad"], ["padded"]),
            helper.make_node("MatMul", ["padded", "zeros"], ["float_logits"]),
            helper.make_node("Cast", ["float_logits"], ["cast_logits"], to=kind),
            helper.make_node("Cast", ["speech_lengths"], ["shape"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["cast_logits", "shape"], ["ctc_logits"])
            if reshape
            else helper.make_node("Identity", ["cast_logits"], ["ctc_logits"]),
        ]
    if "encoder_out_lens" in outputs:
        nodes.append(helper.make_node("Add", ["speech_lengths", "more"], ["encoder_out_lens"]))
    for name in outputs:
        if name not in OUTPUTS:
            nodes.append(helper.make_node("Identity", ["speech_lengths"], [name]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *io) for name, io in inputs.items()],
        [helper.make_tensor_value_info(name, *io) for name, io in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, folder / MODEL_FILE)
