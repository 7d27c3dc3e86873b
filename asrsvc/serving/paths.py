"""The path of a request as the acceptor, the access rules and the routes see it."""

from __future__ import annotations

import re
from typing import Final

_SLASHES: Final = re.compile("/{2,}")


def plain_path(path: str) -> str:
    """The path without the slashes that badly joined addresses have: doubled ones, and one at the end.

    Such a request is answered, not redirected: a client follows a redirect with its key and the whole upload,
    and behind a proxy that speaks TLS the redirect would name an address in clear text.

    Args:
        path: decoded; a slash that came as %2F counts.
    """
    return _SLASHES.sub("/", path).removesuffix("/") or "/"
