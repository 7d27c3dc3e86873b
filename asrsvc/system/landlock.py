"""No file by its name, no TCP, and no abstract socket or signal beyond this thread: landlock(7).

The numbers are those of linux/landlock.h. What a kernel does not know yet it is not asked for.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from asrsvc.system.libc import call

_CREATE_RULESET: Final = 444  # the same number on every processor
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION

# How many rights of files each version of the interface knows: one bit for each, from the lowest on.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_FILE_RIGHTS: Final = 16  # from version 5 on
_NET_SINCE: Final = 4
_NET_RIGHTS: Final = 0b11  # LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP
_SCOPES_SINCE: Final = 6
_SCOPES: Final = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL


def version() -> int:
    """Which version of the interface this kernel has, from 1 on.

    Raises:
        OSError: it has none, or may not say so here.
    """
    return call(_CREATE_RULESET, None, 0, _VERSION)


def restrict() -> None:
    """Take all of it from the calling thread, and from threads that it starts later.

    Descriptors that are open already, and those that are passed to it, can be used as before.

    Raises:
        OSError: the kernel has no Landlock, it is switched off, or it may not be used here.
    """
    known = version()
    attributes = [2 ** _FILE_RIGHTS.get(known, _ALL_FILE_RIGHTS) - 1]
    if known >= _NET_SINCE:
        attributes.append(_NET_RIGHTS)
    if known >= _SCOPES_SINCE:
        attributes.append(_SCOPES)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)  # struct landlock_ruleset_attr
    ruleset = call(_CREATE_RULESET, ctypes.create_string_buffer(packed, len(packed)), len(packed), 0)
    try:
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
