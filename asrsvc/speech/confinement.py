"""What the decoder process may still do before its first file: read, answer, compute.

The list names what is allowed, not what is forbidden: a kernel has over 350 calls, and gets new ones.
It was made from what the process really calls (strace over all formats, with threads), with what other
versions of the C library call in their place; in the sandbox a call that is not named fails with EPERM,
which decoders live with. That a format needs a call which is not here is what the tests look for, which
decode all of them in a real helper.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

from asrsvc.system import sandbox
from asrsvc.system.seccomp import Check, Rules

_CLONE_THREAD: Final = 0x0001_0000
# What the C library starts a thread with (nptl, sysdeps/unix/sysv/linux): memory, files, signal handlers and
# semaphores are shared, its number is written, its pointer to its own data is set; sched.h, clone(2).
_CLONE_OTHERS: Final = 0x007C_0F00
_PROT_EXEC: Final = 4
_PR_SET_NAME: Final = 15
_STDERR: Final = 2

_PLAIN: Final = (
    # files that were passed: read by position
    "read",
    "pread64",
    "lseek",
    "fstat",
    "close",
    # memory (without execution, below), threads and locks
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "membarrier",
    "rseq",
    "set_robust_list",
    "sched_yield",
    "sched_getaffinity",
    "getcpu",
    "exit",
    "exit_group",
    "restart_syscall",
    # signals of this process
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    # time, chance, and what it knows of itself
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "getrandom",
    "getrusage",
    "getpid",
    "gettid",
    "sysinfo",
)


def rules(connection: int, process: int) -> Rules:
    """The calls that the process may make.

    Args:
        connection: descriptor of its socket.
        process: its own number.
    """
    mine = (Check(0, connection),)
    no_execution = (Check(2, 0, _PROT_EXEC),)
    return {
        **dict.fromkeys(_PLAIN, ()),
        "sendto": mine,
        "recvmsg": mine,
        "write": (Check(0, _STDERR),),
        "mmap": no_execution,
        "mprotect": no_execution,
        "clone": (Check(0, _CLONE_THREAD, 0xFFFF_FFFF & ~_CLONE_OTHERS),),
        "prctl": (Check(0, _PR_SET_NAME),),
        "prlimit64": (Check(0, 0), Check(1, resource.RLIMIT_CPU)),  # its own
        "tgkill": (Check(0, process),),  # abort(3)
    }


# Its flags are in memory, which a filter cannot read. The C library then calls clone.
_REFUSED: Final = {"clone3": errno.ENOSYS}


def confine(connection: int) -> tuple[str, ...]:
    """Confine this process.

    Args:
        connection: descriptor of its socket.

    Returns:
        what the kernel lacks; see `sandbox.confine`.
    """
    return sandbox.confine(rules(connection, os.getpid()), refused=_REFUSED)
