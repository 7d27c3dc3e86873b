"""Files of the operator that other users of the machine can read, or write, and must not.

The file of API keys holds digests of random secrets, which tell nobody a key: it may be read. Whoever can
write it, or the settings, decides who is let in.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from asrsvc.settings import Settings

_FILE: Final = "file "
"""how the origin of a setting begins that stands in a file"""


def exposed_files(loaded: Settings) -> tuple[str, ...]:
    """What is wrong, a sentence each, with what to do.

    Args:
        loaded: the settings in force.
    """
    known = {"ASR_ADMIN_TOKEN": loaded.admin_token, "ASR_WEBHOOK_SECRET": loaded.webhook_secret}
    origins = {origin for origin in loaded.origin.values() if origin.startswith(_FILE)}
    found = []
    for origin in sorted(origins):
        path = Path(origin.removeprefix(_FILE))
        secrets = [name for name, value in known.items() if value and loaded.origin[name] == origin]
        if secrets and _others_may(path, stat.S_IROTH):
            found.append(
                f"{path} holds {' and '.join(secrets)} and can be read by every user of this machine:"
                f" chown root:asr {path} && chmod 0640 {path}, with the group of the service's user"
            )
        found += _written_by_others(path)
    return (*found, *(_written_by_others(loaded.api_keys) if loaded.api_keys is not None else ()))


def _written_by_others(path: Path) -> list[str]:
    if not _others_may(path, stat.S_IWOTH):
        return []
    return [f"{path} can be written by every user of this machine: chmod o-w {path}"]


def _others_may(path: Path, right: int) -> bool:
    """Whether any user has a right to a file, and a way to it; path_resolution(7)."""
    try:
        real = path.resolve(strict=True)
        way = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return way and bool(real.stat().st_mode & right)
    except OSError:
        return False  # it is not there, or hidden from the service too: that is told elsewhere
