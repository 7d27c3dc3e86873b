"""The real decoder process; a file that begins with ESCAPE lets it try to get out of its sandbox.

Started as `asrsvc.speech.helper` starts the real one. The answer to such a file is the error X with what
came of the try: `done`, or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import platform
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from asrsvc.speech import confinement, ffmpeg_helper
from asrsvc.speech.decode_upload import decode
from asrsvc.speech.decoded import FileLimits, Item, Refused

MARK = b"ESCAPE "
LIBC = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
PARENT = os.getppid()


def raw(number: tuple[int, int], *arguments: Any) -> int:
    """A system call by its number on x86-64 and on aarch64."""
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(LIBC.syscall(ctypes.c_long(number[ARM]), *passed))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def end_child(pid: int) -> None:
    """A child that a try has made must not go on as a second helper."""
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


HERE = Path("/tmp/asrsvc-escape")
PATH = ctypes.c_char_p(b"/etc/passwd")
PAGE = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
PAGE_AT = ctypes.addressof(ctypes.c_char.from_buffer(PAGE))
UNLIMITED = ctypes.create_string_buffer(b"\xff" * 16, 16)
SOMEWHERE = ctypes.create_string_buffer(b"\x02\0\x1f\x90\x7f\0\0\x01" + bytes(120))

TRIES: dict[str, Callable[[int], object]] = {
    "open": lambda _: os.open("/etc/passwd", os.O_RDONLY),
    "open the memory of the worker": lambda _: os.open(f"/proc/{PARENT}/mem", os.O_RDONLY),
    "create": lambda _: os.open(HERE, os.O_CREAT | os.O_WRONLY, 0o600),
    "stat": lambda _: Path("/etc/passwd").stat(),
    "list": lambda _: os.listdir("/"),
    "unlink": lambda _: HERE.unlink(),
    "rename": lambda _: HERE.rename("/tmp/asrsvc-escape-2"),
    "mkdir": lambda _: HERE.mkdir(),
    "symlink": lambda _: HERE.symlink_to("/"),
    "chmod": lambda _: Path("/dev/null").chmod(0o666),
    "openat2": lambda _: raw((437, 437), -100, PATH, ctypes.create_string_buffer(24), 24),
    "socket": lambda _: socket.socket(socket.AF_INET),
    "unix socket": lambda _: socket.socket(socket.AF_UNIX),
    "socketpair": lambda _: socket.socketpair(),
    "connect": lambda _: raw((42, 203), 2, SOMEWHERE, 16),
    "bind": lambda _: raw((49, 200), 2, SOMEWHERE, 16),
    "sendmsg": lambda _: raw((46, 211), 2, SOMEWHERE, 0),
    "fork": lambda _: end_child(os.fork()),
    "clone": lambda _: end_child(raw((56, 220), 17, 0, 0, 0, 0)),
    "clone3": lambda _: raw((435, 435), SOMEWHERE, 0),
    "exec": lambda _: os.execv("/bin/true", ["true"]),
    "execveat": lambda _: raw((322, 281), -100, PATH, 0, 0, 0),
    "spawn": lambda _: os.posix_spawn("/bin/true", ["true"], {}),
    "kill the worker": lambda _: os.kill(PARENT, 0),
    "kill all": lambda _: os.kill(-1, 0),
    "tgkill the worker": lambda _: raw((234, 131), PARENT, PARENT, 0),
    "pidfd_open": lambda _: raw((434, 434), PARENT, 0),
    "ptrace": lambda _: raw((101, 117), 0x4206, PARENT, 0, 0),
    "process_vm_readv": lambda _: raw((310, 270), PARENT, SOMEWHERE, 0, SOMEWHERE, 0, 0),
    "memfd_create": lambda _: os.memfd_create("escape"),
    "map executable memory": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "make memory executable": lambda _: raw((10, 226), PAGE_AT, 4096, 5),
    "io_uring_setup": lambda _: raw((425, 425), 1, SOMEWHERE),
    "bpf": lambda _: raw((321, 280), 0, SOMEWHERE, 128),
    "userfaultfd": lambda _: raw((323, 282), 1),
    "perf_event_open": lambda _: raw((298, 241), SOMEWHERE, 0, -1, -1, 0),
    "keyctl": lambda _: raw((250, 219), 0, -3, 0),
    "mount": lambda _: raw((165, 40), PATH, PATH, PATH, 0, 0),
    "unshare": lambda _: raw((272, 97), 0x1000_0000),
    "setns": lambda _: raw((308, 268), 0, 0),
    "chroot": lambda _: os.chroot("/"),
    "setuid": lambda _: os.setuid(os.getuid()),
    "become undumpable": lambda _: raw((157, 167), 4, 0, 0, 0, 0),
    "another filter": lambda _: raw((317, 277), 0, 0, 0),
    "raise its memory limit": lambda _: raw((302, 261), 0, resource.RLIMIT_AS, UNLIMITED, 0),
    "limit the worker": lambda _: resource.prlimit(PARENT, resource.RLIMIT_CPU),
    "write to the upload": lambda file: os.pwrite(file, b"x", 0),
    "map the upload for writing": lambda file: raw((9, 222), 0, 4096, 3, mmap.MAP_SHARED, file, 0),
    "cut the upload": lambda file: os.ftruncate(file, 0),
    "write to standard output": lambda _: os.write(1, b"x"),
}
if not ARM:
    TRIES |= {
        "open of old": lambda _: raw((2, 0), PATH, 0),
        "vfork": lambda _: end_child(raw((57, 0))),  # a fork: a child of vfork would end this stack
        "x32": lambda _: raw((0x4000_0000 | 39, 0)),
    }


def threads(file: int) -> str:
    """Python's threads, and a decoder's."""
    done: list[int] = []
    started = [threading.Thread(target=lambda: done.append(sum(range(10_000)))) for _ in range(4)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    content = os.pread(file, 2**24, 0).partition(b"\n")[2]
    sums = []
    for count in (1, 4):
        with av.open(io.BytesIO(content)) as container:
            stream = container.streams.audio[0]
            stream.thread_count, stream.thread_type = count, "FRAME"
            frames = [frame.to_ndarray() for frame in container.decode(stream)]
            sums.append(float(np.abs(np.concatenate(frames, axis=1), dtype=np.float64).sum()))
    assert sums[0] == sums[1] > 0
    return f"{len(done)} threads"


modules_before: set[str] = set()


def new_modules(_file: int) -> str:
    return " ".join(sorted(set(sys.modules) - modules_before)) or "none"


def abort(_file: int) -> str:
    os.abort()


ANSWERS = {"threads": threads, "new modules": new_modules, "abort": abort}


def decode_or_escape(descriptor: int, limits: FileLimits) -> Iterator[Item]:
    head = os.pread(descriptor, 100, 0)
    if not head.startswith(MARK):
        yield from decode(descriptor, limits)
        return
    name = head.removeprefix(MARK).partition(b"\n")[0].decode()
    if name in ANSWERS:
        raise Refused(ANSWERS[name](descriptor), whole=True)
    try:
        TRIES[name](descriptor)
    except OSError as error:
        raise Refused(errno.errorcode[error.errno or 0], whole=True) from None
    raise Refused("done", whole=True)


def confine(connection: int) -> tuple[str, ...]:
    lacking = really_confine(connection)
    modules_before.update(sys.modules)
    return lacking


really_confine = confinement.confine

if __name__ == "__main__":
    confinement.confine = confine
    ffmpeg_helper.decode = decode_or_escape  # type: ignore[attr-defined]
    sys.exit(ffmpeg_helper.main())
