"""Who a request is of: what the application finds in its scope as `scope["state"]["client"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["key", "address", "operator"]


@dataclass(frozen=True, slots=True)
class Client:
    """The one who asks."""

    name: str
    """of the API key; without keys the address; `operator` at the ops listener"""
    kind: Kind
    """what the name is"""
    address: str
    """of the client's machine, behind proxies too that ASR_TRUSTED_PROXIES names; `unix` for a socket file"""
    identity: str = ""
    """of the API key, see `asrsvc.serving.keys.Key.identity`"""

    @property
    def owner(self) -> str:
        """What belongs to the same one later, as a job: the key; without keys all are one."""
        return f"key:{self.identity or self.name}" if self.kind == "key" else ""

    @property
    def label(self) -> str:
        """What limits are kept by; a name of one kind is never taken for one of another."""
        return f"{self.kind}:{self.name}"


OPERATOR: Final = "operator"
"""name of whoever comes to the ops listener"""


def client_of(scope: Mapping[str, Any]) -> Client:
    """The client of a request that has been let in."""
    found = scope["state"]["client"]
    assert isinstance(found, Client)
    return found
