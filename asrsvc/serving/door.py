"""What the master makes sure of before anybody is let in: keys, listeners, and where limits are counted."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from asrsvc.errors import KeysError
from asrsvc.serving.handover import Inheritance
from asrsvc.serving.keys import KeyRing
from asrsvc.serving.lanes import LaneName
from asrsvc.serving.limits import ClientTable
from asrsvc.settings import SettingError, Settings, is_public

_TICKETS_IN_HAND: Final = 2600
"""requests whose bodies arrive, or that are in hand"""


def read_keys_of(loaded: Settings) -> KeyRing | None:
    """The API keys, if they are asked for: without them nothing is served.

    Raises:
        SettingError: the file is not as it must be.
    """
    try:
        return KeyRing(loaded.api_keys) if loaded.api_keys is not None else None
    except KeysError as error:
        raise SettingError(f"ASR_API_KEYS: {error.message}") from None


def table_of_clients(loaded: Settings, inherited: Inheritance | None) -> ClientTable:
    """The old master's, so that its requests still count; else a new one."""
    if inherited is not None:
        with suppress(OSError, ValueError):  # there is none, or one of another program
            return ClientTable(inherited.clients)
    return ClientTable.create(2 * len(LaneName) * loaded.queue_limit + _TICKETS_IN_HAND)


def refuse_open_listeners(listeners: Sequence[Any], ops: Sequence[Any], loaded: Settings) -> None:
    """See that others reach nothing without keys: what systemd passes may be another address than ASR_BIND.

    Args:
        listeners: gunicorn's.
        ops: those of them that operators use.
        loaded: the settings that are to be in force.

    Raises:
        SettingError: other machines reach one, and there are no keys.
    """
    if loaded.public_without_keys:
        return
    for listener in listeners:
        if listener.FAMILY == socket.AF_UNIX:
            continue
        host, port = listener.getsockname()[:2]
        guarded = loaded.admin_token if listener in ops else loaded.api_keys
        if not guarded and is_public(f"{host}:{port}"):
            raise SettingError(
                f"the listener {host}:{port} can be reached from other machines, without keys: see"
                " ASR_API_KEYS, ASR_ADMIN_TOKEN and ASR_PUBLIC_WITHOUT_KEYS"
            )
