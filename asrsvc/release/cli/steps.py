"""Where deploy and history meet the parts that are heavy: pull, trial and their options.

They are imported when they are needed: all other commands work before anything is installed.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import Any, Final

from asrsvc.release.cli.command import Context
from asrsvc.release.store import Store, Version
from asrsvc.release.swap import Verdict

_TRIAL_SECONDS: Final = 3600.0


def pull(context: Context, store: Store, source: str, name: str | None) -> Version:
    """Bring a version into the store.

    Raises:
        AsrError: the source, the network or the disk refuses.
    """
    pulling: Any = import_module("asrsvc.release.pull")
    getting: Any = import_module("asrsvc.release.cli.getting")
    bar = import_module("asrsvc.release.cli.bar").Bar(context)
    context.progress(f"pulling {source}")
    try:
        version: Version = pulling.pull(store, source, name=name, endpoints=getting.endpoints(), progress=bar)
    finally:
        bar.clear()
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
    trying: Any = import_module("asrsvc.release.cli.trying")
    options = trying.trial_options(None, max_cer, None, _TRIAL_SECONDS)
    verdict: Verdict = trial.run_trial(
        store, version, baseline=baseline, options=options, progress=context.progress
    )
    return verdict


def quality(store: Store) -> tuple[str, list[dict[str, Any]]]:
    """The error rates of the versions over time, as a table and as data."""
    trial: Any = import_module("asrsvc.release.trial")
    rows = trial.quality(store)
    return str(trial.quality_table(rows)), [asdict(row) for row in rows]
