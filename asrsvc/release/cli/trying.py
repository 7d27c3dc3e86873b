"""The command that tries a version: try."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from asrsvc import settings
from asrsvc.errors import NotRunning, StatusError, TrialFailed
from asrsvc.release.cli.command import Command, Context
from asrsvc.release.cli.getting import add_version, find_version
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import baseline_of
from asrsvc.release.trial import Trial, TrialOptions, run_trial
from asrsvc.release.trial.record import describe


def try_version(context: Context, options: argparse.Namespace) -> None:
    """Try a version; print what was found, and write it into its record."""
    store = context.store(lock_timeout=options.timeout, command=f"try {options.version}")
    version = find_version(store, options.version)
    found = try_out(context, store, version, _serving_version(context, store), options)
    report = {"version": version.id, **found.to_record()}
    if found.passed or not context.as_json:
        context.result(describe(version.id, report), report)
    if not found.passed:
        raise TrialFailed(f"{version.id} failed its trial: {found.reason}", report=report)


def try_out(
    context: Context, store: Store, version: Version, baseline: Version | None, options: argparse.Namespace
) -> Trial:
    """Try a version against another; its record says how it went. For every command that tries.

    Args:
        context: of the command.
        store: that holds both.
        version: to be tried.
        baseline: what it is compared with; None: it is judged by itself.
        options: those of `add_limits`, and the time that it may take.

    Raises:
        AsrError: nothing can be tried.
    """
    if baseline is None:
        context.progress(
            "compares it with no version: none serves, or the embedded one, which is for demonstration"
            + ("; --max-slowdown has no effect" if options.max_slowdown is not None else "")
        )
    return run_trial(
        store,
        version,
        baseline=baseline,
        options=trial_options(options.clips, options.max_cer, options.max_slowdown, options.timeout),
        progress=context.progress,
    )


def trial_options(
    clips: Path | None, max_cer: float | None, max_slowdown: float | None, timeout: float
) -> TrialOptions:
    """The options of a trial whose texts a worker will compare with its own: in an engine like its own.

    Raises:
        SettingError: a setting is wrong.
    """
    known = settings.load()
    usual = TrialOptions()
    return TrialOptions(
        clips=clips,
        max_cer=max_cer,
        max_slowdown=max_slowdown if max_slowdown is not None else usual.max_slowdown,
        threads=known.thread_count(),
        device=known.device,
        bake=known.bake_mode(),
        load_timeout=known.ready_timeout,
        timeout=timeout,
    )


def _serving_version(context: Context, store: Store) -> Version | None:
    try:
        serving = context.service.status().version
    except (NotRunning, StatusError):
        serving = None
    return baseline_of(store, serving)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The arguments of a trial, for every command that tries a version."""
    parser.add_argument(
        "--max-cer",
        type=_rate,
        metavar="X",
        help="character error rate on the acceptance set, at most, from 0 to 1"
        " (default: 0.05 above that of the version that serves; where none does, or the embedded model, 0.5"
        " on your own recordings)",
    )
    parser.add_argument(
        "--max-slowdown",
        type=_factor,
        metavar="X",
        help="CPU time against the version that serves, at most (default: 5 times; where none does, or the"
        " embedded model, a version must be faster than real time)",
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="FOLDER",
        help="recordings and, beside each, NAME.txt with what is said; also in sub-folders zh, en, yue, ja,"
        " ko (default: $ASR_STORE/golden, or the clips that come with asrsvc while there are none)",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_version(parser)
    add_limits(parser)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _factor(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 1):
        raise ValueError
    return value


# As argparse names them in its message.
_rate.__name__ = "rate from 0 to 1"
_factor.__name__ = "factor of at least 1"

COMMANDS: Final = (
    Command(
        "try",
        "try a version on recordings, apart from the service",
        try_version,
        3600,
        arguments=_add_arguments,
        apart=True,
        interrupted="the trial was broken off; the record of the version is as it was",
    ),
)
