"""What a master hands down to the one that SIGUSR2 starts: descriptors, by their numbers.

gunicorn 27.0 hands the listeners down in GUNICORN_FD and its own pid in GUNICORN_PID; the lanes of the
queue go the same way. Under systemd too: LISTEN_FDS would ask for the numbers from 3 on, which gunicorn
has given away by then (sd_listen_fds(3)).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from asrsvc import settings
from asrsvc.settings import INHERITANCE_VARIABLE


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new master takes over beside the listeners."""

    lanes: tuple[tuple[int, int], ...]
    """descriptors of each lane's entrance and exit"""
    systemd: bool
    """whether systemd keeps the listeners"""


def inheritance() -> Inheritance | None:
    """What the old master has handed down; None for a first start."""
    text = settings.inheritance_text()
    if text is None:
        return None
    found = json.loads(text)
    return Inheritance(tuple((int(one), int(two)) for one, two in found["lanes"]), bool(found["systemd"]))


def handed_down(master_pid: int, listeners: Sequence[int], inherited: Inheritance) -> dict[str, str]:
    """The environment variables of a new master."""
    return {
        "GUNICORN_PID": str(master_pid),
        "GUNICORN_FD": ",".join(map(str, listeners)),
        INHERITANCE_VARIABLE: json.dumps({"lanes": inherited.lanes, "systemd": inherited.systemd}),
    }
