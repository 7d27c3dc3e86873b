"""bin/swap-model's commands that change something, against a process that behaves as a master does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import add, point, served
from test_swap_model import Place, failed, wait_for
from waiting import PATIENCE

from asrsvc import errors
from asrsvc.release.cli import main as cli
from asrsvc.release.cli.completion import script
from asrsvc.release.journal import Journal
from asrsvc.release.store import Store, Version
from asrsvc.release.versions import check_digests

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, checkout: Path) -> Iterator[Place]:
    found = Place(tmp_path, checkout)
    yield found
    for process in found.masters:
        process.kill()
        process.wait()


def tried(store: Store, version: Version, *, passed: bool = True, **more: Any) -> Version:
    trial = {"passed": passed, "reason": "as it should be", "files": check_digests(version.path), **more}
    store.records.note_trial(version.id, trial)
    return version


def pointers(store: Store) -> dict[str, str | None]:
    found = {name: store.pointer(name) for name in ("next", "current", "previous")}  # type: ignore[arg-type]
    return {name: version.id if version else None for name, version in found.items()}


# activate


def test_a_version_that_has_passed_its_trial_is_activated_and_watched(place: Place) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    done = place.run("activate", place.b.id, "--watch", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["version"], result["former"], result["serves"]) == (place.b.id, place.a.id, True)
    assert f"{place.b.id} serves; watching it for 0.5 s" in done.stderr
    assert pointers(place.store) == {"next": None, "current": place.b.id, "previous": place.a.id}
    (entry,) = Journal(place.store.root).entries()
    assert (entry.command, entry.source, entry.target, entry.result) == (
        "activate",
        place.a.id,
        place.b.id,
        "succeeded",
    )


def edit_a_file(place: Place) -> None:
    path = place.b.path / "tokens.json"
    path.chmod(0o644)
    path.write_text("other")


def edit_file_and_manifest(place: Place) -> None:
    edit_a_file(place)
    manifest = place.b.path / "manifest.json"
    content = json.loads(manifest.read_text())
    digest = hashlib.sha256(b"other").hexdigest()
    content["files"]["tokens.json"] = {"size": 5, "sha256": digest}
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(content))


def spoil_the_manifest(place: Place) -> None:
    manifest = place.b.path / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")


def forget_the_trial(place: Place) -> None:
    (place.store.root / "records" / f"{place.b.id}.json").unlink()


@pytest.mark.parametrize(
    ("prepare", "code", "said"),
    [
        (forget_the_trial, 41, "has not been tried"),
        (lambda p: tried(p.store, p.b, passed=False, reason="too slow"), 41, "failed its trial: too slow"),
        (lambda p: tried(p.store, p.b, files={}), 41, "is not the file that was tried"),
        (lambda p: tried(p.store, p.b, files=None), 41, "is not the file that was tried"),
        (edit_a_file, 23, "tokens.json is not the file that was stored"),
        (edit_file_and_manifest, 41, "tokens.json is not the file that was tried"),
        (spoil_the_manifest, 5, "manifest.json cannot be read"),
        (lambda p: (p.b.path / "am.mvn").unlink(), 5, "am.mvn is missing"),
    ],
)
def test_what_has_not_passed_its_trial_as_it_is_now_is_refused(
    place: Place, prepare: Any, code: int, said: str
) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    prepare(place)
    done = place.run("activate", place.b.id)
    failed(done, code, said, place.a.id, "")
    assert place.status().roll is None
    assert pointers(place.store) == {"next": None, "current": place.a.id, "previous": None}
    assert [(e.result, e.target) for e in Journal(place.store.root).entries()] == [("failed", place.b.id)]


def test_force_asks_for_no_trial_and_the_master_is_told(place: Place) -> None:
    place.master("succeeds")
    done = place.run("activate", place.b.id, "--force", "--watch", "0")
    assert done.returncode == 0, done.stderr
    assert "forced: no trial is asked for" in done.stderr
    assert place.store.record(place.b.id).forced
    assert "activate" in place.run("history").stdout
    assert "succeeded: forced" in place.run("history").stdout
    tried(place.store, place.b)
    assert place.run("activate", place.b.id, "--watch", "0").returncode == 0
    assert not place.store.record(place.b.id).forced


@pytest.mark.parametrize(
    "name", ["unknown-01234567", "../store", "a/b", ".", "..", "", "x" * 300, "/etc", "next", "\u2603"]
)
@pytest.mark.parametrize("command", ["activate", "rollback"])
def test_an_unknown_version_is_named_and_nothing_changes(place: Place, command: str, name: str) -> None:
    place.master("succeeds")
    done = place.run(command, name)
    failed(done, 24, "(is no version id|is not there)", place.a.id, "")
    assert place.status().roll is None
    assert place.store.pointer("next") is None


@pytest.mark.parametrize("command", ["activate", "rollback", "verify", "try", "bake", "prune"])
def test_every_command_takes_a_beginning_of_an_id_or_a_name_alone(place: Place, command: str) -> None:
    version = tried(place.store, add(place.store, "other"))
    add(place.store, "other-one")
    place.store.records.note_served(version.id)
    options = ["--json"]
    for text in ("other", version.id[:7], version.id):
        if not version.path.is_dir():  # it has been pruned
            version = add(place.store, "other")
        done = place.run(command, text, *options)
        assert version.id in done.stdout, (text, done.stdout, done.stderr)
        assert "other-one" not in done.stdout
        assert done.returncode in ({30} if command == "try" else {33} if command == "bake" else {0})


@pytest.mark.parametrize("command", ["activate", "rollback", "verify", "try", "bake", "prune"])
@pytest.mark.parametrize("text", ["same", "same-", "sa"])
def test_what_may_mean_more_than_one_version_is_refused_with_all_of_them(
    place: Place, command: str, text: str
) -> None:
    ids = [add(place.store, f"same-{number}").id for number in range(3)]
    (place.store.root / "versions" / "same-01234567").mkdir()
    (place.store.root / "versions" / "same-01234568").mkdir()
    done = place.run(command, text)
    shown = "same-01234567, same-01234568" if text == "same" else "same-0-.*, same-01234567"
    failed(done, 24, f"'{text}' may mean . versions, {shown}", "nothing", "list")
    assert (ids[0] in done.stderr) == (text != "same")
    assert place.store.pointer("next") is None
    done = place.run(command, text, "--json")
    assert json.loads(done.stdout)["error"]["code"] == "ambiguous_version"


def test_a_long_list_of_what_a_text_may_mean_is_cut(place: Place) -> None:
    for number in range(15):
        (place.store.root / "versions" / f"many-{number:08}").mkdir()
    done = place.run("verify", "many")
    failed(done, 24, "may mean 15 versions, many-00000000, .*many-00000009 and 5 more: name one", "", "list")


def test_the_history_and_the_lock_name_the_version_that_was_meant(place: Place) -> None:
    tried(place.store, place.b)
    assert place.run("activate", "b").returncode == 0
    assert [entry.target for entry in Journal(place.store.root).entries()] == [place.b.id]


def test_a_roll_that_fails_leaves_what_served(place: Place) -> None:
    place.master("fails")
    tried(place.store, place.b)
    failed(place.run("activate", place.b.id), 12, "NaN in the logits", place.a.id, "status")
    (entry,) = Journal(place.store.root).entries()
    assert entry.result == "failed"
    assert "NaN" in entry.reason


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("errs", "50% errors against 1%"), ("loses a worker", "1 of its workers died")],
)
def test_a_version_that_does_badly_is_taken_back(place: Place, behaviour: str, said: str) -> None:
    place.master(behaviour)
    tried(place.store, place.b)
    done = place.run("activate", place.b.id, "--watch", "600")
    failed(
        done, 43, f"{place.b.id} served and did badly: {said}.*; {place.a.id} serves again", place.a.id, ""
    )
    assert pointers(place.store)["current"] == place.a.id
    record = place.store.record(place.b.id)
    assert record.withdrawn is not None
    assert said in record.withdrawn.reason
    assert not place.store.record(place.a.id).returning
    failed(place.run("rollback", place.b.id), 41, f"was taken back .*{said}", place.a.id, "try")
    failed(place.run("rollback"), 44, "no version but", place.a.id, "history")


def test_a_version_that_others_replace_meanwhile_is_no_longer_watched(place: Place) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    process = place.start("activate", place.b.id, "--watch", "600")
    assert process.stderr is not None
    assert any("watching it" in line for line in iter(process.stderr.readline, ""))
    point(place.store, "next", place.a)
    os.kill(place.masters[0].pid, signal.SIGHUP)
    out, err = process.communicate(timeout=2 * PATIENCE)
    done = subprocess.CompletedProcess([], process.returncode, out, err)
    failed(done, 13, f"{place.a.id} serves: somebody has taken {place.b.id} back", place.a.id, "status")


def test_abort_calls_off_an_activation_that_waits(place: Place) -> None:
    place.master("never ends")
    tried(place.store, place.b)
    process = place.start("activate", place.b.id)
    wait_for(lambda: place.status().rolling)
    assert place.run("abort").returncode == 0
    out, err = process.communicate(timeout=2 * PATIENCE)
    done = subprocess.CompletedProcess([], process.returncode, out, err)
    failed(done, 13, "was called off", place.a.id, "status")
    assert [entry.command for entry in Journal(place.store.root).entries()] == ["activate", "abort"]


def test_abort_has_a_version_taken_back_that_is_watched(place: Place) -> None:
    process = start_and_watch(place)
    assert (place.store.pointers / "watched").resolve() == place.b.path.resolve()
    aborted = place.run("abort", "--json")
    assert aborted.returncode == 0, aborted.stderr
    result = json.loads(aborted.stdout)
    assert (result["version"], result["roll"]["to"]) == (place.a.id, place.a.id)
    out, err = process.communicate(timeout=2 * PATIENCE)
    done = subprocess.CompletedProcess([], process.returncode, out, err)
    failed(done, 43, f"{place.b.id} served and was called off; {place.a.id} serves again", place.a.id, "")
    assert pointers(place.store)["current"] == place.a.id
    assert place.store.record(place.b.id).withdrawn is not None
    assert not os.path.lexists(place.store.pointers / "watched")
    assert [entry.command for entry in Journal(place.store.root).entries()] == ["activate", "abort"]
    assert place.run("abort").stdout == "no roll is under way\n"


def start_and_watch(place: Place) -> subprocess.Popen[str]:
    """An activation that has begun to watch what it has switched to."""
    place.master("succeeds")
    tried(place.store, place.b)
    process = place.start("activate", place.b.id, "--watch", "600")
    assert process.stderr is not None
    assert any("watching it" in line for line in iter(process.stderr.readline, ""))
    wait_for(lambda: os.path.lexists(place.store.pointers / "watched"))
    return process


def test_nobody_is_asked_to_take_back_what_a_killed_command_watched(place: Place) -> None:
    process = start_and_watch(place)
    process.kill()
    process.communicate(timeout=2 * PATIENCE)
    assert place.run("abort").stdout == "no roll is under way\n"
    assert not os.path.lexists(place.store.pointers / "watched")
    assert place.status().version == place.b.id


# rollback


def test_a_rollback_goes_to_and_fro(place: Place) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    assert place.run("activate", place.b.id, "--watch", "0").returncode == 0
    for here, there in ((place.b, place.a), (place.a, place.b), (place.b, place.a)):
        done = place.run("rollback", "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["former"], result["version"]) == (here.id, there.id)
        assert pointers(place.store) == {"next": None, "current": there.id, "previous": here.id}
        assert not place.store.record(there.id).returning


def test_a_rollback_to_a_named_version_needs_no_trial_but_that_it_has_served(place: Place) -> None:
    place.master("succeeds")
    failed(place.run("rollback", place.b.id), 41, "has never served here", place.a.id, "try")
    place.store.records.note_served(place.b.id)
    assert place.run("rollback", place.b.id).returncode == 0


def test_without_a_version_before_there_is_nothing_to_go_back_to(place: Place) -> None:
    place.master("succeeds")
    failed(place.run("rollback"), 44, f"no version but {place.a.id}", place.a.id, "activate")


def test_during_a_roll_a_rollback_points_to_abort(place: Place) -> None:
    place.master("never ends")
    place.store.set_next(place.b)
    os.kill(place.masters[0].pid, signal.SIGHUP)
    wait_for(lambda: place.status().rolling)
    failed(place.run("rollback"), 44, f"a roll to {place.b.id} is under way.*abort", place.a.id, "")


# Without a service


@pytest.mark.parametrize("command", [["activate"], ["activate", "--force"], ["rollback"]])
def test_without_a_service_the_next_start_is_told(place: Place, command: list[str]) -> None:
    tried(place.store, place.b)
    place.store.records.note_served(place.b.id)
    done = place.run(*command, place.b.id)
    assert done.returncode == 0, done.stderr
    said = f"no service is running; the next start serves {place.a.id}, then rolls to {place.b.id}"
    assert done.stdout == said + "\n"
    assert place.store.pointer("next") == place.b


def test_history_and_prune_need_no_service(place: Place) -> None:
    place.store.records.note_refused(place.b.id, "said nothing")
    done = place.run("history")
    assert re.search(rf"start or SIGHUP  {place.a.id}  succeeded  \(the master\)", done.stdout)
    assert re.search(rf"start or SIGHUP  {place.b.id}  failed: said nothing", done.stdout)
    done = place.run("prune", "--keep", "0", "--json")
    assert json.loads(done.stdout) == {
        "removed": [place.b.id],
        "kept": [{"version": place.a.id, "why": "current"}],
    }


# Two operators


def test_a_second_change_waits_and_says_for_whom(place: Place) -> None:
    place.master("waits")
    tried(place.store, place.b)
    first = place.start("activate", place.b.id, "--watch", "0")
    wait_for((place.store.root / "journal.jsonl").exists)
    second = place.start("rollback")
    assert second.stderr is not None
    told = second.stderr.readline()
    assert f"waiting for process {first.pid} of " in told
    assert f"for: activate {place.b.id}" in told
    place.status_path.with_name("go").touch()
    out, err = second.communicate(timeout=2 * PATIENCE)
    assert second.returncode == 0, err
    assert first.wait(PATIENCE) == 0
    assert out.startswith(f"{place.a.id} serves")
    entries = Journal(place.store.root).entries()
    assert [(e.command, e.result) for e in entries] == [("activate", "succeeded"), ("rollback", "succeeded")]
    assert entries[0].ended is not None
    assert entries[0].ended <= entries[1].when
    first.communicate()


def test_with_no_wait_a_second_change_ends_at_once(place: Place) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    first = place.start("activate", place.b.id, "--watch", "600")
    wait_for((place.store.root / "journal.jsonl").exists)
    source = str(place.store.root.with_name("source of b"))
    others = (["rollback"], ["activate", place.a.id], ["prune", "--keep", "1"], ["deploy", "x"])
    for command in (*others, ["pull", source]):
        done = place.run(*command, "--no-wait")
        failed(
            done, 40, rf"is held by process {first.pid} of \w+ on .*, since 20.*, for: activate", "", "abort"
        )
    assert len(Journal(place.store.root).entries()) == 1
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=2 * PATIENCE)
    assert first.returncode == 130
    assert Journal(place.store.root).entries()[0].result == "interrupted"


def test_the_history_says_who_was_behind_sudo(place: Place) -> None:
    place.run("prune", "--keep", "9", SUDO_USER="alice")
    assert "(for alice) on " in place.run("history").stdout
    (change,) = (c for c in json.loads(place.run("history", "--json").stdout)["history"] if c["command"])
    assert (change["command"], change["actor"]["on_behalf_of"]) == ("prune", "alice")


# prune


def test_prune_keeps_what_is_needed_and_the_newest(place: Place) -> None:
    others = []
    for number, name in enumerate("mnopq"):
        version = add(place.store, name)
        manifest = version.path / "manifest.json"
        content = {**json.loads(manifest.read_text()), "created": f"2020-01-0{9 - number}T00:00:00+00:00"}
        manifest.chmod(0o644)
        manifest.write_text(json.dumps(content))
        others.append(version)
    point(place.store, "previous", others[4])
    other_host = Store(place.store.root, pointers=place.store.root / "pointers" / "asr-2")
    other_host.promote(others[3])
    with (others[2].path / "tokens.json").open("rb") as file:
        code = "import mmap, sys; m = mmap.mmap(0, 0, prot=mmap.PROT_READ); print(flush=True); input()"
        code = code.replace("input()", "import time; time.sleep(500)")
        with subprocess.Popen([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE) as mapping:
            assert mapping.stdout is not None
            mapping.stdout.readline()
            done = place.run("prune", "--keep", "2", "--json")
            mapping.kill()
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["removed"] == [others[1].id]
    assert {kept["version"]: kept["why"] for kept in result["kept"]} == {
        place.a.id: "current",
        place.b.id: "among the 2 newest others",
        others[0].id: "among the 2 newest others",
        others[2].id: "a worker still has it loaded",
        others[3].id: "asr-2/current",
        others[4].id: "previous",
    }
    assert not (place.store.root / "staging").exists()
    assert place.run("prune", "--keep", "2").stdout.startswith(f"removed {others[2].id}\n")
    assert place.run("prune", "--keep", "2").stdout.startswith("nothing to remove\n")


def test_prune_removes_the_versions_that_are_named_or_none(place: Place) -> None:
    c, d = add(place.store, "c"), add(place.store, "d")
    failed(place.run("prune", "a", "c"), 42, f"{place.a.id}: current", "", "list")
    failed(place.run("prune", "c", "gone"), 24, "gone is not there", "", "list")
    assert set(place.store.versions()) == {place.a, place.b, c, d}
    done = place.run("prune", "c", c.id, place.b.id, "--json")
    assert json.loads(done.stdout) == {"removed": [c.id, place.b.id], "kept": []}
    assert set(place.store.versions()) == {place.a, d}
    for wrong in (["prune"], ["prune", "d", "--keep", "1"]):
        failed(place.run(*wrong), 2, "either versions to remove, or --keep N", "", "--help")
    with (d.path / "tokens.json").open("rb") as file:
        code = (
            "import mmap, time; m = mmap.mmap(0, 0, prot=mmap.PROT_READ); print(flush=True); time.sleep(500)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE) as mapping:
            assert mapping.stdout is not None
            mapping.stdout.readline()
            failed(place.run("prune", "d"), 42, f"{d.id}: a worker still has it loaded", "", "list")
            mapping.kill()


def test_prune_keeps_what_a_worker_of_the_service_has_loaded(place: Place) -> None:
    master = place.master("succeeds")
    assert master.poll() is None
    (place.store.root / "current").unlink()
    place.run("prune", "--keep", "0")
    assert [version.id for version in place.store.versions()] == [place.a.id]


def test_a_staging_folder_that_is_a_link_is_named(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.store.root / "staging").symlink_to(elsewhere)
    check_staging(place, "is a symbolic link")
    assert not any(elsewhere.iterdir())


def test_a_staging_folder_on_another_file_system_is_named(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    staging = place.store.root / "staging"
    staging.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(staging)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        check_staging(place, "must be on the same file system")
    finally:
        subprocess.run(["umount", str(staging)], check=True)


def check_staging(place: Place, what: str) -> None:
    source = str(place.store.root.with_name("source of b"))
    for command in (["pull", source], ["deploy", source]):
        failed(place.run(*command), 5, what, "nothing", "")
    assert place.store.version(place.b.id) == place.b


# A store that cannot be written


@pytest.mark.parametrize(
    "command", [["activate", "VERSION"], ["rollback", "VERSION"], ["prune", "--keep", "0"], ["deploy", "x"]]
)
def test_a_store_that_cannot_be_written_is_named_and_what_serves_serves_on(
    place: Place, command: list[str]
) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    place.store.records.note_served(place.b.id)
    root = place.store.root
    (root / "lock").unlink(missing_ok=True)
    (root / "lock").mkdir()  # root may write everywhere else
    done = place.run(*(word.replace("VERSION", place.b.id) for word in command))
    failed(done, 5, f"{root}/lock cannot be opened", place.a.id, "")
    assert place.status().roll is None


# Help and completion


def commands() -> dict[str, Any]:
    parser = cli._parser()
    found: dict[str, Any] = next(a for a in parser._actions if a.choices).choices  # type: ignore[assignment]
    return found


def test_every_command_and_option_has_help_and_every_command_is_in_the_readme() -> None:
    for name, parser in commands().items():
        assert parser.description, name
        for action in parser._actions:
            assert action.help, (name, action.dest)
        assert re.search(rf"`(bin/swap-model )?{name}\b", README), f"the README does not mention {name}"


def codes_of(error: type[errors.AsrError]) -> Iterator[tuple[int, str]]:
    """Exit codes of a class and of those below it, where they have their own."""
    if "exit_code" in vars(error):
        yield error.exit_code, error.__name__
    for below in error.__subclasses__():
        yield from codes_of(below)


def test_every_exit_code_belongs_to_one_error_and_is_told_in_help_and_readme() -> None:
    told = re.findall(r"^  (\d+) +(\S.*)$", cli._EPILOG, flags=re.MULTILINE)
    assert [int(code) for code, _ in told] == sorted({int(code) for code, _ in told})
    table = README.partition("| exit code | of `bin/swap-model` |\n|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\d+) \| (.*) \|$", table, flags=re.MULTILINE) == told
    own = list(codes_of(errors.AsrError))
    twice = {code: [name for other, name in own if other == code] for code, _ in own}
    assert {code: names for code, names in twice.items() if len(names) > 1} == {
        2: ["StartError", "BadArgument"],  # the first is bin/serve's
        10: ["StatusError", "NotRunning"],  # what the master says cannot be read; there is none
    }
    of_workers = {4}  # no command loads a model in its own process
    of_keys = {6, 7}  # bin/api-keys's
    assert {code for code, _ in own} - of_workers - of_keys <= {int(code) for code, _ in told}


def test_bash_completes_commands_options_and_versions(place: Place, tmp_path: Path) -> None:
    tool = tmp_path / "swap-model"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m asrsvc.release.cli "$@"\n')
    tool.chmod(0o755)
    completion = place.run("completion", "bash").stdout

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = f"{completion}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n_asrsvc_swap_model\n"
        done = subprocess.run(
            ["bash", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'],
            env={**place.environ, "PYTHONPATH": str(place.checkout)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    program = str(tool)
    assert set(complete(program, "")) == set(commands())
    assert complete(program, "roll") == ["rollback"]
    assert "--force" in complete(program, "activate", "--f")
    assert complete(program, "activate", "b") == [place.b.id]
    assert complete(program, "prune", "b") == [place.b.id]
    assert complete(program, "completion", "z") == ["zsh"]


def test_the_zsh_completion_is_whole() -> None:
    text = script("zsh", "swap-model", commands())
    for name in commands():
        assert f"'{name}:" in text
    zsh = shutil.which("zsh")
    if zsh is not None:
        subprocess.run([zsh, "-n"], input=text, text=True, check=True)


def test_a_version_that_serves_well_again_is_no_longer_called_taken_back(place: Place) -> None:
    place.master("succeeds")
    tried(place.store, place.b)
    place.store.records.note_withdrawn(place.b.id, "50% errors")
    assert place.run("activate", place.b.id, "--watch", "0.3").returncode == 0
    assert place.store.record(place.b.id).withdrawn is None
    served(place.store, "c")
