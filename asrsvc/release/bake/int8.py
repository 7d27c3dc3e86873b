"""Matrices of uint8 re-encoded as int8, which most processors multiply by much faster.

Weights and zero points are both less by 128, so every product `(x - z_x) * (w - z_w)` is what it was,
and sums of integers are the same in any order. The kernel must not saturate, though: without VNNI
it adds two products in 16 bits (vpmaddubsw), and 2 * 255 * 64 is the last sum that fits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

_SHIFT: Final = 128
_MOST_WITHOUT_VNNI: Final = 64
"""of a re-encoded weight's magnitude: 2 * 255 * 64 = 32,640, 2 * 255 * 65 = 33,150, int16 ends at 32,767"""


def to_int8(model: onnx.ModelProto, *, vnni: bool) -> tuple[int, int]:
    """Re-encode where that is exact, in place.

    Args:
        model: whose dynamically quantised matrix products have constant matrices of uint8.
        vnni: whether the processor adds four products in 32 bits.

    Returns:
        how many matrices were re-encoded, and of how many.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uint8_inputs = {node.output[0] for node in graph.node if node.op_type == "DynamicQuantizeLinear"}
    matrices = changed = 0
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        matrices += 1
        matrix = constants.get(node.input[1])
        zero = constants.get(node.input[3]) if len(node.input) > 3 else None
        if node.input[0] not in uint8_inputs or matrix is None or zero is None:
            continue
        if matrix.data_type != onnx.TensorProto.UINT8 or zero.data_type != onnx.TensorProto.UINT8:
            continue
        if not vnni and not _fits(numpy_helper.to_array(matrix)):
            continue
        for position, tensor in ((1, matrix), (3, zero)):
            if tensor.name not in renamed:
                renamed[tensor.name] = f"{tensor.name}_int8"
                graph.initializer.append(_shifted(tensor, renamed[tensor.name]))
            node.input[position] = renamed[tensor.name]
        changed += 1
    _drop_unused(graph, set(renamed))
    return changed, matrices


def _fits(weights: npt.NDArray[np.uint8]) -> bool:
    low, high = int(weights.min(initial=_SHIFT)), int(weights.max(initial=_SHIFT))
    return max(_SHIFT - low, high - _SHIFT) <= _MOST_WITHOUT_VNNI


def _shifted(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    # Less by 128 and seen as signed: the highest bit, turned over.
    values = (numpy_helper.to_array(tensor) ^ np.uint8(_SHIFT)).view(np.int8)
    return numpy_helper.from_array(np.asarray(values), name)


def _drop_unused(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove those of some constants that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):  # a list of the others would be copies of them
        name = graph.initializer[index].name
        if name in names and name not in used:
            del graph.initializer[index]
