"""Getting a version from a hub that fails in every way that we could think of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, Hub, model_files, packed, raw_server, running_hub, size_of, wait_until
from waiting import PATIENCE

from asrsvc.errors import (
    AsrError,
    BadArgument,
    DownloadFailed,
    SourceError,
    StoreError,
    StoreFull,
    WrongDigest,
)
from asrsvc.release import partial, pinned
from asrsvc.release.manifest import FileRecord, read_manifest
from asrsvc.release.progress import Limits, Progress
from asrsvc.release.pull import pull
from asrsvc.release.sources import Endpoints
from asrsvc.release.sources import Hub as Repository
from asrsvc.release.store import Store, Version
from asrsvc.release.verify import verify

LIMITS = Limits(backoff_seconds=0.01, idle_seconds=PATIENCE, seconds=2 * PATIENCE, tries=3)
FILES = model_files()
WEIGHTS = FILES["model_quant.onnx"]
SIZE = len(WEIGHTS)
SOURCES = ("modelscope:org/model@v1", "hf:org/model@v1")
LARGE = "storage /blob/org/model/model_quant.onnx"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        found.repositories["org/model"] = {**FILES, "README.md": b"card", "deep/am.mvn": b"another"}
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def get(store: Store, hub: Hub | None, source: str, **more: Any) -> Version:
    url = hub.url if hub else "http://127.0.0.1:1"
    more.setdefault("limits", LIMITS)
    return pull(store, source, endpoints=Endpoints(modelscope=url, hf=url), **more)


def is_whole(store: Store, version: Version, files: dict[str, bytes]) -> None:
    assert verify(store, version) == []
    found = {path.name: path.read_bytes() for path in version.path.iterdir()}
    assert found.pop("manifest.json")
    assert found == files
    assert not (store.root / "staging").exists()


def kept_bytes(store: Store) -> int:
    return sum(size_of(path) for path in store.root.glob("staging/*/parts/*.part"))


def nothing_is_visible(store: Store) -> None:
    assert store.versions() == []


# What goes well.


@pytest.mark.parametrize("source", SOURCES)
def test_a_repository_becomes_a_version(store: Store, hub: Hub, source: str) -> None:
    version = get(store, hub, source)
    is_whole(store, version, FILES)
    assert version.id == f"model-{sha256(WEIGHTS).hexdigest()[:8]}"
    manifest = read_manifest(version.path)
    assert manifest is not None
    assert manifest.origin.source == source.removesuffix("@v1")
    assert manifest.origin.revision == (COMMIT if source.startswith("hf") else "v1")
    assert manifest.files["am.mvn"] == FileRecord(len(FILES["am.mvn"]), sha256(FILES["am.mvn"]).hexdigest())
    assert manifest.sealed
    assert len(hub.asked("model_quant.onnx", storage=True)) == 1
    assert not hub.asked("README.md")


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_store_has_is_not_downloaded_again(store: Store, hub: Hub, source: str) -> None:
    first = get(store, hub, source)
    assert get(store, hub, source) == first
    assert len(hub.asked("model_quant.onnx", storage=True)) == 1
    assert not (store.root / "staging").exists()


def test_the_name_is_the_operators(store: Store, hub: Hub) -> None:
    assert get(store, hub, SOURCES[0], name="mine-1.2").id.startswith("mine-1.2-")


def test_without_a_revision_a_branch_is_taken(store: Store, hub: Hub) -> None:
    get(store, hub, "modelscope:org/model")
    assert hub.asked("Revision=master")
    get(store, hub, "hf:org/model", name="other")
    assert hub.asked("/resolve/main/", storage=False)  # which commit is that?
    assert hub.asked(f"/resolve/{COMMIT}/model_quant.onnx")
    assert not hub.asked("/resolve/main/am.mvn")


def test_a_list_that_was_cut_is_asked_for_without_folders(store: Store, hub: Hub) -> None:
    hub.repositories["org/model"] |= {f"a/{n:04}": b"" for n in range(3001)}
    is_whole(store, get(store, hub, SOURCES[0]), FILES)
    assert [("Recursive" in r.path) for r in hub.asked("repo/files")] == [True, False]


def test_a_hub_that_lists_no_digests_is_believed_what_its_links_say(store: Store, hub: Hub) -> None:
    hub.without_digests = True
    is_whole(store, get(store, hub, SOURCES[0]), FILES)


@pytest.mark.parametrize("source", SOURCES)
def test_progress_tells_each_file(store: Store, hub: Hub, source: str) -> None:
    seen: list[Progress] = []
    get(store, hub, source, progress=seen.append)
    assert [p.file for p in seen if p.step == "done"][-1] == "model_quant.onnx"
    assert {p.file for p in seen if p.step == "done"} == set(FILES)
    assert Progress("download", "model_quant.onnx", SIZE, SIZE) in seen


# What is cut.


@pytest.mark.parametrize("quiet", [False, True], ids=["length said", "length not said"])
@pytest.mark.parametrize("at", [0, 1, 7, SIZE // 2, SIZE - 1, SIZE])
@pytest.mark.parametrize("source", SOURCES)
def test_a_download_cut_at_any_byte_goes_on_there(
    store: Store, hub: Hub, source: str, at: int, quiet: bool
) -> None:
    hub.fail(LARGE, cut=at, times=1, no_length=quiet)
    is_whole(store, get(store, hub, source), FILES)
    ranges = [request.range for request in hub.asked("model_quant.onnx", storage=True)]
    assert ranges == ([None] if at == SIZE else [None, f"bytes={at}-" if at else None])


@pytest.mark.parametrize("name", ["am.mvn", "config.yaml", "tokens.json"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_small_file_that_is_cut_goes_on_too(store: Store, hub: Hub, source: str, name: str) -> None:
    for at in (0, 1, len(FILES[name]) - 1):
        hub.fail(name, cut=at, times=1)
    is_whole(store, get(store, hub, source), FILES)


@pytest.mark.parametrize("at", [1, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("source", SOURCES)
def test_the_next_pull_goes_on_where_the_last_one_gave_up(
    store: Store, hub: Hub, source: str, at: int
) -> None:
    hub.fail(LARGE, cut=at, times=1)
    hub.fail(LARGE, reset=True)
    with pytest.raises(DownloadFailed, match="model_quant.onnx.*tried 3 times"):
        get(store, hub, source)
    nothing_is_visible(store)
    assert kept_bytes(store) == at
    hub.faults.clear()
    hub.log.clear()
    is_whole(store, get(store, hub, source, name="other"), FILES)
    (request,) = hub.asked("", storage=True)
    assert request.range == f"bytes={at}-"
    assert request.if_range
    assert len(hub.asked("am.mvn")) == 0  # that was whole


def test_a_list_that_is_cut_is_asked_for_again(store: Store, hub: Hub) -> None:
    hub.fail("repo/files", cut=10, times=2)
    is_whole(store, get(store, hub, SOURCES[0]), FILES)


def test_progress_counts_the_tries_anew(store: Store, hub: Hub) -> None:
    big = model_files("big", size=6 << 20)
    hub.repositories["org/model"] = big
    for _ in range(4):  # more than the tries, but each brings more than 1 MiB
        hub.fail(LARGE, cut=(5 << 20) // 4 + 1000, times=1)
    is_whole(store, get(store, hub, SOURCES[0]), big)


def test_a_server_without_ranges_is_asked_for_all(store: Store, hub: Hub) -> None:
    hub.fail(LARGE, cut=100, times=1)
    hub.fail(LARGE, no_range=True)
    is_whole(store, get(store, hub, SOURCES[0]), FILES)


@pytest.mark.parametrize("weak", [False, True])
def test_a_file_that_changed_meanwhile_is_not_mixed(store: Store, hub: Hub, weak: bool) -> None:
    hub.weak_etags = weak
    hub.fail(LARGE, cut=SIZE // 2, times=1)
    hub.fail(LARGE, reset=True)
    with pytest.raises(DownloadFailed):
        get(store, hub, SOURCES[0])
    hub.faults.clear()
    changed = model_files("changed")
    hub.repositories["org/model"] = changed
    is_whole(store, get(store, hub, SOURCES[0]), changed)


def test_half_a_file_that_a_power_cut_has_damaged_is_fetched_anew(store: Store, hub: Hub) -> None:
    hub.fail(LARGE, cut=SIZE // 2, times=1)
    hub.fail(LARGE, reset=True)
    with pytest.raises(DownloadFailed):
        get(store, hub, SOURCES[0])
    (part,) = store.root.glob("staging/*/parts/*.part")
    part.write_bytes(bytes(SIZE // 2))
    hub.faults.clear()
    is_whole(store, get(store, hub, SOURCES[0]), FILES)
    assert [r.range for r in hub.asked("onnx", storage=True)][-2:] == [f"bytes={SIZE // 2}-", None]


# What fails, and what is said of it.

LOOP = {"Location": "/again"}
FAILURES: dict[str, tuple[str, dict[str, Any], type[AsrError], str]] = {
    "no such repository": ("repo/files", {"status": 404}, SourceError, "404: it does not exist"),
    "not public": ("repo/files", {"status": 403}, SourceError, "403"),
    "no such file": ("storage", {"status": 404}, SourceError, "model_quant.onnx answers 404"),
    "server error": ("repo/files", {"status": 500}, DownloadFailed, "answers 500; tried 3 times"),
    "storage error": ("storage", {"status": 503}, DownloadFailed, "answers 503; tried 3 times"),
    "too many": ("am.mvn", {"status": 429}, DownloadFailed, "answers 429; tried 3 times"),
    "teapot": ("am.mvn", {"status": 418}, DownloadFailed, "answers 418"),
    "nothing in particular": ("am.mvn", {"status": 204}, DownloadFailed, "answers 204"),
    "redirect loop": ("again", {"status": 302, "header": LOOP}, DownloadFailed, "redirects more than 5"),
    "list is a page": (
        "repo/files",
        {"body": b"<html>Sign in</html>", "kind": "text/html"},
        DownloadFailed,
        "is no list of files .20 bytes, text/html.: a login",
    ),
    "list is nothing": ("repo/files", {"body": b""}, DownloadFailed, "is no list of files .0 bytes"),
    "list is half": ("repo/files", {"body": b'{"Data":'}, DownloadFailed, "is no list of files"),
    "list is deep": ("repo/files", {"body": b"[" * 200_000}, DownloadFailed, "is no list of files"),
    "list is a number": ("repo/files", {"body": b"7"}, DownloadFailed, "cannot be understood"),
    "list is empty": (
        "repo/files",
        {"body": b'{"Data": {"Files": []}}'},
        SourceError,
        r"org/model@v1 holds no whole model: model_quant.onnx, .*, \*.bpe.model missing",
    ),
    "list says no": ("repo/files", {"body": b'{"Success": false, "Message": "gone"}'}, SourceError, "gone"),
    "list has odd sizes": (
        "repo/files",
        {"body": b'{"Data": {"Files": [{"Path": "am.mvn", "Size": -1}]}}'},
        DownloadFailed,
        "-1 is no size",
    ),
    "list has odd digests": (
        "repo/files",
        {"body": b'{"Data": {"Files": [{"Path": "am.mvn", "Size": 1, "Sha256": "../x"}]}}'},
        DownloadFailed,
        "is no digest",
    ),
    "list is endless": ("repo/files", {"body": b" " * 70_000}, DownloadFailed, "more than 65536 bytes"),
    "file is a page": (
        "storage",
        {"body": b"<!DOCTYPE html>", "kind": "text/html; charset=utf-8"},
        DownloadFailed,
        "is a web page, no file",
    ),
    "file is nothing": ("storage", {"body": b""}, DownloadFailed, "ended after 0 of 20000 bytes; tried 3"),
    "file is half": ("storage", {"body": WEIGHTS[:100]}, DownloadFailed, "ended after 100 of 20000 bytes"),
    "file is wrong": ("storage", {"body": WEIGHTS[::-1]}, WrongDigest, "model_quant.onnx has the SHA-256"),
    "file is longer": ("storage", {"body": WEIGHTS + b"x"}, WrongDigest, "has 20001 bytes, not 20000"),
    "file goes on": (
        "storage",
        {"body": WEIGHTS + b"x" * 9, "no_length": True},
        WrongDigest,
        "more than the 20000 bytes",
    ),
    "another range": (
        "storage",
        {"body": b"x", "status": 206, "header": {"Content-Range": "bytes 5-5/20000"}},
        DownloadFailed,
        "another range",
    ),
    "away from https": (
        "storage",
        {"status": 302, "header": {"Location": "http://example.com/x"}},
        DownloadFailed,
        "redirects to where it must not: http://example.com/x: only https",
    ),
    "to a file of this machine": (
        "storage",
        {"status": 302, "header": {"Location": "file:///etc/passwd"}},
        DownloadFailed,
        "redirects to where it must not",
    ),
    "to nowhere": ("storage", {"status": 302, "header": {"Location": "http://[::1"}}, DownloadFailed, "URL"),
    "closed": ("storage", {"reset": True}, DownloadFailed, "tried 3 times"),
    "silent": ("storage", {"silent": True}, DownloadFailed, "no byte for 0.3 s; tried 3 times"),
    "trickle": ("storage", {"trickle": 0.02}, DownloadFailed, "did not end within 3 s"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_and_leaves_nothing_half_done(store: Store, hub: Hub, name: str) -> None:
    where, how, expected, message = FAILURES[name]
    if where == "again":
        hub.fail("storage", **how)
    hub.fail(where, **how)
    idle = 0.3 if name == "silent" else LIMITS.idle_seconds
    whole = 3 if name == "trickle" else LIMITS.seconds
    quick = replace(LIMITS, idle_seconds=idle, seconds=whole, list_bytes=1 << 16)
    if name == "list is deep":
        quick = replace(quick, list_bytes=1 << 20)
    with pytest.raises(expected, match=message) as caught:
        get(store, hub, SOURCES[0], limits=quick)
    assert type(caught.value) is expected
    assert "secret" not in str(caught.value)
    nothing_is_visible(store)
    if expected is not DownloadFailed:
        assert not (store.root / "staging").exists()
    hub.faults.clear()
    is_whole(store, get(store, hub, SOURCES[0]), FILES)


HF_FAILURES: dict[str, tuple[str, dict[str, Any], type[AsrError], str]] = {
    "no such repository": ("/resolve/v1/", {"status": 401}, SourceError, "401: it does not exist"),
    "no such revision": ("/tree/", {"status": 404}, SourceError, "404"),
    "list is a page": ("/tree/", {"body": b"<html>", "kind": "text/html"}, DownloadFailed, "no list"),
    "list is an object": ("/tree/", {"body": b"{}"}, DownloadFailed, "no list of files"),
    "list has odd entries": ("/tree/", {"body": b"[7]"}, DownloadFailed, "cannot be understood"),
    "list without end": (
        "/tree/",
        {"body": b"[]", "header": {"Link": '<?cursor=1>; rel="next"'}},
        SourceError,
        "more than 20 pages",
    ),
    "file is wrong": ("/am.mvn", {"body": b"mvx "}, WrongDigest, "am.mvn is not the file that git calls"),
    "server error": ("/resolve/v1/", {"status": 502}, DownloadFailed, "502; tried 3 times"),
}


@pytest.mark.parametrize("name", HF_FAILURES)
def test_a_failure_of_hugging_face_too(store: Store, hub: Hub, name: str) -> None:
    where, how, expected, message = HF_FAILURES[name]
    hub.fail(where, **how)
    with pytest.raises(expected, match=message):
        get(store, hub, SOURCES[1])
    nothing_is_visible(store)
    hub.faults.clear()
    is_whole(store, get(store, hub, SOURCES[1]), FILES)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["repo/files", "am.mvn", "storage"])
def test_a_failure_that_passes_is_waited_for(store: Store, hub: Hub, where: str, status: int) -> None:
    hub.fail(where, status=status, header={"Retry-After": "0"}, times=2)
    is_whole(store, get(store, hub, SOURCES[0]), FILES)


def test_a_hub_that_asks_for_a_pause_gets_it_within_reason(store: Store, hub: Hub) -> None:
    hub.fail("am.mvn", status=429, header={"Retry-After": "1"}, times=1)
    hub.fail("am.mvn", status=429, header={"Retry-After": "99999"}, times=1)
    began = time.monotonic()
    get(store, hub, SOURCES[0], limits=replace(LIMITS, longest_backoff_seconds=1.5))
    assert 2.5 <= time.monotonic() - began < PATIENCE


def test_a_header_that_trickles_ends_at_the_deadline(store: Store) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(2000):
            connection.sendall(b"H")
            time.sleep(0.01)

    with raw_server(trickle) as url, pytest.raises(DownloadFailed, match="within 1 s"):
        pull(store, SOURCES[0], endpoints=Endpoints(modelscope=url), limits=replace(LIMITS, seconds=1))
    assert not (store.root / "staging").exists()


@pytest.mark.parametrize("answer", [b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 999 what\r\n\r\n"])
def test_what_is_no_answer_is_told(store: Store, answer: bytes) -> None:
    with raw_server(lambda c: c.recv(4096) and c.sendall(answer)) as url, pytest.raises(DownloadFailed):  # type: ignore[func-returns-value]
        pull(store, SOURCES[0], endpoints=Endpoints(modelscope=url), limits=LIMITS)


def test_a_hub_that_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(DownloadFailed, match="127.0.0.1:1/api.*tried 3 times"):
        get(store, None, SOURCES[0])
    assert not (store.root / "staging").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_a_hub_that_contradicts_itself_is_told_before_the_download(
    store: Store, hub: Hub, source: str
) -> None:
    given = {"model_quant.onnx": "0" * 64}
    with pytest.raises(WrongDigest, match="model_quant.onnx has the SHA-256 .* at the hub, not 000"):
        get(store, hub, source, sha256=given)
    assert not hub.asked("", storage=True)
    assert not (store.root / "staging").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_that_is_not_what_the_list_says_is_refused(store: Store, hub: Hub, source: str) -> None:
    hub.listed["model_quant.onnx"] = WEIGHTS[::-1]
    with pytest.raises(WrongDigest, match="model_quant.onnx has the SHA-256"):
        get(store, hub, source)
    nothing_is_visible(store)
    assert not (store.root / "staging").exists()


def test_a_model_of_too_many_bytes_is_refused_before_the_download(store: Store, hub: Hub) -> None:
    with pytest.raises(SourceError, match="10000 are the limit"):
        get(store, hub, SOURCES[0], limits=replace(LIMITS, total_bytes=10_000))
    assert not hub.asked("", storage=True)


# The published model.


@pytest.fixture
def published(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The hub has small files in place of the published model's, without the vocabulary."""
    files = model_files("published")
    files[pinned.VOCABULARY_FILE] = files.pop("some.bpe.model")
    records = {name: FileRecord(len(c), sha256(c).hexdigest()) for name, c in files.items()}
    monkeypatch.setattr(pinned, "FILES", records)
    exported = {name: c for name, c in files.items() if name != pinned.VOCABULARY_FILE}
    for repository in ("iic/SenseVoiceSmall-onnx", "DennisHuang648/SenseVoiceSmall-onnx", "org/copy"):
        hub.repositories[repository] = dict(exported)
    hub.repositories["iic/SenseVoiceSmall"] = {
        "model.pt": b"weights of another kind",
        pinned.VOCABULARY_FILE: files[pinned.VOCABULARY_FILE],
    }
    return files


