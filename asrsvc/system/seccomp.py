"""A filter of system calls: what is not named is refused with EPERM; seccomp(2), linux/filter.h.

A process goes on when a call is refused: libraries ask for what they can do without (the number of cores,
a table of character sets). A call through another interface of the kernel (32 bits on x86-64) has no
business here, and ends the process.

No library serves: the bindings to libseccomp on PyPI are years old or a few months young, Debian's is not
for virtual environments, and all of them need a libseccomp that a host may lack. A filter of names and
arguments is a list of eight-byte instructions; the tests compare the numbers with libseccomp's own.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asrsvc.system.libc import call
from asrsvc.system.syscalls import NUMBERS

# linux/audit.h: the processor's number in ELF, 64 bits, little-endian; and where the call is named.
_AUDIT: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1  # SECCOMP_FILTER_FLAG_TSYNC: the filter is that of all threads, or of none

_KILL: Final = 0x8000_0000  # SECCOMP_RET_KILL_PROCESS
_ERRNO: Final = 0x0005_0000  # SECCOMP_RET_ERRNO, with the error in the lower 16 bits
_ALLOW: Final = 0x7FFF_0000  # SECCOMP_RET_ALLOW

# linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, BPF_ALU | BPF_AND | BPF_K, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
# struct seccomp_data: the number of the call, the processor, the instruction's address, six arguments.
_NUMBER_AT: Final = 0
_PROCESSOR_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_WORD: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on an argument of a call, on its lower 32 bits: the kernel reads no more of an int."""

    argument: int
    """0 for the first one"""
    value: int
    """what it must be"""
    mask: int = _WORD
    """bits of it that are compared"""


Rules = Mapping[str, Sequence[Check]]
"""names of calls that are allowed; each only if all its conditions hold"""


def program(allowed: Rules, machine: str, *, refused: Mapping[str, int] | None = None) -> bytes:
    """The instructions of a filter.

    Args:
        allowed: everything else is refused.
        machine: as platform.machine() says it.
        refused: error numbers of calls for which EPERM would be misread.

    Raises:
        OSError: ENOSYS: no numbers of calls are known here for such a machine.
        KeyError: nor for a call of this name.
    """
    if machine not in _AUDIT or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no filter is known for {machine}")
    numbers = {name: NUMBERS[name][machine == "aarch64"] for name in (*allowed, *(refused or {}))}
    made = [
        (_LOAD, 0, 0, _PROCESSOR_AT),
        (_JUMP_IF_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for name, checks in allowed.items():
        number = numbers[name]
        if number is not None:
            made += _rule(number, [*_checked(checks), (_RETURN, 0, 0, _ALLOW)])
    for name, code in (refused or {}).items():
        number = numbers[name]
        if number is not None:
            made += _rule(number, [(_RETURN, 0, 0, _ERRNO | code)])
    made.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *one) for one in made)


_Instruction = tuple[int, int, int, int]
"""code, instructions to pass over if true, and if false, operand: struct sock_filter"""


def _rule(number: int, then: Sequence[_Instruction]) -> Iterator[_Instruction]:
    """What is done with one call; the others pass it over."""
    yield _JUMP_IF_EQUAL, 0, len(then), number
    yield from then


def _checked(checks: Sequence[Check]) -> Iterator[_Instruction]:
    """Go on if all conditions hold, else refuse the call."""
    for check in checks:
        yield _LOAD, 0, 0, _ARGUMENTS_AT + 8 * check.argument
        yield _AND, 0, 0, check.mask
        yield _JUMP_IF_EQUAL, 1, 0, check.value
        yield _RETURN, 0, 0, _ERRNO | errno.EPERM


def install(allowed: Rules, *, refused: Mapping[str, int] | None = None) -> None:
    """Put a filter on all threads of this process, for good. It must have given up new privileges.

    Args:
        allowed: see `program`.
        refused: see `program`.

    Raises:
        OSError: the kernel cannot, or another filter forbids it.
    """
    code = program(allowed, platform.machine(), refused=refused)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    number = NUMBERS["seccomp"][platform.machine() == "aarch64"]
    assert number is not None
    thread = call(number, _SET_MODE_FILTER, _TSYNC, ctypes.create_string_buffer(head, len(head)))
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} has a filter of its own")
