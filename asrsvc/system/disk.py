"""What a client is told when the kernel refuses to open or write a file: no space, or no descriptor left."""

from __future__ import annotations

import errno
from typing import Final

from asrsvc.errors import AsrError, NoSpace, OutOfDescriptors

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def lacks_descriptors(error: BaseException) -> bool:
    """Whether something failed since this process, or the machine, has as many open files as it may have.

    Args:
        error: which may be of a library, with the kernel's refusal among its causes.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTORS:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def storage_error(what: str, error: OSError, *, param: str | None = None) -> AsrError:
    """The answer to a request whose file cannot be opened or written.

    Args:
        what: which could not be done, as "the upload cannot be stored".
        error: the refusal.
        param: the field of the request.
    """
    if lacks_descriptors(error):
        return OutOfDescriptors(f"{what}: {error.strerror}", param=param)
    return NoSpace(f"{what}: {error.strerror}", param=param)