def test_the_pins_are_those_of_the_published_model() -> None:
    assert pinned.FILES["model_quant.onnx"].sha256.startswith("21dc965f")
    assert sum(record.size for record in pinned.FILES.values()) == 241_958_733
    for record in pinned.FILES.values():
        assert len(bytes.fromhex(record.sha256)) == 32
    place = pinned.pinned_place(Repository("modelscope", "iic/SenseVoiceSmall-onnx", None))
    assert place is not None
    assert place.revision == "4e95991ddb34c70e9b94f026d62ac82a9d941ae1"


def test_the_real_hubs_are_the_defaults() -> None:
    assert Endpoints() == Endpoints("https://www.modelscope.cn", "https://huggingface.co")


@pytest.mark.parametrize(
    "source",
    ["modelscope:iic/SenseVoiceSmall-onnx", "hf:DennisHuang648/SenseVoiceSmall-onnx", "modelscope:org/copy"],
)
def test_the_vocabulary_comes_from_where_it_is(
    store: Store, hub: Hub, published: dict[str, bytes], source: str
) -> None:
    is_whole(store, get(store, hub, source), published)
    (request,) = hub.asked("/iic/SenseVoiceSmall/repo?")
    assert f"FilePath={pinned.VOCABULARY_FILE}" in request.path


