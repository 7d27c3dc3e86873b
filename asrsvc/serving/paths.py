"""The target of a request as the acceptor, the access rules and the routes see it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

_SLASHES: Final = re.compile("/{2,}")
_JOINED: Final = re.compile("/+(v1|api)/")
"""what clients join to the address of a server that they were given"""


def plain_path(raw: bytes) -> str:
    """The decoded path without the slashes of badly joined addresses: at its end, doubled in the APIs.

    Such a request is answered, not redirected: a client follows a redirect with its key and the whole upload,
    and behind a proxy that speaks TLS the redirect would name an address in clear text. A slash that comes as
    %2F is none of these.

    Args:
        raw: as it stands in the request, ASCII.
    """
    text = raw.decode("ascii")
    if _JOINED.match(text):
        text = _SLASHES.sub("/", text)
    return unquote(text.rstrip("/") or "/")


def named_authority(target: bytes) -> str | None:
    """Host and port of a request target in its absolute form (RFC 9112, section 3.2.2); None: it has none.

    Args:
        target: as it stands in the request.
    """
    if target.startswith(b"/") or b"://" not in target:
        return None
    return re.split("[/?#]", target.partition(b"://")[2].decode("latin-1"), maxsplit=1)[0]
