"""Edits ONNX graphs: who makes a value, who reads it, nodes in another's place, nothing unread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_CONTRIB: Final = "com.microsoft"
"""domain of ONNX Runtime's own operators"""


class Graph:
    """The nodes and constants of one model; `finish` writes them back into it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self._index()

    def maker(self, value: str) -> onnx.NodeProto | None:
        """The node that gives a value; None for inputs and constants."""
        return self._makers.get(value)

    def reader(self, value: str, kind: str) -> onnx.NodeProto | None:
        """The one node of a kind that reads a value; None if there is no such node, or several."""
        found = [node for node in self._readers.get(value, ()) if node.op_type == kind]
        return found[0] if len(found) == 1 else None

    def readers(self, value: str) -> int:
        """How many nodes read a value."""
        return len(self._readers.get(value, ()))

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant's value; None if the name is none."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Name a constant, once; its name."""
        self._constants.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def add_shape(self, *dimensions: int) -> str:
        """A shape for Reshape; its name."""
        name = "shape_" + "_".join(str(d) for d in dimensions)
        return self.add_constant(name, np.array(dimensions, dtype=np.int64))

    def replace(self, changes: Sequence[tuple[Iterable[onnx.NodeProto], Sequence[onnx.NodeProto]]]) -> None:
        """Take some nodes out and put others in, for each change; order is `finish`'s work."""
        gone = {id(node) for old, _ in changes for node in old}
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.nodes += [node for _, new in changes for node in new]
        self._index()

    def bypass(self, values: dict[str, str]) -> None:
        """Whoever reads a key of `values` reads its value from now on; whoever made the key goes."""

        def real(name: str) -> str:
            while name in values:
                name = values[name]
            return name

        for node in self.nodes:
            for index, name in enumerate(node.input):
                node.input[index] = real(name)
        self.nodes = [node for node in self.nodes if not any(name in values for name in node.output)]
        self._index()

    def drop_unread(self) -> None:
        """Take out what no output of the graph needs."""
        self.nodes = self._needed([output.name for output in self._model.graph.output])
        self._index()

    def finish(self) -> None:
        """Write back what the outputs need, each node behind those that it reads.

        Raises:
            ValueError: a value is read that nobody gives, or nodes wait for one another.
        """
        graph = self._model.graph
        wanted = self._needed([output.name for output in graph.output])
        read = {name for node in wanted for name in node.input}
        inputs = [value for value in graph.input if value.name in read]
        constants = [tensor for name, tensor in self._constants.items() if name in read]
        ordered = _ordered(wanted, {value.name for value in inputs} | {t.name for t in constants} | {""})
        del graph.node[:], graph.initializer[:], graph.input[:], graph.value_info[:]
        graph.node.extend(ordered)
        graph.initializer.extend(constants)
        graph.input.extend(inputs)
        if any(node.domain == _CONTRIB for node in ordered) and all(
            entry.domain != _CONTRIB for entry in self._model.opset_import
        ):
            self._model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))

    def _needed(self, outputs: Iterable[str]) -> list[onnx.NodeProto]:
        wanted: dict[int, onnx.NodeProto] = {}
        names = list(outputs)
        while names:
            node = self._makers.get(names.pop())
            if node is not None and id(node) not in wanted:
                wanted[id(node)] = node
                names += node.input
        return [node for node in self.nodes if id(node) in wanted]

    def _index(self) -> None:
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)


def _ordered(nodes: Sequence[onnx.NodeProto], there: set[str]) -> list[onnx.NodeProto]:
    """Each node behind those that it reads, else in the order given (Kahn, 1962)."""
    missing = [{name for name in node.input if name not in there} for node in nodes]
    waiting: dict[str, list[int]] = {}
    for index, names in enumerate(missing):
        for name in names:
            waiting.setdefault(name, []).append(index)
    ready = [index for index, names in enumerate(missing) if not names][::-1]
    ordered = []
    while ready:
        node = nodes[ready.pop()]
        ordered.append(node)
        for name in node.output:
            for index in reversed(waiting.get(name, ())):
                missing[index].discard(name)
                if not missing[index]:
                    ready.append(index)
    if len(ordered) != len(nodes):
        name = min(set().union(*missing))
        raise ValueError(f"the graph has nodes that cannot run: nobody gives {name} before it is read")
    return ordered


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """A node of ONNX's own, named after its first output."""
    return helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes)


def contrib(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """A node of ONNX Runtime's own, named after its first output."""
    return helper.make_node(kind, inputs, outputs, name=outputs[0], domain=_CONTRIB, **attributes)


def attribute(of: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    for entry in of.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default
