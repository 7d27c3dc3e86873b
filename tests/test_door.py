"""What the master makes sure of before anybody is let in."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from asrsvc import settings
from asrsvc.serving.door import read_keys_of, refuse_open_listeners, table_of_clients
from asrsvc.serving.handover import Inheritance
from asrsvc.serving.limits import Allowance
from asrsvc.settings import SettingError


@dataclass
class Listener:
    """What gunicorn's listeners say of themselves."""

    address: tuple[str, int] | str

    @property
    def FAMILY(self) -> socket.AddressFamily:  # noqa: N802 - gunicorn's name
        return socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET

    def getsockname(self) -> tuple[str, int] | str:
        return self.address


PUBLIC, LOOPBACK, FILE = Listener(("0.0.0.0", 80)), Listener(("127.0.0.1", 80)), Listener("/run/asr.sock")


def test_a_listener_that_systemd_opens_to_others_needs_keys() -> None:
    plain = settings.load({}, {})
    refuse_open_listeners([LOOPBACK, FILE], [FILE], plain)
    with pytest.raises(SettingError, match="0.0.0.0:80 can be reached from other machines"):
        refuse_open_listeners([PUBLIC, FILE], [FILE], plain)
    with pytest.raises(SettingError, match="0.0.0.0:80 can be reached"):
        refuse_open_listeners([LOOPBACK, PUBLIC], [PUBLIC], plain)
    keys = settings.load({"ASR_API_KEYS": "/k.json"}, {})
    refuse_open_listeners([PUBLIC, FILE], [FILE], keys)
    with pytest.raises(SettingError):
        refuse_open_listeners([LOOPBACK, PUBLIC], [PUBLIC], keys)
    refuse_open_listeners([LOOPBACK, PUBLIC], [PUBLIC], settings.load({"ASR_ADMIN_TOKEN": "x" * 16}, {}))
    refuse_open_listeners([PUBLIC], [], settings.load({"ASR_PUBLIC_WITHOUT_KEYS": "yes"}, {}))


def test_keys_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    assert read_keys_of(settings.load({}, {})) is None
    with pytest.raises(SettingError, match="ASR_API_KEYS: .*k.json"):
        read_keys_of(settings.load({"ASR_API_KEYS": str(tmp_path / "k.json")}, {}))


def test_a_new_master_counts_on_where_the_old_one_has_counted() -> None:
    loaded = settings.load({"ASR_QUEUE_LIMIT": "5"}, {})
    first = table_of_clients(loaded, None)
    first.enter(Allowance("a", concurrency=3))
    second = table_of_clients(loaded, Inheritance((), False, first.descriptor, -1))
    assert second.under_way("a") == 1
    assert table_of_clients(loaded, Inheritance((), False, -1, -1)).under_way("a") == 0
