"""The faster twin of a version for this host: made once, compared bit for bit, mapped by all workers.

    root/baked/<id>/<host key>/
      model.onnx    the optimised graph
      weights.bin   its weights, and the same packed as this processor's kernels read them
      bake.json     what it was made of, and a digest of each file

It is derived: safe to delete, and made again where it is missing. What is imported here needs the
standard library alone; the child that makes a twin brings the rest.
"""

from asrsvc.release.bake.making import MakeLimits, make, make_if_missing
from asrsvc.release.bake.twins import Found, Mode, Twin, find, host_key

__all__ = ["Found", "MakeLimits", "Mode", "Twin", "find", "host_key", "make", "make_if_missing"]
