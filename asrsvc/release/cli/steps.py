"""Where deploy and history meet the parts that are heavy: pull, trial and their options.

They are imported when they are needed: all other commands work before anything is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from asrsvc.release.cli.command import Context
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import Verdict


def pull(context: Context, store: Store, source: str, name: str | None) -> Version:
    """Bring a version into the store.

    Raises:
        AsrError: the source, the network or the disk refuses.
    """
    pulling: Any = import_module("asrsvc.release.pull")
    context.progress(f"pulling {source}")
    version: Version = pulling.pull(store, source, name=name, progress=lambda _progress: None)
    context.progress(f"{version.id} is in the store")
    return version


def try_out(
    context: Context, store: Store, version: Version, baseline: Version | None, *, max_cer: float | None
) -> Verdict:
    """Try a version against another; its record says how it went.

    Raises:
        AsrError: it cannot be tried.
    """
    trial: Any = import_module("asrsvc.release.trial")
    options = trial.TrialOptions() if max_cer is None else trial.TrialOptions(max_cer=max_cer)
    verdict: Verdict = trial.run_trial(
        store, version, baseline=baseline, options=options, progress=context.progress
    )
    return verdict


def quality(store: Store) -> str:
    """The error rates of the versions over time, as a table."""
    trial: Any = import_module("asrsvc.release.trial")
    return str(trial.quality(store))
