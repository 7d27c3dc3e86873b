"""What an operator may name as a source: a repository of a hub, an archive, a folder."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from asrsvc.errors import BadArgument

FORMS: Final = "modelscope:org/name[@revision], hf:org/name[@revision], https://….tar.gz or a folder"

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_ARCHIVE: Final = re.compile(r"(.+)\.(tar\.gz|tgz)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the hubs are; mirrors stand here in their place."""

    modelscope: str = "https://www.modelscope.cn"
    hf: str = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository of a hub."""

    kind: Literal["modelscope", "hf"]
    repository: str
    """as org/name"""
    revision: str | None
    """a branch, tag or commit; None: not said"""

    def __str__(self) -> str:
        return f"{self.kind}:{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class Archive:
    """A .tar.gz behind a URL."""

    url: str

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def file_name(self) -> str:
        """The last part of the URL's path."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine."""

    path: Path
    """absolute, without symbolic links"""
    opened: Mapping[str, BinaryIO] | None = field(default=None, compare=False, repr=False)
    """its files by name, where root has opened them for a user who may not read them"""

    def __str__(self) -> str:
        return str(self.path)


Source: TypeAlias = Hub | Archive | Folder


def parse(text: str) -> Source:
    """What a source's name means.

    Raises:
        BadArgument: it has no form of a source.
    """
    kind, separator, rest = text.partition(":")
    if separator and kind in {"modelscope", "hf"}:
        return _hub("hf" if kind == "hf" else "modelscope", rest)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        check_url(text)
        archive = Archive(text.partition("#")[0])
        if not _ARCHIVE.fullmatch(archive.file_name):
            raise BadArgument(f"{archive} does not end in .tar.gz or .tgz")
        return archive
    if not text or "\0" in text:
        raise BadArgument(f"{text!r} is no source: {FORMS} is")
    try:
        path = Path(text).expanduser().resolve(strict=True)
    except (OSError, RuntimeError):
        raise BadArgument(f"{text!r} is no folder that can be read; a source is {FORMS}") from None
    if not path.is_dir():
        raise BadArgument(f"{path} is no folder; a source is {FORMS}")
    return Folder(path)


def suggested_name(source: Source) -> str:
    """What a version from there is called if nobody says."""
    if isinstance(source, Hub):
        name = source.repository.partition("/")[2]
    elif isinstance(source, Archive):
        match = _ARCHIVE.fullmatch(source.file_name)
        name = match[1] if match else source.file_name
    else:
        name = source.path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:64]


def identity(source: Source) -> str:
    """What a source is remembered by: its name, without a URL's user name, password and query.

    URLs that differ in their query alone are two sources, told apart by a digest.
    """
    if isinstance(source, Archive) and source.url != str(source):
        return f"{source}#{sha256(source.url.encode()).hexdigest()[:16]}"
    return str(source)


def staging_key(source: Source, endpoints: Endpoints) -> str:
    """A file name; the same for downloads that can go on with each other's files."""
    endpoint = getattr(endpoints, source.kind) if isinstance(source, Hub) else ""
    place = source.url if isinstance(source, Archive) else str(source)
    return "pull-" + sha256(json.dumps([place, endpoint]).encode()).hexdigest()[:16]


def check_url(url: str) -> None:
    """Whether a URL may be asked.

    Raises:
        BadArgument: it is not https, nor http to this machine itself.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise BadArgument(f"{url!r} is no URL: {error}") from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise BadArgument(f"{shown(url)}: only https is taken, and http from this machine itself")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """A URL as it may be printed and kept: without user name, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _hub(kind: Literal["modelscope", "hf"], text: str) -> Hub:
    repository, separator, revision = text.partition("@")
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise BadArgument(f"{kind}:{text} is no repository: {kind}:org/name[@revision] is")
    if separator and not _REVISION.fullmatch(revision):
        raise BadArgument(f"{revision!r} is no revision: a branch, a tag or a commit is")
    return Hub(kind, repository, revision or None)