def test_the_published_repository_is_asked_for_at_the_pinned_revision(
    store: Store, hub: Hub, published: dict[str, bytes]
) -> None:
    version = get(store, hub, "modelscope:iic/SenseVoiceSmall-onnx")
    assert published
    manifest = read_manifest(version.path)
    assert manifest is not None
    assert manifest.origin.revision == "4e95991ddb34c70e9b94f026d62ac82a9d941ae1"
    assert all("Revision=4e95991d" in r.path for r in hub.asked("/iic/SenseVoiceSmall-onnx/", storage=False))


def test_a_published_file_that_is_another_one_is_refused(
    store: Store, hub: Hub, published: dict[str, bytes]
) -> None:
    files = hub.repositories["iic/SenseVoiceSmall-onnx"]
    for changed in (published["am.mvn"][::-1], published["am.mvn"] + b"x"):
        files["am.mvn"] = changed
        with pytest.raises(WrongDigest, match="am.mvn has .* at the hub, not"):
            get(store, hub, "modelscope:iic/SenseVoiceSmall-onnx")
    with pytest.raises(WrongDigest):
        hub.repositories["iic/SenseVoiceSmall"][pinned.VOCABULARY_FILE] += b"x"
        get(store, hub, "modelscope:org/copy")
    nothing_is_visible(store)


