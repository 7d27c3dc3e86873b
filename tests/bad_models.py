"""Makers of bad models: copies of the embedded one that do what no model should."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from broken_models import edit_network
from onnx import TensorProto, helper, numpy_helper

from asrsvc.speech.session import MODEL_FILE

FOREVER = 2**62
TOO_MUCH = 2**43  # floats; no address space holds them


def change_logits(change: Callable[[onnx.GraphProto, str], None]) -> Callable[[Path], None]:
    """A model like the embedded one, with nodes between its logits and its output."""

    def edit(model: onnx.ModelProto) -> None:
        last = next(node for node in model.graph.node if "ctc_logits" in node.output)
        last.output[list(last.output).index("ctc_logits")] = "good_logits"
        change(model.graph, "good_logits")

    return lambda folder: edit_network(folder, edit)


def constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def add_nodes(graph: onnx.GraphProto, *nodes: tuple[str, list[str], str]) -> None:
    for kind, inputs, output in nodes:
        graph.node.append(helper.make_node(kind, inputs, [output]))


def add_nothing_of(graph: onnx.GraphProto, logits: str, value: str) -> None:
    """The logits as they were, once a value (of any shape) has been computed."""
    add_nodes(
        graph,
        ("ReduceMax", [value], "one_value"),
        ("Mul", ["one_value", constant(graph, "nothing", np.zeros((1, 1, 1), np.float32))], "no_value"),
        ("Add", [logits, "no_value"], "ctc_logits"),
    )
    next(n for n in graph.node if n.op_type == "ReduceMax" and n.output[0] == "one_value").attribute.append(
        helper.make_attribute("keepdims", 0)
    )


def say_wrong_things(graph: onnx.GraphProto, logits: str) -> None:
    """Every token becomes another one; the blank stays."""
    order = np.arange(1307)
    order[1:] = np.roll(order[1:], 400)
    gather = helper.make_node(
        "Gather", [logits, constant(graph, "other_tokens", order)], ["ctc_logits"], axis=2
    )
    graph.node.append(gather)


def say_nothing(graph: onnx.GraphProto, logits: str) -> None:
    blank = np.zeros(1307, np.float32)
    blank[0] = 1000
    add_nodes(graph, ("Add", [logits, constant(graph, "blank", blank)], "ctc_logits"))


def say_no_numbers(graph: onnx.GraphProto, logits: str) -> None:
    add_nodes(graph, ("Mul", [logits, constant(graph, "nan", np.array(np.nan, np.float32))], "ctc_logits"))


def say_no_numbers_of_sound(graph: onnx.GraphProto, logits: str) -> None:
    """Not finite where there is sound: longer than the second of zeros that a load tries first."""
    add_nodes(
        graph,
        ("Shape", [logits], "logits_shape"),
        ("Gather", ["logits_shape", constant(graph, "one", np.array(1, np.int64))], "frames"),
        ("Greater", ["frames", constant(graph, "many", np.array(30, np.int64))], "is_long"),
        (
            "Where",
            [
                "is_long",
                constant(graph, "nan", np.array(np.nan, np.float32)),
                constant(graph, "plain", np.array(0, np.float32)),
            ],
            "no_number",
        ),
        ("Add", [logits, "no_number"], "ctc_logits"),
    )


def be_slow(graph: onnx.GraphProto, logits: str) -> None:
    """Many times the work of the embedded model, for nothing."""
    constant(graph, "work", np.full((1307, 1307), 1e-4, np.float32))
    name = logits
    for step in range(60):
        add_nodes(graph, ("MatMul", [name, "work"], f"work_{step}"))
        name = f"work_{step}"
    add_nothing_of(graph, logits, name)


def take_ten_times_as_long(folder: Path) -> None:
    """The same network ten times, of which nine answers are thrown away: ten times the work anywhere."""

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        nodes = list(graph.node)
        made = {name for node in nodes for name in node.output if name}
        last = next(node for node in nodes if "ctc_logits" in node.output)
        wasted = []
        for turn in range(9):
            # Of other sound, or ONNX Runtime would see that it is the same work, and do it once.
            sound = f"sound_{turn}"
            louder = constant(graph, f"louder_{turn}", np.array(1 + (turn + 1) / 1000, np.float32))
            add_nodes(graph, ("Mul", ["speech", louder], sound))
            names = {name: f"again_{turn}/{name}" for name in made} | {"speech": sound}
            for node in nodes:
                again = onnx.NodeProto()
                again.CopyFrom(node)
                again.name = f"again_{turn}/{node.name}"
                again.input[:] = [names.get(name, name) for name in node.input]
                again.output[:] = [names.get(name, name) for name in node.output]
                graph.node.append(again)
            add_nodes(graph, ("ReduceMax", [names["ctc_logits"]], f"wasted_{turn}"))
            graph.node[-1].attribute.append(helper.make_attribute("keepdims", 0))
            wasted.append(f"wasted_{turn}")
        last.output[list(last.output).index("ctc_logits")] = "good_logits"
        for node in nodes:
            node.input[:] = ["good_logits" if name == "ctc_logits" else name for name in node.input]
        add_nodes(graph, ("Sum", wasted, "all_wasted"))
        add_nothing_of(graph, "good_logits", "all_wasted")

    edit_network(folder, edit)


def never_end(graph: onnx.GraphProto, logits: str) -> None:
    """The first run, still before the worker is ready, goes on for ever."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_still"]),
            helper.make_node("Sin", ["before"], ["after"]),
        ],
        "body",
        [
            scalar("turn", TensorProto.INT64, []),
            scalar("go_on", TensorProto.BOOL, []),
            scalar("before", TensorProto.FLOAT, []),
        ],
        [scalar("go_on_still", TensorProto.BOOL, []), scalar("after", TensorProto.FLOAT, [])],
    )
    graph.node.append(helper.make_node("ReduceMax", [logits], ["start"], keepdims=0))
    turns = constant(graph, "turns", np.array(FOREVER, np.int64))
    graph.node.append(helper.make_node("Loop", [turns, "", "start"], ["end"], body=body))
    add_nothing_of(graph, logits, "end")


