"""Take from this process what it does not need: new privileges, files, network, most system calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from asrsvc.system import landlock, libc, seccomp

# linux/prctl.h
_SET_NO_NEW_PRIVS: Final = 38
_SET_MDWE: Final = 65
_MDWE_REFUSE_EXEC_GAIN: Final = 1


def refuse_new_code() -> None:
    """From here on no memory of this process is both written and executed (Linux 6.3); best before it asks.

    Libraries that make code when they need it (cffi, for callbacks) then find another way, or say so.
    """
    with suppress(OSError):  # an older kernel: the filter of system calls refuses some of it later
        libc.prctl(_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN)


def confine(allowed: seccomp.Rules, *, refused: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Confine this process for good; it should have one thread as yet, and all its modules.

    Landlock holds for the calling thread and those that it starts later, the filter of system calls for
    all threads. A step that this kernel or container does not let it take is left out.

    Args:
        allowed: system calls that it may make.
        refused: see `seccomp.program`.

    Returns:
        what is lacking, each a name and the kernel's reason; nothing on a kernel that has it all.
    """
    steps: dict[str, Callable[[], object]] = {
        "no_new_privs": partial(libc.prctl, _SET_NO_NEW_PRIVS, 1),
        "Landlock": landlock.restrict,
        "seccomp": partial(seccomp.install, allowed, refused=refused),
    }
    lacking = []
    for name, step in steps.items():
        try:
            step()
        except OSError as error:
            lacking.append(f"{name} ({error.strerror})")
    return tuple(lacking)
