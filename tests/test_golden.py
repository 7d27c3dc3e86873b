"""The acceptance set: what is taken, and what is told by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asrsvc.errors import ClipsError
from asrsvc.release import golden
from asrsvc.release.golden import acceptance_set, embedded, read_folder

CLIP = Path(__file__).resolve().parent / "data" / "clips" / "en_1.flac"


def put(folder: Path, name: str, text: str | bytes | None = "hello", *, sound: bool = True) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if sound:
        shutil.copy(CLIP, path)
    if text is not None:
        path.with_suffix(".txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_recordings_lie_beside_their_transcripts_in_folders_of_languages(tmp_path: Path) -> None:
    put(tmp_path, "b.flac", "one\ntwo\n")
    put(tmp_path, "zh/a.m4a", b"\xef\xbb\xbf\xe4\xbd\xa0\xe5\xa5\xbd\r\n")
    put(tmp_path, "zh/.hidden", None)
    put(tmp_path, "README.md", None)
    (tmp_path / "yue").mkdir()
    found = read_folder(tmp_path)
    assert [(clip.name, clip.language, clip.text) for clip in found.clips] == [
        ("b.flac", "-", "one\ntwo"),
        ("zh/a.m4a", "zh", "你好"),
    ]
    assert found.name == str(tmp_path)


def test_the_clips_of_the_service_serve_until_there_are_others(tmp_path: Path) -> None:
    assert acceptance_set(tmp_path) == embedded()
    assert {clip.language for clip in embedded().clips} == set(golden.LANGUAGES)
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "README").touch()
    assert acceptance_set(tmp_path) == embedded()
    put(tmp_path / "golden", "a.flac")
    assert [clip.name for clip in acceptance_set(tmp_path).clips] == ["a.flac"]
    put(tmp_path / "other", "b.flac")
    assert [clip.name for clip in acceptance_set(tmp_path, tmp_path / "other").clips] == ["b.flac"]


def test_the_digest_tells_sets_apart(tmp_path: Path) -> None:
    put(tmp_path, "a.flac")
    first = read_folder(tmp_path).digest
    assert read_folder(tmp_path).digest == first
    put(tmp_path, "a.flac", "hello!")
    second = read_folder(tmp_path).digest
    (tmp_path / "en").mkdir()
    for name in ("a.flac", "a.txt"):
        (tmp_path / name).rename(tmp_path / "en" / name)
    third = read_folder(tmp_path).digest
    with (tmp_path / "en" / "a.flac").open("ab") as writer:
        writer.write(b"x")
    assert len({first, second, third, read_folder(tmp_path).digest}) == 4


def link_out(folder: Path) -> None:
    (folder / "a.flac").symlink_to(CLIP)
    (folder / "a.txt").write_text("hello")


def link_nowhere(folder: Path) -> None:
    (folder / "a.flac").symlink_to("gone")
    (folder / "a.txt").write_text("hello")


def link_a_folder_out(folder: Path) -> None:
    (folder / "zh").symlink_to(CLIP.parent)


def make_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.flac")
    (folder / "a.txt").write_text("hello")


def make_it_big(folder: Path) -> None:
    put(folder, "a.flac")
    os.truncate(folder / "a.flac", golden.MOST_FILE_BYTES + 1)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing": (lambda _: None, "holds no recordings"),
    "no text": (lambda f: put(f, "a.flac", None), "a.flac has no transcript a.txt"),
    "no sound": (lambda f: put(f, "zh/a.flac", sound=False), "zh/a.txt has no recording beside it"),
    "not UTF-8": (lambda f: put(f, "a.flac", b"ab\xff"), r"a.txt is not UTF-8 \(byte 2\)"),
    "empty text": (lambda f: put(f, "a.flac", ""), "a.txt says nothing"),
    "punctuation": (lambda f: put(f, "a.flac", " …!\n"), "a.txt says nothing"),
    "long text": (lambda f: put(f, "a.flac", "x" * 70_000), "a.txt has 70000 bytes; 65536 is the limit"),
    "big": (make_it_big, f"a.flac has {golden.MOST_FILE_BYTES + 1} bytes"),
    "twice": (lambda f: (put(f, "a.flac"), put(f, "a.wav")), "a.wav and a.flac have the same name"),  # type: ignore[dict-item, return-value]
    "language": (lambda f: put(f, "de/a.flac"), "de is a folder; only zh, en, yue, ja, ko can be in there"),
    "deep": (lambda f: put(f, "zh/more/a.flac"), "more is a folder; recordings lie in"),
    "link": (link_out, "a.flac leads out of"),
    "broken link": (link_nowhere, "a.flac cannot be read: No such file"),
    "linked folder": (link_a_folder_out, "zh leads out of"),
    "pipe": (make_a_pipe, "a.flac is no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_by_name(name: str, tmp_path: Path) -> None:
    make, says = BAD[name]
    make(tmp_path)
    with pytest.raises(ClipsError, match=says):
        read_folder(tmp_path)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    put(tmp_path, "good.flac")
    put(tmp_path, "a.flac", None)
    put(tmp_path, "en/b.flac", "")
    put(tmp_path, "ko/c.flac", b"\xff")
    with pytest.raises(ClipsError) as caught:
        read_folder(tmp_path)
    for part in ("a.flac has no", "b.txt says nothing", "c.txt is not UTF-8"):
        assert part in caught.value.message
    assert "good" not in caught.value.message


def test_very_much_that_is_wrong_is_told_in_part(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("x")
    with pytest.raises(ClipsError, match="; and 10 more$"):
        read_folder(tmp_path)


def test_too_many_recordings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MOST_CLIPS", 1)
    put(tmp_path, "a.flac")
    put(tmp_path, "en/b.flac")
    with pytest.raises(ClipsError, match="holds 2 recordings; 1 is the limit"):
        read_folder(tmp_path)


@pytest.mark.parametrize("path", ["gone", "file"])
def test_a_folder_that_is_none_is_told(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClipsError, match=f"{path} is not a folder"):
        read_folder(tmp_path / path)
