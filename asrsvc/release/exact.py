"""Transformations of the graph that change no bit of what it gives."""

from __future__ import annotations

import onnx


def transform(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, made faster; what it gives is compared bit for bit by who calls this.

    Args:
        model: as published, perhaps with its matrices re-encoded; it may be changed in place.
    """
    return model
