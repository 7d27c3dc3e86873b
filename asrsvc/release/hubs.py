"""What a repository of a hub holds: ModelScope and Hugging Face, each with its own kind of list.

ModelScope cuts a list at 3000 entries without saying so. Hugging Face pages it (`Link: rel="next"`),
and gives git's digest for small files, SHA-256 for large ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from asrsvc.errors import DownloadFailed, SourceError
from asrsvc.release.fetch import Fetcher
from asrsvc.release.manifest import MODEL_FILE, REQUIRED_FILES, is_model_name, vocabulary_names
from asrsvc.release.partial import Wanted
from asrsvc.release.progress import Limits
from asrsvc.release.sources import Endpoints, Hub

_MODELSCOPE_CUTS_AT: Final = 3000
_MOST_SAID: Final = 300
"""characters of a hub's own words that are passed on"""
_DEFAULT_REVISIONS: Final = {"modelscope": "master", "hf": "main"}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds that a model may need."""

    hub: Hub
    """with the revision that was looked at: the commit, where the hub says it"""
    files: Mapping[str, Wanted]
    """by file name; of its first level, all that may belong to a model"""


async def look(fetcher: Fetcher, hub: Hub, endpoints: Endpoints, limits: Limits) -> Listing:
    """List the files of a repository.

    Raises:
        SourceError: there is no such repository or revision.
        DownloadFailed: the hub fails, or its list cannot be understood.
    """
    revision = hub.revision or _DEFAULT_REVISIONS[hub.kind]
    asked = replace(hub, revision=revision)
    try:
        if hub.kind == "modelscope":
            return await _look_modelscope(fetcher, asked, endpoints.modelscope)
        return await _look_hf(fetcher, asked, endpoints.hf, limits)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = repr(error)[:_MOST_SAID]
        raise DownloadFailed(f"{hub}: its list of files cannot be understood ({said})") from error


def file_url(hub: Hub, endpoints: Endpoints, path: str) -> str:
    """Where a file of a repository is.

    Args:
        hub: with its revision.
        endpoints: of the hubs.
        path: inside the repository.
    """
    if hub.kind == "modelscope":
        query = urlencode({"Revision": hub.revision, "FilePath": path})
        return f"{endpoints.modelscope}/api/v1/models/{hub.repository}/repo?{query}"
    return f"{endpoints.hf}/{hub.repository}/resolve/{quote(hub.revision or '', safe='')}/{quote(path)}"


async def _look_modelscope(fetcher: Fetcher, hub: Hub, endpoint: str) -> Listing:
    found: dict[str, Wanted] = {}
    for query in ({"Revision": hub.revision, "Recursive": "True"}, {"Revision": hub.revision}):
        url = f"{endpoint}/api/v1/models/{hub.repository}/repo/files?{urlencode(query)}"
        content, _ = await fetcher.json(url)
        if content.get("Success") is False:
            said = str(content.get("Message") or content.get("Code"))
            raise SourceError(f"{hub} cannot be listed: {said[:_MOST_SAID]}")
        entries = content["Data"]["Files"] or []
        for name, entry in _of_model(entries, "Path"):
            if entry.get("Type") != "tree":
                target = file_url(hub, Endpoints(modelscope=endpoint), name)
                found[name] = Wanted(name, target, _size(entry["Size"]), _digest(entry.get("Sha256"), 64))
        whole = set(REQUIRED_FILES) <= set(found) and vocabulary_names(found)
        if whole or len(entries) < _MODELSCOPE_CUTS_AT:
            break  # else once more, without its folders
    return Listing(hub, found)


async def _look_hf(fetcher: Fetcher, hub: Hub, endpoint: str, limits: Limits) -> Listing:
    endpoints = Endpoints(hf=endpoint)
    header = await fetcher.head(file_url(hub, endpoints, MODEL_FILE))
    commit = header.get("x-repo-commit", "")
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        hub = replace(hub, revision=commit)  # a branch may move meanwhile
    found: dict[str, Wanted] = {}
    tree = f"{endpoint}/api/models/{hub.repository}/tree/{quote(hub.revision or '', safe='')}"
    url: str | None = f"{tree}?recursive=true"
    for _ in range(limits.list_pages):
        if url is None:
            break
        entries, answer = await fetcher.json(url)
        for name, entry in _of_model(entries, "path"):
            if entry.get("type") != "file":
                continue
            large = entry.get("lfs") or {}
            found[name] = Wanted(
                name,
                file_url(hub, endpoints, name),
                _size(entry["size"]),
                sha256=_digest(large.get("oid"), 64),
                git_sha1=None if large else _digest(entry.get("oid"), 40),
            )
        url = _next_page(url, answer.get("link", ""))
    else:
        if url is not None:
            raise SourceError(f"{hub} has a list of more than {limits.list_pages} pages")
    said = header.get("x-linked-etag", "").strip('"').lower()
    model = found.get(MODEL_FILE)
    if model is not None and model.sha256 is None and re.fullmatch(r"[0-9a-f]{64}", said):
        found[MODEL_FILE] = replace(model, sha256=said, git_sha1=None)
    return Listing(hub, found)


def _of_model(entries: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The entries whose file may belong to a model, each with its name."""
    if not isinstance(entries, list):
        raise TypeError("no list of files")
    for entry in entries:
        name = entry[key]
        if isinstance(name, str) and "/" not in name and is_model_name(name):
            yield name, entry


def _size(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise ValueError(f"{found!r} is no size")
    return found


def _digest(found: Any, digits: int) -> str | None:
    if not found:
        return None
    text = str(found).lower()
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
        raise ValueError(f"{found!r} is no digest")
    return text


def _next_page(url: str, link: str) -> str | None:
    """The address of the next page; whatever host it names, of the same one: a mirror's list stays there."""
    match = re.search(r'<([^<>]{1,2000})>\s*;\s*rel="next"', link)
    if match is None:
        return None
    following = urlsplit(urljoin(url, match[1]))
    return urlsplit(url)._replace(path=following.path, query=following.query).geturl()
