"""Archives that mean harm, or are just broken."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub import model_files, packed

from asrsvc.errors import SourceError, StoreFull
from asrsvc.release import partial
from asrsvc.release.archive import unpack
from asrsvc.release.progress import Limits

FILES = model_files()
LIMITS = Limits(total_bytes=1 << 20, members=100)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def archive(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "m.tar.gz"
    path.write_bytes(content)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    return member


def made(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A .tar.gz of these entries and then those of a model."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
        for name, content in FILES.items():
            tar.addfile(entry(name, content=content), io.BytesIO(content))
    return gzip.compress(plain.getvalue())


def bomb(size: int) -> bytes:
    """An entry that is zeros for so many bytes, packed well."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as packer:
        packer.write(entry("am.mvn", size=size).tobuf())
        for _ in range(size >> 20):
            packer.write(bytes(1 << 20))
    return out.getvalue()


def long_header(size: int) -> bytes:
    """A pax header that says it has so many bytes, and has."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as packer:
        packer.write(entry("pax", tarfile.XHDTYPE, size=size).tobuf(tarfile.USTAR_FORMAT))
        for _ in range(size >> 20):
            packer.write(bytes(1 << 20))
    return out.getvalue()


def sparse(size: int) -> bytes:
    member = entry("am.mvn", content=b"x")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": f"{size - 1},1",
        "GNU.sparse.name": "am.mvn",
        "GNU.sparse.size": str(size),
    }
    return made((member, b"x"))


def many_headers(count: int, size: int) -> bytes:
    """Entries that nobody wants, each with a long header of its own."""
    comment = f"{size} comment=".encode()
    head = entry("pax", tarfile.XHDTYPE, size=size).tobuf(tarfile.USTAR_FORMAT)
    body = (comment + b"x" * (size - len(comment) - 1) + b"\n").ljust(-(-size // 512) * 512, b"\0")
    return gzip.compress(b"".join(head + body + entry(f"{n}").tobuf() for n in range(count)))


def many(count: int) -> bytes:
    """So many empty entries; built by repetition, as an attacker would."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packer:
        block = b"".join(entry(f"{n}").tobuf() for n in range(1000))
        for _ in range(count // 1000):
            packer.write(block)
    return out.getvalue()


WHOLE = packed(FILES)
LINK = {"linkname": "/etc/passwd"}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "up": (lambda: made((entry("../am.mvn", content=b"x"), b"x")), "'../am.mvn', which leads out"),
    "up inside": (lambda: made((entry("a/../../b", content=b"x"), b"x")), "which leads out of its folder"),
    "absolute": (
        lambda: made((entry("/etc/cron.d/x", content=b"x"), b"x")),
        "'/etc/cron.d/x', which leads out",
    ),
    "symbolic link": (lambda: made((entry("a", tarfile.SYMTYPE, **LINK), b"")), "'a', which is no file"),
    "hard link": (lambda: made((entry("a", tarfile.LNKTYPE, **LINK), b"")), "'a', which is no file"),
    "link in place of a file": (
        lambda: made((entry("am.mvn", tarfile.SYMTYPE, **LINK), b"")),
        "'am.mvn', which is no file",
    ),
    "character device": (
        lambda: made((entry("a", tarfile.CHRTYPE, devmajor=1, devminor=5), b"")),
        "a device",
    ),
    "block device": (lambda: made((entry("a", tarfile.BLKTYPE), b"")), "a device"),
    "fifo": (lambda: made((entry("a", tarfile.FIFOTYPE), b"")), "'a', which is no file"),
    "sparse giant": (lambda: sparse(1 << 50), "'am.mvn', a sparse file"),
    "giant that is not there": (
        lambda: gzip.compress(entry("am.mvn", size=1 << 50).tobuf(tarfile.GNU_FORMAT)),
        "more than 1048576 bytes|not enough|MiB more",
    ),
    "giant of another name": (
        lambda: gzip.compress(entry("x", size=1 << 50).tobuf(tarfile.GNU_FORMAT)),
        "holds more than 1048576 bytes",
    ),
    "bomb": (lambda: bomb(256 << 20), "1048576"),
    "bomb behind the model": (
        lambda: WHOLE + gzip.compress(bytes(64 << 20)),
        "holds more than 1048576 bytes",
    ),
    "long header": (lambda: long_header(64 << 20), "a header of 67108864 bytes"),
    "headers in front of headers": (
        lambda: gzip.compress(
            b"".join(
                entry("x", tarfile.XHDTYPE, size=512).tobuf(tarfile.USTAR_FORMAT)
                + b"20 path=aaaaaaaaaaa\n".ljust(512, b"\0")
                for _ in range(900)
            )
        ),
        "more headers in front of one entry|no whole .tar.gz",
    ),
    "long headers of many entries": (lambda: many_headers(90, 60_000), "holds more than 1048576 bytes"),
    "ten million entries": (lambda: many(10_000_000), "more than 100 entries"),
    "two models": (
        lambda: made((entry("other/am.mvn", content=b"x"), b"x")),
        "files of a model in other and in .",
    ),
    "a file twice": (lambda: made((entry("am.mvn", content=b"x"), b"x")), "has am.mvn twice"),
    "not gzip": (lambda: b"<html>", "no whole .tar.gz"),
    "nothing": (lambda: b"", "no whole .tar.gz"),
    "gzip of nothing": (lambda: gzip.compress(b""), "no whole .tar.gz"),
    "gzip of something else": (lambda: gzip.compress(b"x" * 5000), "no whole .tar.gz"),
    "a checksum that does not fit": (lambda: WHOLE[:-8] + bytes(8), "no whole .tar.gz"),
    "a byte that differs": (
        lambda: WHOLE[:5000] + bytes([WHOLE[5000] ^ 1]) + WHOLE[5001:],
        "no whole .tar.gz",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_refused_at_little_cost(name: str, tmp_path: Path, target: Path) -> None:
    content, message = BAD[name]
    path = archive(tmp_path, content())
    tracemalloc.start()
    try:
        with pytest.raises((SourceError, StoreFull), match=message):
            unpack(path, target, label="the archive", limits=LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    written = [found for found in tmp_path.rglob("*") if found.is_file() and found != path]
    assert sum(found.stat().st_size for found in written) <= LIMITS.total_bytes
    assert all(found.parent == target for found in written)


def cuts() -> Iterator[int]:
    yield from (0, 1, 9, 10, 11, 100)
    yield from range(200, len(WHOLE), 997)
    yield from (len(WHOLE) - 9, len(WHOLE) - 8, len(WHOLE) - 1)


@pytest.mark.parametrize("at", list(cuts()))
def test_an_archive_that_was_cut_is_refused(at: int, tmp_path: Path, target: Path) -> None:
    with pytest.raises(SourceError, match="no whole .tar.gz"):
        unpack(archive(tmp_path, WHOLE[:at]), target, label="m", limits=LIMITS)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "./", "model-1.0/", "a/b/c/"])
def test_a_good_archive_gives_its_files(form: int, folder: str, tmp_path: Path, target: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as tar:
        if folder.strip("./"):
            tar.addfile(entry(folder, tarfile.DIRTYPE))
        for name, content in FILES.items():
            member = entry(folder + name, content=content, mode=0o4777, uid=12345)
            tar.addfile(member, io.BytesIO(content))
        tar.addfile(entry("deep/notes.txt", content=b"not needed"), io.BytesIO(b"not needed"))
        tar.addfile(entry("._some.bpe.model", content=b"of a Mac"), io.BytesIO(b"of a Mac"))
    found = unpack(archive(tmp_path, gzip.compress(plain.getvalue())), target, label="m", limits=LIMITS)
    assert set(found) == set(FILES)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    assert {path.stat().st_mode & 0o7777 for path in target.iterdir()} == {0o444}
    assert {path.stat().st_uid for path in target.iterdir()} == {target.stat().st_uid}


def test_space_is_asked_for_before_a_file_is_unpacked(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = (1 << 20) + 10_000

    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(StoreFull, match="MiB more are needed"):
        unpack(archive(tmp_path, WHOLE), target, label="m", limits=LIMITS)
    assert list(target.iterdir()) == []


def test_what_the_headers_of_many_entries_say_is_not_kept(tmp_path: Path, target: Path) -> None:
    path = archive(tmp_path, many_headers(900, 60_000))
    limits = Limits(total_bytes=1 << 30, members=1000)
    tracemalloc.start()
    try:
        assert unpack(path, target, label="m", limits=limits) == {}
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