def want_all_memory(graph: onnx.GraphProto, logits: str) -> None:
    """More memory than any machine has, in the first run."""
    add_nodes(
        graph,
        ("Shape", [logits], "logits_shape"),
        ("ReduceProd", ["logits_shape"], "logits_size"),
        ("Mul", ["logits_size", constant(graph, "much", np.array([TOO_MUCH], np.int64))], "much_size"),
        ("Min", ["much_size", constant(graph, "size", np.array([TOO_MUCH], np.int64))], "size_used"),
    )
    graph.node.append(helper.make_node("ConstantOfShape", ["size_used"], ["memory"]))
    next(n for n in graph.node if "logits_size" in n.output).attribute.append(
        helper.make_attribute("keepdims", 0)
    )
    add_nothing_of(graph, logits, "memory")


def truncate(folder: Path) -> None:
    path = folder / MODEL_FILE
    os.truncate(path, path.stat().st_size // 2)


def hold_much_memory(graph: onnx.GraphProto, logits: str) -> None:
    """A gibibyte that is really written to, in every run: there may be so much, and it is too much."""
    size = constant(graph, "size", np.array([2**28], np.int64))
    value = numpy_helper.from_array(np.array([1.5], np.float32))
    graph.node.append(helper.make_node("ConstantOfShape", [size], ["memory"], value=value))
    # It depends on the input, so that it is not computed once and for all while the graph is read.
    add_nodes(
        graph,
        ("ReduceMax", [logits], "some_logit"),
        ("Sub", ["memory", "some_logit_flat"], "much"),
    )
    graph.node.insert(
        len(graph.node) - 1,
        helper.make_node(
            "Reshape", ["some_logit", constant(graph, "flat", np.array([1], np.int64))], ["some_logit_flat"]
        ),
    )
    add_nothing_of(graph, logits, "much")


MAKERS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "wrong": change_logits(say_wrong_things),
    "empty": change_logits(say_nothing),
    "nan": change_logits(say_no_numbers),
    "nan-of-sound": change_logits(say_no_numbers_of_sound),
    "slow": change_logits(be_slow),
    "tenfold": take_ten_times_as_long,
    "endless": change_logits(never_end),
    "hungry": change_logits(want_all_memory),
    "glutton": change_logits(hold_much_memory),
}
"""what makes a bad model of a copy of the embedded one"""