def test_another_model_without_a_vocabulary_is_refused(store: Store, hub: Hub) -> None:
    del hub.repositories["org/model"]["some.bpe.model"]
    with pytest.raises(SourceError, match=r"holds no whole model: \*.bpe.model missing"):
        get(store, hub, SOURCES[0])


def test_a_folder_or_an_archive_of_the_published_model_gets_its_vocabulary_too(
    store: Store, hub: Hub, published: dict[str, bytes], tmp_path: Path
) -> None:
    exported = hub.repositories["org/copy"]
    is_whole(store, get(store, hub, str(folder_of(tmp_path / "clone", exported))), published)
    hub.plain["/m.tar.gz"] = packed(exported)
    is_whole(store, get(store, hub, f"{hub.url}/m.tar.gz"), published)


# Archives.


def test_an_archive_becomes_a_version(store: Store, hub: Hub) -> None:
    hub.plain["/models/nano-7.tar.gz"] = packed({f"nano-7/{name}": c for name, c in FILES.items()})
    version = get(store, hub, f"{hub.url}/models/nano-7.tar.gz?token=secret#part")
    is_whole(store, version, FILES)
    assert version.id.startswith("nano-7-")
    manifest = read_manifest(version.path)
    assert manifest is not None
    assert manifest.origin.source == f"{hub.url}/models/nano-7.tar.gz"


