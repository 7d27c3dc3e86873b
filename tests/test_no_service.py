"""Each command of bin/swap-model while no service runs: what it does, and what the next start will do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from stores import add
from test_changing import commands, tried
from test_swap_model import Place

from asrsvc.release.store import Store

SERVES = "the next start serves {a}"
ROLLS = "the next start serves {a}, then rolls to {b}"

# What is asked for, its exit code, and what it says (a pattern; the ids put in).
CASES: dict[str, tuple[list[str], int, str]] = {
    "status": (
        ["status"],
        10,
        rf"no service is running.*\nserving now: nothing; {SERVES}\nnext: .*bin/serve",
    ),
    "reload": (
        ["reload"],
        10,
        rf"no service is running.*\nserving now: nothing; {SERVES}\nnext: .*bin/serve",
    ),
    "abort": (["abort"], 0, rf"no service is running; {SERVES}\n"),
    "activate": (["activate", "{b}"], 0, rf"no service is running; {ROLLS}\n"),
    "rollback": (["rollback", "{b}"], 0, rf"no service is running; {ROLLS}\n"),
    "list": (["list"], 0, r"{a} .* current "),
    "history": (["history"], 0, r"start or SIGHUP  {a}  succeeded"),
    "prune": (["prune", "--keep", "0"], 0, r"kept {a}: current"),
    "pull": (["pull", "{source}"], 0, r"c-\w{{8}} is in the store"),
    "verify": (["verify", "current"], 0, r"{a}: 5 files, .* all as they were stored"),
    # These are no models, which a trial finds out without a service.
    "bake": (["bake", "{b}"], 33, rf"{{b}} cannot be baked: (.|\n)*serving now: nothing; {SERVES}\n"),
    "try": (["try", "{b}"], 30, rf"{{b}} failed its trial: (.|\n)*serving now: nothing; {SERVES}\n"),
    "deploy": (
        ["deploy", "{source}"],
        30,
        rf"c-\w{{{{8}}}} is in the store, and its trial refuses it: .*\nserving now: nothing; {SERVES}\n",
    ),
    "completion": (["completion", "versions"], 0, r"{a}\n{b}\n"),
}


@pytest.fixture
def place(tmp_path: Path, checkout: Path) -> Place:
    return Place(tmp_path, checkout)


def test_the_table_has_every_command() -> None:
    assert set(CASES) == set(commands())


@pytest.mark.parametrize("name", CASES)
def test_a_command_without_a_service(place: Place, name: str) -> None:
    tried(place.store, place.b)
    place.store.records.note_served(place.b.id)
    add(Store(place.runtime / "elsewhere"), "c")
    words = {"a": place.a.id, "b": place.b.id, "source": str(place.runtime / "source of c")}
    arguments, code, said = CASES[name]
    done = place.run(*(word.format(**words) for word in arguments))
    assert done.returncode == code, done.stderr
    assert re.search(said.format(**words), done.stdout + done.stderr), done.stdout + done.stderr
    current = place.store.current()
    assert current == place.a
    assert (place.store.pointer("next") == place.b) == (name in {"activate", "rollback"})
