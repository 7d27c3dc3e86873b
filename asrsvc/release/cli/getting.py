"""The commands for versions as such: pull, verify, list."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, Final

from asrsvc import settings
from asrsvc.errors import BadArgument, UnknownVersion, VersionDamaged
from asrsvc.release.catalogue import catalogue, describe, problems
from asrsvc.release.cli.bar import Bar, size
from asrsvc.release.cli.command import Command, Context
from asrsvc.release.cli.rolling import noted
from asrsvc.release.progress import Limits
from asrsvc.release.pull import pull
from asrsvc.release.sources import FORMS, Endpoints, Source, identity, parse
from asrsvc.release.store import POINTERS, Store, Version
from asrsvc.release.verify import verify

VERSIONS: Final = "an id, a beginning of one, or a name alone, of one version; or current, previous, next"
"""how a version may be named"""
_LOCK_SECONDS: Final = 60.0


def find_version(store: Store, text: str) -> Version:
    """The version that an argument names: current, previous or next, or see `Versions.named_version`.

    Raises:
        UnknownVersion: there is none, or more than one.
        StoreError: the pointer is broken.
    """
    if text in POINTERS:
        version = store.pointer(text)
        if version is None:
            raise UnknownVersion(f"{store.pointers / text} is not there")
        return version
    return store.named_version(text)


def endpoints() -> Endpoints:
    """Where the hubs are, as the settings say."""
    return Endpoints(
        modelscope=settings.value("ASR_MODELSCOPE_ENDPOINT"), hf=settings.value("ASR_HF_ENDPOINT")
    )


def get(context: Context, store: Store, options: argparse.Namespace) -> Version:
    """Have a version in the store, with a progress bar; for every command that pulls.

    Its record says what it was pulled from, so that a later start finds it.

    Args:
        context: of the command.
        store: which one.
        options: those of `add_pull_arguments`, and the time that it may take.

    Raises:
        AsrError: see `asrsvc.release.pull`.
    """
    bar = Bar(context)
    source: Source = parse(options.source) if isinstance(options.source, str) else options.source
    try:
        version = pull(
            store,
            source,
            name=options.name,
            sha256=pinned_digests(options.sha256),
            endpoints=endpoints(),
            limits=replace(Limits(), seconds=options.timeout),
            progress=bar,
        )
    finally:
        bar.clear()
    with store.lock():
        store.records.note_source(version.id, identity(source))
    return version


def _pull(context: Context, options: argparse.Namespace) -> None:
    wait = 0.0 if options.no_wait else options.timeout
    store = context.store(lock_timeout=wait, command="pull")
    before = {version.id for version in store.versions()}
    version = get(context, store, options)
    new = version.id not in before
    if new:
        with noted(context, "pull") as change:
            change.target = version.id
    found = describe(store, version, store.named())
    seconds = round(context.seconds, 1)
    text = f"is in the store ({size(found['size'])}, {seconds} s)" if new else "was in the store already"
    context.result(f"{version.id} {text}", {**found, "new": new, "seconds": seconds})


def pinned_digests(given: list[str]) -> dict[str, str]:
    """The values of --sha256 by file name.

    Raises:
        BadArgument: one is not FILE=HEX, or a file has two.
    """
    found: dict[str, str] = {}
    for text in given:
        name, separator, digest = text.rpartition("=")
        if not separator or not name or found.setdefault(name, digest) != digest:
            raise BadArgument(f"--sha256 {text} is wrong: FILE=HEX is right, once for each file")
    return found


def _verify(context: Context, options: argparse.Namespace) -> None:
    store = context.store(lock_timeout=_LOCK_SECONDS)
    version = find_version(store, options.version)
    faults = verify(store, version)
    if faults:
        listed = "; ".join(str(fault) for fault in faults)
        raise VersionDamaged(f"{version.path}: {listed}", [fault.to_json() for fault in faults])
    found = describe(store, version, store.named())
    text = f"{version.id}: {len(found['files'])} files, {size(found['size'])}, all as they were stored"
    context.result(text, {**found, "faults": []})


def _list(context: Context, _: argparse.Namespace) -> None:
    store = context.store(lock_timeout=0)
    rows, wrong = catalogue(store), problems(store)
    lines = _table(rows) if rows else [f"{store.root} holds no version"]
    lines += [f"problem: {problem}" for problem in wrong]
    context.result("\n".join(lines), {"versions": rows, "problems": wrong})


def _table(rows: list[dict[str, Any]]) -> list[str]:
    table = [("VERSION", "SIZE", "POINTERS", "TRIAL", "LAST SERVED", "STORED", "SOURCE")]
    for row in rows:
        trial = row["trial"]
        passed = "-" if trial is None else "passed" if trial.get("passed") is True else "failed"
        revision = f"@{row['revision'][:12]}" if row["revision"] else ""
        source = f"{row['source'] or '-'}{revision}" if row["problem"] is None else f"! {row['problem']}"
        table.append(
            (
                row["version"],
                "-" if row["size"] is None else size(row["size"]),
                ",".join(row["pointers"]) or "-",
                passed,
                (row["last_served"] or "-")[:19],
                (row["created"] or "-")[:19],
                source,
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in table
    ]


def add_pull_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a pull, for every command that pulls."""
    parser.add_argument("source", metavar="SOURCE", help=FORMS)
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="what the version's id begins with (default: what the source is called)",
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="FILE=HEX",
        help="a digest that this file must have, or the archive itself; may be given again",
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """The argument that `find_version` takes."""
    parser.add_argument("version", metavar="VERSION", help=VERSIONS)


COMMANDS: Final = (
    Command("list", "print the versions of the store: size, source, trial, when they served", _list),
    Command(
        "pull",
        "get a model into the store, whole and checked, as a version that nobody serves yet",
        _pull,
        timeout=7200,
        arguments=add_pull_arguments,
        changes=True,
        interrupted="the same again goes on where it stopped",
    ),
    Command(
        "verify",
        "compare all files of a version with the digests of the time when it was stored",
        _verify,
        arguments=add_version,
        interrupted="nothing was changed",
    ),
)
