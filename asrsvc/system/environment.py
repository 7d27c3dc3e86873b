"""What a confined process gets of this one's environment: nothing but what starts Python in the same way."""

from __future__ import annotations

import os
import sys
from typing import Final

# Of the dynamic loader (ld.so(8)), the C library (locale(7), mallopt(3)), Python (python(1)) and OpenBLAS,
# whose kernels are chosen by hand on some processors. None of them holds a secret.
_PASSED: Final = (
    "GLIBC_TUNABLES",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "PYTHONFAULTHANDLER",
    "PYTHONHOME",
    "PYTHONMALLOC",
)
# A library's own threads would be there before a sandbox is, and outside of a part of it.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# So much free memory is kept between two blocks of sound: to get it anew costs more than to decode 10 s.
_KEPT: Final = {"MALLOC_MMAP_THRESHOLD_": str(2**23), "MALLOC_TRIM_THRESHOLD_": str(2**24)}


def minimal() -> dict[str, str]:
    """The environment for a Python (started with -P) that finds the modules which this one finds."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    modules = os.pathsep.join(path for path in sys.path if path)
    return {**_KEPT, **passed, **_ONE_THREAD, "PYTHONPATH": modules}
