"""ONNX Runtime, told to report nothing to anybody; all that needs it gets it here.

Its published builds from 1.29 on send what they are used for to their maker, by a store below ~/.cache,
unless ORT_DISABLE_TELEMETRY is set before the library is loaded (its Privacy.md, "Disabling Telemetry").
A service that people run on machines of their own, with recordings of their own, has no business there.
"""

import os

os.putenv("ORT_DISABLE_TELEMETRY", "1")  # the library asks getenv(3), once, when it is loaded

import onnxruntime

__all__ = ["onnxruntime"]
