"""What this processor can do, as far as the numbers and the speed of a network depend on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Their instructions add four products of bytes into 32 bits; older ones add two into 16 and cut.
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_flags() -> frozenset[str]:
    """What the first core can do (`flags` on x86, `Features` on ARM); nothing where it is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def cpu_features() -> str:
    """A short digest of `cpu_flags`."""
    flags = cpu_flags()
    return hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16] if flags else "unknown"


def has_vnni() -> bool:
    """Whether products of unsigned and signed bytes are added up without saturation."""
    return bool(cpu_flags() & _VNNI)