@pytest.mark.parametrize("at", [1, 1000, "all but one"])
def test_an_archive_that_was_cut_goes_on_only_if_it_is_the_same(
    store: Store, hub: Hub, at: int | str
) -> None:
    content = packed(FILES)
    cut = len(content) - 1 if isinstance(at, str) else at
    hub.plain["/m.tar.gz"] = content
    hub.fail("m.tar.gz", cut=cut, times=1)
    hub.fail("m.tar.gz", reset=True)
    source = f"{hub.url}/m.tar.gz"
    with pytest.raises(DownloadFailed):
        get(store, hub, source)
    assert kept_bytes(store) == cut
    hub.faults.clear()
    hub.log.clear()
    is_whole(store, get(store, hub, source), FILES)
    assert [(r.range, r.status) for r in hub.log] == [(f"bytes={cut}-", 206)]


def test_an_archive_that_changed_meanwhile_is_not_mixed(store: Store, hub: Hub) -> None:
    source = f"{hub.url}/m.tar.gz"
    hub.plain["/m.tar.gz"] = packed(FILES)
    hub.fail("m.tar.gz", cut=500, times=1)
    hub.fail("m.tar.gz", reset=True)
    with pytest.raises(DownloadFailed):
        get(store, hub, source)
    hub.faults.clear()
    changed = model_files("changed")
    hub.plain["/m.tar.gz"] = packed(changed)
    hub.log.clear()
    is_whole(store, get(store, hub, source), changed)
    assert [(r.range, r.status) for r in hub.log] == [("bytes=500-", 200)]


