"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call (syscall(2)).

    Args:
        number: of the call, on this processor.
        arguments: numbers, pointers to buffers, or None for a null pointer.

    Raises:
        OSError: the kernel refuses it.
    """
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *passed))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    """Ask for something that concerns this process or thread; see its manual page, prctl in section 2.

    Raises:
        OSError: the kernel refuses it, or does not know it (EINVAL).
    """
    passed = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    result = int(_libc().prctl(option, *passed))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
