"""API keys: the file that holds their digests, and whether a key that a client shows is one of them.

A key is 256 random bits, made by bin/api-keys. So a plain SHA-256 is all that its digest needs: nobody
can guess what a slow hash (bcrypt, Argon2) would protect, and one would cost each request its time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from asrsvc.errors import KeysError, Unauthorised
from asrsvc.release.files import open_plain, write_file

log = logging.getLogger(__name__)

PREFIX: Final = "asr-"
"""of every key, so that a scanner of repositories can tell one"""
MOST_KEYS: Final = 1000
"""each request is compared with all of them"""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SECRET_BYTES: Final = 32
_NANOSECONDS: Final = re.compile(r"[.,]\d{9}(?!\d)")
_NEVER_SEEN: Final = (-1, -1, -1)
_FILE_BYTES: Final = 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as the file holds it."""

    name: str
    """whose it is; what logs and jobs call the client"""
    sha256: str
    """of the key's text, hexadecimal"""
    created: str
    """when it was made, UTC, ISO 8601, to the nanosecond; another secret of the same key changes nothing"""
    expires: str | None = None
    """UTC, ISO 8601; None: never"""
    rate: int | None = None
    """requests a minute that bring work; 0: any; None: as ASR_CLIENT_RATE says"""
    concurrency: int | None = None
    """of these, waiting or in hand at the same time; 0: any; None: as ASR_CLIENT_CONCURRENCY says"""

    @property
    def identity(self) -> str:
        """What its jobs belong to: who is given the same name later has another one.

        The name and the moment when the key was made. An entry that does not give it to the nanosecond, as
        the tool did not before and nobody does by hand, goes by its name alone.
        """
        return f"{self.name}:{self.created}" if _NANOSECONDS.search(self.created) else self.name

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now


def new_secret() -> str:
    """The text of a new key."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()


def digest_of(secret: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file, in its order.

    Raises:
        KeysError: it cannot be read, or something in it is wrong; names what.
    """
    try:
        with open_plain(path) as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"{path} (API keys) cannot be read: {error.strerror}") from error
    if len(content) > _FILE_BYTES:
        raise KeysError(f"{path} (API keys) is over {_FILE_BYTES} bytes")
    try:
        found = json.loads(content)
        if not isinstance(found, dict) or list(found) != ["keys"] or not isinstance(found["keys"], list):
            raise ValueError('{"keys": […]} is right')
        keys = tuple(_key(item, number) for number, item in enumerate(found["keys"]))
        _check_together(keys)
    except (ValueError, RecursionError) as error:
        raise KeysError(f"{path} is no file of API keys: {error}") from error
    return keys


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file in one step.

    Raises:
        KeysError: the disk refuses; the old file is there still.
    """
    content = {"keys": [_to_json(key) for key in keys]}
    try:
        write_file(path, json.dumps(content, indent=1).encode() + b"\n")
    except OSError as error:
        raise KeysError(f"{path} (API keys) cannot be written: {error.strerror}") from error


def _to_json(key: Key) -> dict[str, Any]:
    return {name: value for name in Key.__slots__ if (value := getattr(key, name)) is not None}


def _key(item: Any, number: int) -> Key:
    """One entry; ValueError says what is wrong with it."""
    where = f"keys[{number}]"
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} must be an object")
    unknown = sorted(set(item) - set(Key.__slots__))
    if unknown:
        raise ValueError(f"{where} has an unknown field {unknown[0][:60]!r}")
    _text(item, where, "name", NAME, "letters, digits and ._@-, up to 64")
    _text(item, where, "sha256", _DIGEST, "64 hexadecimal digits")
    for name in ("created", "expires"):
        if name in item:
            _moment(item[name], f"{where}.{name}")
    for name in ("rate", "concurrency"):
        value = item.get(name, 0)
        if type(value) is not int or not 0 <= value <= 1_000_000:
            raise ValueError(f"{where}.{name} is {str(value)[:60]!r}; a whole number to 1000000 is right")
    if "created" not in item:
        raise ValueError(f"{where}.created is missing")
    return Key(**item)


def _text(item: Mapping[str, Any], where: str, name: str, pattern: re.Pattern[str], right: str) -> None:
    value = item.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{where}.{name} is {str(value)[:80]!r}; {right} is right")


def _moment(value: Any, where: str) -> None:
    try:
        if datetime.fromisoformat(value).tzinfo is not None:
            return
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{where} is {str(value)[:60]!r}; a time as 2027-01-31T00:00:00+00:00 is right")


def _check_together(keys: tuple[Key, ...]) -> None:
    if len(keys) > MOST_KEYS:
        raise ValueError(f"{len(keys)} keys; {MOST_KEYS} are the most")
    for attribute in ("name", "sha256"):
        seen = set()
        for key in keys:
            value = getattr(key, attribute)
            if value in seen:
                raise ValueError(f"two keys have the {attribute} {value}")
            seen.add(value)


class KeyRing:
    """The keys in force: those of the file, read again when it has changed, as long as it is right."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Raises:
            KeysError: see `read_keys`.
        """
        self.path = path
        self.problem: str | None = None
        """why the file as it is now is not in force; the keys that were before are"""
        self._seen = self._signature()
        self._keys = read_keys(path)
        self._digests = [bytes.fromhex(key.sha256) for key in self._keys]

    def look(self) -> None:
        """Read the file again if it has changed: all workers know a new key at once, and a revoked one."""
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            keys = read_keys(self.path)
        except KeysError as error:
            if isinstance(error.__cause__, OSError):
                self._seen = (
                    _NEVER_SEEN  # for want of a descriptor, perhaps: a revoked key must not be missed
                )
            problem = f"{error.message}; the keys from before are in force"
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
            return
        self._keys = keys
        self._digests = [bytes.fromhex(key.sha256) for key in keys]
        self.problem = None
        log.info("API keys read again", extra={"keys": len(keys)})

    def find(self, secret: str) -> Key:
        """The key of this text.

        Raises:
            Unauthorised: there is none, or its time is over.
        """
        self.look()
        shown = hashlib.sha256(secret.encode()).digest()
        # All are compared, and each over its whole length: how long it takes tells nothing.
        same = [number for number, own in enumerate(self._digests) if hmac.compare_digest(shown, own)]
        if not same:
            raise Unauthorised("this API key is not known here", code="invalid_api_key")
        key = self._keys[same[0]]
        if key.has_expired(datetime.now(UTC)):
            raise Unauthorised(f"the API key of {key.name} expired on {key.expires}", code="expired_api_key")
        return key

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ctime_ns, found.st_size, found.st_ino  # a change of its mode counts too