def test_an_archive_that_nobody_can_tell_from_another_is_fetched_from_the_start(
    store: Store, hub: Hub
) -> None:
    hub.weak_etags = True
    hub.plain["/m.tar.gz"] = packed(FILES)
    hub.fail("m.tar.gz", cut=500, times=1)
    is_whole(store, get(store, hub, f"{hub.url}/m.tar.gz"), FILES)
    assert [r.range for r in hub.log] == [None, None]


def test_the_digest_of_an_archive_and_of_its_files(store: Store, hub: Hub) -> None:
    content = packed(FILES)
    hub.plain["/m.tar.gz"] = content
    source = f"{hub.url}/m.tar.gz"
    good = {"m.tar.gz": sha256(content).hexdigest(), "am.mvn": sha256(FILES["am.mvn"]).hexdigest().upper()}
    for name in good:
        with pytest.raises(WrongDigest, match=name):
            get(store, hub, source, sha256={**good, name: "0" * 64})
        assert not (store.root / "staging").exists()
    with pytest.raises(BadArgument, match="given for 'other', which"):
        get(store, hub, source, sha256={**good, "other": "0" * 64})
    is_whole(store, get(store, hub, source, sha256=good), FILES)


# Folders.


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def test_a_folder_becomes_a_version(store: Store, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "v 1", {**FILES, "README.md": b"", "LICENSE": b"MIT"})
    version = get(store, None, str(folder))
    is_whole(store, version, {**FILES, "LICENSE": b"MIT"})
    assert version.id.startswith("v-1-")


