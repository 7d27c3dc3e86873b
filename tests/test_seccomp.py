"""A filter of system calls: its numbers are the kernel's, and it does what its rules say."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.speech import confinement
from asrsvc.system.seccomp import Check, Rules, program
from asrsvc.system.syscalls import NUMBERS

PROCESSORS = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
ALLOWED, KILLED = "allowed", "killed"
CONNECTION, PROCESS = 7, 4242


def known_to_libseccomp(name: str, machine: str) -> int | None:
    """The number of a call by libseccomp, which Debian's own package manager needs."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    number = resolve(PROCESSORS[machine], name.encode())
    return number if number >= 0 else None


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_are_those_of_libseccomp(name: str) -> None:
    assert NUMBERS[name] == (known_to_libseccomp(name, "x86_64"), known_to_libseccomp(name, "aarch64"))


def run(code: bytes, machine: str, number: int, arguments: Sequence[int] = ()) -> str | int:
    """What the kernel would say: allowed, killed, or an error number (linux/bpf_common.h)."""
    values = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, PROCESSORS.get(machine, 0x4000_0003), 0, *values)
    program = list(struct.iter_unpack("=HBBI", code))
    register = at = 0
    while True:
        operation, if_true, if_false, operand = program[at]
        at += 1
        match operation:
            case 0x20:
                (register,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                register &= operand
            case 0x15:
                at += if_true if register == operand else if_false
            case 0x06:
                action = {0x7FFF: ALLOWED, 0x8000: KILLED}.get(operand >> 16)
                return action if action is not None else operand & 0xFFFF
            case _:
                raise AssertionError(hex(operation))


def number_of(name: str, machine: str) -> int:
    number = NUMBERS[name][machine == "aarch64"]
    assert number is not None
    return number


RULES: Rules = {"read": (), "write": (Check(0, 2),), "mmap": (Check(2, 0, 4), Check(3, 2))}


@pytest.mark.parametrize("machine", PROCESSORS)
def test_a_rule_allows_what_it_says_and_nothing_else(machine: str) -> None:
    code = program(RULES, machine, refused={"clone3": errno.ENOSYS})

    def asked(name: str, *arguments: int) -> str | int:
        return run(code, machine, number_of(name, machine), arguments)

    assert asked("read", 99) == ALLOWED
    assert asked("write", 2) == ALLOWED
    assert asked("write", 1) == errno.EPERM
    assert asked("write", 2 | 1 << 32) == ALLOWED, "an int is read from the lower half"
    assert asked("mmap", 0, 0, 3, 2) == ALLOWED
    assert asked("mmap", 0, 0, 7, 2) == errno.EPERM
    assert asked("mmap", 0, 0, 3, 1) == errno.EPERM
    assert asked("clone3") == errno.ENOSYS
    assert asked("close") == errno.EPERM


@given(number=st.integers(0, 2**31 - 1), machine=st.sampled_from(sorted(PROCESSORS)))
def test_a_call_that_is_not_named_is_refused(number: int, machine: str) -> None:
    named = {number_of(name, machine) for name in RULES}
    expected = {ALLOWED, errno.EPERM} if number in named else {errno.EPERM}
    assert run(program(RULES, machine), machine, number) in expected


@pytest.mark.parametrize("machine", PROCESSORS)
def test_a_call_of_another_interface_ends_the_process(machine: str) -> None:
    (other,) = set(PROCESSORS) - {machine}
    for stranger in (other, "32 bits"):
        assert run(program(RULES, machine), stranger, number_of("read", machine)) == KILLED


def test_a_machine_without_numbers_is_told() -> None:
    with pytest.raises(OSError, match="no filter is known for riscv64") as caught:
        program(RULES, "riscv64")
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize("machine", PROCESSORS)
def test_the_decoder_process_may_start_threads_and_no_processes(machine: str) -> None:
    code = program(confinement.rules(CONNECTION, PROCESS), machine)

    def asked(name: str, *arguments: int) -> str | int:
        return run(code, machine, number_of(name, machine), arguments)

    assert asked("clone", 0x3D0F00) == ALLOWED, "glibc's threads"
    assert asked("clone", 0x7D0F00) == ALLOWED, "musl's"
    assert asked("clone", 17) == errno.EPERM, "fork, SIGCHLD"
    assert asked("clone", 0x4111) == errno.EPERM, "vfork"
    assert asked("clone", 0x3D0F00 | 0x1000_0000) == errno.EPERM, "a new namespace of users"
    assert asked("sendto", CONNECTION) == asked("recvmsg", CONNECTION) == ALLOWED
    assert asked("sendto", CONNECTION + 1) == asked("recvmsg", 0) == errno.EPERM
    assert asked("tgkill", PROCESS, 1, 6) == ALLOWED
    assert asked("tgkill", PROCESS - 1, 1, 6) == errno.EPERM
    assert asked("prlimit64", 0, 0) == ALLOWED
    assert asked("prlimit64", 0, 9) == errno.EPERM, "its memory"
    assert asked("mprotect", 0, 4096, 3) == ALLOWED
    assert asked("mprotect", 0, 4096, 5) == errno.EPERM
