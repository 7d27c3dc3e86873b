"""Who decides what a path leads to, and whom root becomes for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from another_user import NAMELESS, NOBODY, in_reach, why_not
from waiting import PATIENCE

from asrsvc.errors import RootRefused
from asrsvc.release.ownership import first_of_others, look
from asrsvc.release.privileges import Place, heir, user_of

_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One of root's, that everybody can reach."""
    found = Path(tempfile.mkdtemp(prefix="asrsvc-ownership-")).resolve()
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def made(path: Path, uid: int = 0, mode: int = 0o755, gid: int | None = None) -> Path:
    path.mkdir()
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def link(path: Path, target: Path | str, uid: int = 0) -> Path:
    path.symlink_to(target)
    os.lchown(path, uid, uid)
    return path


def test_what_root_alone_can_change(folder: Path) -> None:
    inner = made(made(folder / "a") / "b")
    for path in (
        inner,
        folder / "a" / ".." / "a" / "b",
        link(folder / "l", inner),
        link(folder / "m", "a/b"),
    ):
        way = look(path)
        assert (way.of_root_alone, way.whole, way.end) == (True, True, inner)
    way = look(inner / "missing" / "too")
    assert (way.of_root_alone, way.whole, way.end) == (True, False, inner)


def test_every_owner_on_the_way_is_found_also_behind_and_on_links(folder: Path) -> None:
    theirs = made(folder / "theirs", NOBODY)
    deeper = made(theirs / "root's")
    assert look(deeper).owners == {NOBODY: theirs}
    other = link(made(folder / "shared", mode=0o1777) / "link", deeper, NAMELESS)
    assert look(other / "x").owners == {NAMELESS: other, NOBODY: theirs}
    assert look(link(folder / "around", "shared/link/..")).end == theirs


@pytest.mark.parametrize(
    ("mode", "gid", "open_to_others"),
    [
        (0o775, 0, False),
        (0o775, NOBODY, True),
        (0o757, 0, True),
        (0o750, NOBODY, False),
        (0o2775, NOBODY, True),
    ],
)
def test_groups_and_everybody_count_as_others(
    mode: int, gid: int, open_to_others: bool, folder: Path
) -> None:
    inner = made(made(folder / "a", mode=mode, gid=gid) / "b")
    assert look(inner).open == (folder / "a" if open_to_others else None)
    assert look(inner).of_root_alone is not open_to_others


def test_where_everybody_may_make_things_what_is_there_is_its_owners_and_what_is_missing_is_nobodys(
    folder: Path,
) -> None:
    shared = made(folder / "shared", mode=0o1777)
    assert look(made(shared / "mine")).of_root_alone
    for path in (shared, shared / "missing", shared / "mine" / ".."):
        assert (look(path).open, look(path).sticky) == (shared, True)
    assert look(made(shared / "theirs", NOBODY)).owners == {NOBODY: shared / "theirs"}


def test_links_in_a_circle_are_an_error(folder: Path) -> None:
    link(folder / "a", "b")
    link(folder / "b", "a")
    with pytest.raises(OSError, match="symbolic links"):
        look(folder / "a")
    with pytest.raises(RootRefused, match="root cannot see whom ASR_STORE=.*/a belongs to"):
        heir(Place("ASR_STORE", folder / "a"))


def test_the_first_folder_of_others_is_found_at_any_depth_and_behind_links(folder: Path) -> None:
    place = made(folder / "place")
    deep = made(made(place / "a") / "b")
    assert first_of_others(place) is None
    link(place / "round", ".")
    link(place / "nowhere", "missing")
    assert first_of_others(place) is None
    elsewhere = made(folder / "elsewhere")
    link(deep / "link", elsewhere)
    assert first_of_others(place) is None
    theirs = made(elsewhere / "theirs", NOBODY)
    assert first_of_others(place) == theirs
    theirs.rmdir()
    os.chown(elsewhere, NOBODY, NOBODY)
    assert first_of_others(place) == deep / "link"


