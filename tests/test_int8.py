"""Matrices of uint8 as int8: the same products, and only where the kernel cannot saturate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from asrsvc.release.bake.int8 import to_int8
from asrsvc.speech.runtime import onnxruntime


def network(weights: npt.NDArray[np.uint8], zeros: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """float32 (T, K) → products of integers, int32 (T, N), as the published file has them."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero", "wz"], ["y"]),
    ]
    size, width = weights.shape
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", size])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["T", width])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(zeros, "wz")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def products(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.int32] = session.run(None, {"x": x})[0]
    return found


# The greatest activations against weights of one sign: where 16 bits are too few, this is where it shows.
STEEP = np.concatenate([np.full((3, 64), 255.0), np.zeros((1, 64))]).astype(np.float32)


@pytest.mark.parametrize("weight", [64, 128, 192])
def test_weights_of_seven_bits_give_the_same_products_on_any_processor(weight: int) -> None:
    weights = np.full((64, 32), weight, np.uint8)
    model = network(weights, np.arange(100, 132, dtype=np.uint8))
    before = products(model, STEEP)
    assert to_int8(model, vnni=False) == (1, 1)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"w_int8": TensorProto.INT8, "wz_int8": TensorProto.INT8}
    assert np.array_equal(products(model, STEEP), before)


@pytest.mark.parametrize("weight", [63, 193])
def test_without_vnni_greater_weights_stay_as_they_are(weight: int) -> None:
    weights = np.full((64, 32), 128, np.uint8)
    weights[5, 7] = weight
    model = network(weights, np.full(32, 128, np.uint8))
    before = model.SerializeToString(deterministic=True)
    assert to_int8(model, vnni=False) == (0, 1)
    assert model.SerializeToString(deterministic=True) == before


def test_with_vnni_every_matrix_is_re_encoded() -> None:
    weights = np.arange(64 * 32, dtype=np.uint32).astype(np.uint8).reshape(64, 32)
    zeros = np.arange(32, dtype=np.uint8)
    model = network(weights, zeros)
    assert to_int8(model, vnni=True) == (1, 1)
    found = {tensor.name: numpy_helper.to_array(tensor).astype(int) for tensor in model.graph.initializer}
    assert np.array_equal(found["w_int8"] - found["wz_int8"], weights.astype(int) - zeros.astype(int))


def test_constants_that_others_read_too_stay_beside_the_new_ones() -> None:
    model = network(np.full((64, 32), 130, np.uint8), np.full(32, 128, np.uint8))
    model.graph.node.append(helper.make_node("Identity", ["wz"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.UINT8, [32]))
    assert to_int8(model, vnni=False) == (1, 1)
    assert {tensor.name for tensor in model.graph.initializer} == {"wz", "w_int8", "wz_int8"}


def test_matrices_that_are_no_constants_are_left_alone() -> None:
    model = network(np.full((64, 32), 130, np.uint8), np.full(32, 128, np.uint8))
    del model.graph.node[1].input[3]
    assert to_int8(model, vnni=True) == (0, 1)