def test_links_inside_a_folder_are_followed_and_others_refused(store: Store, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", FILES)
    blobs = folder / "blobs"
    blobs.mkdir()
    (folder / "am.mvn").rename(blobs / "1")
    (folder / "am.mvn").symlink_to("blobs/1")
    is_whole(store, get(store, None, str(folder)), FILES)
    (tmp_path / "outside").write_bytes(b"x")
    for target in ("../outside", str(tmp_path / "outside"), "/etc/hostname", "am.mvn", "/dev/zero", "gone"):
        (folder / "am.mvn").unlink()
        (folder / "am.mvn").symlink_to(target)
        with pytest.raises(AsrError, match="am.mvn") as caught:
            get(store, None, str(folder), name="other")
        assert isinstance(caught.value, SourceError | StoreError)
    assert len(store.versions()) == 1
    assert not (store.root / "staging").exists()


def test_what_is_no_file_in_a_folder_is_refused(store: Store, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", FILES)
    (folder / "am.mvn").unlink()
    os.mkfifo(folder / "am.mvn")
    with pytest.raises(SourceError, match="am.mvn is no file that can be read"):
        get(store, None, str(folder))


def test_a_clone_without_its_large_files_is_told(store: Store, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"
    folder = folder_of(tmp_path / "m", {**FILES, "model_quant.onnx": pointer})
    with pytest.raises(SourceError, match="git lfs pull"):
        get(store, None, str(folder))
    nothing_is_visible(store)


@pytest.mark.parametrize("missing", sorted(FILES))
def test_a_missing_file_is_named(store: Store, tmp_path: Path, missing: str) -> None:
    files = {name: content for name, content in FILES.items() if name != missing}
    folder = folder_of(tmp_path / "m", files)
    with pytest.raises(
        SourceError, match=f"m holds no whole model: .*{missing.removeprefix('some')} missing"
    ):
        get(store, None, str(folder))
    assert not (store.root / "staging").exists()


def test_the_same_name_with_other_files_is_refused(store: Store, tmp_path: Path) -> None:
    get(store, None, str(folder_of(tmp_path / "a" / "m", FILES)))
    folder = folder_of(tmp_path / "b" / "m", {**FILES, "am.mvn": b"other"})
    with pytest.raises(StoreError, match="holds other files of that name: choose another name"):
        get(store, None, str(folder))


def test_a_version_that_was_damaged_is_not_taken_for_whole(store: Store, hub: Hub, tmp_path: Path) -> None:
    for source in (SOURCES[0], str(folder_of(tmp_path / "model", FILES))):
        version = get(store, hub, source)
        (version.path / "am.mvn").unlink()
        (version.path / "am.mvn").write_bytes(b"mvx ")
        with pytest.raises(StoreError, match="am.mvn is not the file that was stored"):
            get(store, hub, source)
        (version.path / "am.mvn").write_bytes(FILES["am.mvn"])


# What cannot be meant.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "is no source"),
        ("org/name", "no folder that can be read; a source is modelscope:org/name"),
        ("/etc/hostname", "is no folder"),
        ("a\0b", "is no source"),
        ("modelscope:", "is no repository"),
        ("modelscope:name", "is no repository"),
        ("modelscope:a/b/c", "is no repository"),
        ("modelscope:../b", "is no repository"),
        ("modelscope:a/..", "is no repository"),
        ("hf:a/b@", "is no revision"),
        ("hf:a/b@../../x", "is no revision"),
        ("hf:a/b@x y", "is no revision"),
        ("hf:a b/c", "is no repository"),
        ("http://example.com/m.tar.gz", "only https is taken"),
        ("http://127.0.0.1.example.com/m.tar.gz", "only https is taken"),
        ("ftp://127.0.0.1/m.tar.gz", "only https is taken"),
        ("file:///m.tar.gz", "only https is taken"),
        ("https:///m.tar.gz", "only https is taken"),
        ("https://example.com:99999/m.tar.gz", "is no URL"),
        ("https://[::1/m.tar.gz", "is no URL"),
        ("https://example.com/m.zip", "does not end in .tar.gz"),
        ("https://example.com/.tar.gz", "does not end in .tar.gz"),
        ("https://user:pass@example.com/m?x=secret", "https://example.com/m does not end in"),
    ],
)
def test_a_source_of_no_possible_form_is_refused(store: Store, source: str, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        get(store, None, source)
    assert not store.root.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/a", ".hidden", "a b", "a\n", "ü", "x" * 65]
)
def test_a_name_of_no_possible_form_is_refused(store: Store, hub: Hub, name: str) -> None:
    with pytest.raises(BadArgument, match="cannot name a version"):
        get(store, hub, SOURCES[0], name=name)
    assert not store.root.exists()
    assert hub.log == []


@pytest.mark.parametrize("digest", ["", "12", "g" * 64, "0" * 65])
def test_a_digest_of_no_possible_form_is_refused(store: Store, hub: Hub, digest: str) -> None:
    with pytest.raises(BadArgument, match="is no SHA-256"):
        get(store, hub, SOURCES[0], sha256={"am.mvn": digest})
    with pytest.raises(BadArgument, match="given for 'other', which modelscope:org/model"):
        get(store, hub, SOURCES[0], sha256={"other": "0" * 64})


# The disk.


def test_space_is_asked_for_before_the_download(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = (1 << 20) + SIZE

    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(StoreFull, match="MiB more are needed"):
        get(store, hub, SOURCES[0])
    assert not hub.asked("am.mvn")
    assert not (store.root / "staging").exists()


FILL = """
mount -t tmpfs -o size=%(size)s tmpfs "$1"
shift
exec "$@"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="no name spaces for a small disk here",
)
def test_a_disk_that_fills_is_told_and_keeps_what_has_arrived(
    hub: Hub, tmp_path: Path, checkout: Path
) -> None:
    big = model_files("big", size=6 << 20)
    hub.plain["/m.tar.gz"] = packed(big)
    hub.fail("m.tar.gz", no_length=True)  # nobody says how much comes
    code = """
import sys
from pathlib import Path
from asrsvc.errors import StoreFull
from asrsvc.release.pull import pull
from asrsvc.release.store import Store
store = Store(Path(sys.argv[1]) / "store")
try:
    pull(store, sys.argv[2])
except StoreFull as error:
    print(error)
(part,) = store.root.glob("staging/*/parts/*.part")
print(part.stat().st_size, store.versions())
"""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["unshare", "-rm", "sh", "-euc", FILL % {"size": "4m"}, "sh", mount, sys.executable, "-c", code]
    done = subprocess.run(
        [*command, mount, f"{hub.url}/m.tar.gz"],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    message, kept = done.stdout.splitlines()
    assert "No space left on device" in message
    assert (3 << 20) < int(kept.split()[0]) <= (4 << 20)
    assert kept.endswith("[]")


@pytest.mark.parametrize("root", ["/proc/asrsvc", "/sys/asrsvc"])
def test_a_store_that_cannot_be_written_is_named(hub: Hub, root: str) -> None:
    with pytest.raises(StoreError, match=root):
        get(Store(Path(root)), hub, SOURCES[0])
    assert hub.log == []


def test_versions_on_another_file_system_are_told(store: Store, hub: Hub) -> None:
    other = Path("/dev/shm") / f"asrsvc-test-{os.getpid()}"
    if not other.parent.is_dir() or other.parent.stat().st_dev == store.root.parent.stat().st_dev:
        pytest.skip("no second file system here")
    other.mkdir()
    try:
        store.root.mkdir(parents=True)
        (store.root / "versions").symlink_to(other)
        with pytest.raises(StoreError, match="must be on the same file system"):
            get(store, hub, SOURCES[0])
    finally:
        other.rmdir()
    assert hub.log == []


# Others at work.


def test_a_pull_leaves_the_lock_to_others_while_it_downloads(store: Store, hub: Hub, tmp_path: Path) -> None:
    held = threading.Event()
    hub.fail(LARGE, cut=100, hold=held, times=1)
    results: list[Version] = []
    patient = replace(LIMITS, idle_seconds=600, seconds=600)
    thread = threading.Thread(
        target=lambda: results.append(get(Store(store.root), hub, SOURCES[0], limits=patient))
    )
    thread.start()
    wait_until(lambda: kept_bytes(store) == 100)
    with store.lock(timeout=PATIENCE):
        pass
    with pytest.raises(StoreError, match="the same source is being pulled already"):
        get(Store(store.root), hub, SOURCES[0])
    other = get(store, hub, str(folder_of(tmp_path / "other", FILES)))  # and its staging is left alone
    assert kept_bytes(store) == 100
    held.set()
    thread.join(PATIENCE)
    is_whole(store, results[0], FILES)
    assert {version.id for version in store.versions()} == {results[0].id, other.id}


def killed_pull(hub: Hub, store: Store, checkout: Path, source: str, at: int) -> None:
    """Run the tool, and kill it when so many bytes of the large file have arrived."""
    held = threading.Event()
    hub.fail(LARGE, cut=at, hold=held, times=1)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ASR_")}
    environ |= {
        "PYTHONPATH": str(checkout),
        "ASR_STORE": str(store.root),
        "ASR_RUNTIME_DIR": str(store.root.parent / "run"),
        "ASR_MODELSCOPE_ENDPOINT": hub.url,
        "HF_ENDPOINT": hub.url,
    }
    command = [sys.executable, "-P", "-m", "asrsvc.release.cli", "pull", source]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: hub.asked("onnx", storage=True) and kept_bytes(store) >= at)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        held.set()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", [1, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("source", SOURCES)
def test_a_pull_that_was_killed_is_gone_on_with(
    store: Store, hub: Hub, checkout: Path, source: str, at: int
) -> None:
    killed_pull(hub, store, checkout, source, at)
    nothing_is_visible(store)
    hub.log.clear()
    is_whole(store, get(store, hub, source), FILES)
    (request,) = hub.asked("model_quant.onnx", storage=True)
    assert (request.range, request.status) == (f"bytes={at}-", 206)


def test_what_a_killed_pull_left_is_removed_by_any_other_change(
    store: Store, hub: Hub, checkout: Path, tmp_path: Path
) -> None:
    killed_pull(hub, store, checkout, SOURCES[0], 100)
    assert kept_bytes(store) == 100
    is_whole(store, get(store, hub, str(folder_of(tmp_path / "other", FILES))), FILES)


STEPS = """
import sys, shutil
from pathlib import Path
from kill_points import failing_from, in_child, killed_at
from asrsvc.errors import StoreError
from asrsvc.release.progress import Limits
from asrsvc.release.pull import pull
from asrsvc.release.sources import Endpoints
from asrsvc.release.store import Store
from asrsvc.release.verify import verify

kind, root, source, url, stride = sys.argv[1:]
limits = Limits(backoff_seconds=0.01, idle_seconds=300, seconds=300)

def once(store):
    pull(store, source, endpoints=Endpoints(url, url), limits=limits)

for step in range(1, 400, int(stride)):
    store = Store(Path(root) / str(step))
    change = lambda: once(store)
    code = killed_at(step, change) if kind == "killed" else failing_from(step, change, StoreError)
    assert code in {0, 137 if kind == "killed" else 2}, (step, code)
    for version in store.versions():
        assert verify(store, version) == [], step
    assert in_child(change) == 0, step
    (version,) = store.versions()
    assert verify(store, version) == [], step
    left = {path.name for path in store.root.iterdir()}
    assert left == {"lock", "versions"}, (step, left)
    shutil.rmtree(store.root)
    if code == 0:
        break
print(step)
"""


@pytest.mark.parametrize("kind", ["killed", "full"])
@pytest.mark.parametrize("source", ["modelscope:org/model", "hf:org/model", "archive", "folder"])
def test_a_pull_that_ends_at_any_step_leaves_a_whole_version_or_none(
    hub: Hub, tmp_path: Path, checkout: Path, pytestconfig: pytest.Config, *, source: str, kind: str
) -> None:
    stride = "1" if pytestconfig.getoption("--soak") or source == "folder" else "5"
    hub.plain["/m.tar.gz"] = packed(FILES)
    places = {"archive": f"{hub.url}/m.tar.gz", "folder": str(folder_of(tmp_path / "m", FILES))}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, kind, tmp_path / "stores", places.get(source, source), hub.url, stride],
        env={**os.environ, "PYTHONPATH": f"{checkout}:{checkout / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 15