def test_whom_root_becomes(folder: Path) -> None:
    mine, theirs, others = (
        made(folder / name, uid) for name, uid in (("m", 0), ("t", NOBODY), ("o", NAMELESS))
    )
    store = Place("ASR_STORE", theirs)
    assert heir(Place("ASR_STORE", mine)) is None
    assert heir(Place("ASR_STORE", mine), careful=[store]) is None
    found = heir(store, [Place("ASR_RUNTIME_DIR", mine)], [Place("ASR_STATE_DIR", theirs / "missing")])
    assert found == user_of(NOBODY, theirs)
    for place, rest, careful in (
        (mine, [theirs], []),
        (theirs, [others], []),
        (theirs, [], [others]),
        (made(theirs / "o", NAMELESS), [], []),
    ):
        with pytest.raises(RootRefused, match="chown|more than one user"):
            heir(
                Place("A", place), [Place("B", path) for path in rest], [Place("C", path) for path in careful]
            )


def test_a_user_without_a_name_has_the_folders_group_but_never_roots(folder: Path) -> None:
    theirs = made(folder / "theirs", NAMELESS, gid=777)
    user = user_of(NAMELESS, theirs)
    assert (user.uid, user.gid, user.name, user.home, user.known) == (
        NAMELESS,
        777,
        str(NAMELESS),
        "/",
        False,
    )
    os.chown(theirs, NAMELESS, 0)
    assert user_of(NAMELESS, theirs).gid == NAMELESS


def test_a_file_may_be_new_where_everybody_makes_files_and_a_folder_may_not(folder: Path) -> None:
    shared = made(folder / "shared", mode=0o1777)
    assert heir(Place("ASR_API_KEYS", shared / "keys", is_file=True)) is None
    with pytest.raises(RootRefused, match="make that folder first"):
        heir(Place("ASR_STORE", shared / "store"))


_BECOME = """
import os, sys
from pathlib import Path
from asrsvc.release.privileges import Place, become, user_of
folder, uid = Path(sys.argv[1]), int(sys.argv[2])
become(user_of(uid, folder), Place("ASR_STORE", folder), starts_processes=True)
(folder / "new").touch()
lines = open("/proc/self/status").read().splitlines()
capabilities = [line.split()[1] for line in lines if line.startswith(("CapEff", "CapPrm"))]
print(os.getresuid(), os.getresgid(), os.getgroups(), capabilities)
for change in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        change()
    except PermissionError:
        continue
    sys.exit("root is not gone")
"""


def become(prefix: list[str], folder: Path, uid: int) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        in_reach(*prefix, sys.executable, "-P", "-c", _BECOME, folder, str(uid)),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("uid", [NOBODY, NAMELESS])
def test_root_is_gone_for_good(uid: int, folder: Path) -> None:
    theirs = made(folder / "theirs", uid, mode=0o700)
    done = become(["setpriv", "--groups=0,4,27"], theirs, uid)
    assert done.returncode == 0, done.stderr
    groups = "[]" if uid == NAMELESS else f"[{uid}]"
    assert done.stdout == f"{(uid,) * 3} {(uid,) * 3} {groups} {['0' * 16] * 2}\n"
    assert (theirs / "new").stat().st_uid == uid


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (["setpriv", "--bounding-set=-setuid"], "root cannot become nobody, whom ASR_STORE=.* belongs to"),
        # the rights of root outlive the change of the user
        (["setpriv", "--securebits=+no_setuid_fixup"], "root has become nobody, .*, and is root still"),
    ],
)
def test_a_root_that_cannot_be_left_is_refused(prefix: list[str], reason: str, folder: Path) -> None:
    theirs = made(folder / "theirs", NOBODY)
    done = become(prefix, theirs, NOBODY)
    assert re.search(f"RootRefused: {reason}", done.stderr), done.stderr
    assert not (theirs / "new").exists()
