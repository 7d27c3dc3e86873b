"""How an ONNX session is opened: over the published file, or over its faster twin on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from asrsvc.errors import ModelError
from asrsvc.speech.runtime import onnxruntime

MODEL_FILE: Final = "model_quant.onnx"
BAKED_MODEL_FILE: Final = "model.onnx"
"""of a faster twin: the optimised graph, without weights"""
BAKED_WEIGHTS_FILE: Final = "weights.bin"
"""of a faster twin: weights, and the same packed as this processor's kernels read them"""

_SMALLEST_EXTERNAL_BYTES: Final = "1024"


def open_session(
    folder: Path, *, threads: int, device: str, baked: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a version's network.

    A twin is opened as it is: it was optimised when it was made, and planning the reuse of memory takes
    a time that grows with the square of the nodes. All workers map its weights, packed once for all.

    Args:
        folder: of the version, with `model_quant.onnx`.
        threads: intra-op threads of the session.
        device: `cpu`, `cuda` or `cuda:N`.
        baked: folder of its twin, whose digests have been compared; None: the published file.

    Raises:
        ModelError: the file is missing or damaged, or the device is not to be had; the message
            names the file.
    """
    path = folder / MODEL_FILE if baked is None else baked / BAKED_MODEL_FILE
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    options = session_options(threads)
    if baked is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_mem_reuse = False
        # Its arena would keep the most that any run ever took: half as much again of a worker's own memory,
        # for 1 or 2 % of the time.
        options.enable_cpu_mem_arena = False
    return _open(path, options, _providers(device))


def save_optimised(source: Path, folder: Path) -> None:
    """Optimise a graph for this processor and write it as `open_session` wants it.

    Each matrix is written twice, plain and packed: a load packs the plain one, compares a hash, and lets go
    of its own for the mapped one where the two are equal. Without the plain one it would serve zeros.

    Args:
        source: file of the graph.
        folder: where `model.onnx` and `weights.bin` are written.

    Raises:
        ModelError: ONNX Runtime refuses; the message names the file.
    """
    options = session_options(1)
    options.optimized_model_filepath = str(folder / BAKED_MODEL_FILE)
    entry = options.add_session_config_entry
    entry("session.optimized_model_external_initializers_file_name", BAKED_WEIGHTS_FILE)
    entry("session.optimized_model_external_initializers_min_size_in_bytes", _SMALLEST_EXTERNAL_BYTES)
    entry("session.save_external_prepacked_constant_initializers", "1")
    _open(source, options, _providers("cpu"))


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """What every session here has in common."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the cores from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def first_line(error: Exception) -> str:
    """Of what ONNX Runtime says, which may be long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _open(
    path: Path, options: onnxruntime.SessionOptions, providers: list[str | tuple[str, dict[str, int]]]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises classes of its own without a common base
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise ModelError(
            f"ASR_DEVICE={device} needs ONNX Runtime's CUDAExecutionProvider; this installation has "
            f"{', '.join(available)}: install onnxruntime-gpu, or set ASR_DEVICE=cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
