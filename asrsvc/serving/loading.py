"""A version of the store, loaded by a worker and looked at before it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from asrsvc.errors import InferenceFailed, ModelError
from asrsvc.release.bake import Found
from asrsvc.release.versions import check_digests
from asrsvc.serving.twin import Looked, described
from asrsvc.serving.warmup import Expected, check, expected, has_served, too_slow
from asrsvc.settings import Settings
from asrsvc.speech.model import Model
from asrsvc.speech.sample import Heard, engine_key, hear, hear_again
from asrsvc.speech.segment import Segmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load makes: all that costs much time."""

    model: Model
    segmenter: Segmenter
    findings: Heard
    twin: Found | None
    """the faster twin of the version, whether it is served or not; None: none was looked for"""


def load(
    folder: Path,
    looked: Callable[[], Looked],
    *,
    version: str,
    tried: bool,
    reference_cost: float | None,
    settings: Settings,
) -> Loaded:
    """Load a version and look at what it says.

    Args:
        folder: of the version.
        looked: waits for what `twin.look` has found; nothing is opened before that.
        version: its id.
        tried: whether text and speed are compared.
        reference_cost: see `warmup.check`.
        settings: in force.

    Raises:
        StoreError: its files are not those that were stored.
        ModelError: it cannot be loaded, or says wrong things.
        InferenceFailed: it loads and does not run.
    """
    threads, device = settings.thread_count(), settings.device
    found = looked()
    trial: Expected | None = None
    if tried:
        key = engine_key(threads=threads, device=device)
        trial = expected(settings.store, version, found.digests, key)
    # What says here what it said in its trial, and has served since, need not say it all again.
    known = (trial is not None or not tried) and has_served(settings.store, version)

    def opened(baked: Path | None) -> tuple[Model, Heard]:
        model = Model.load(folder, version=version, threads=threads, device=device, baked=baked, run=False)
        return model, hear(model, briefly=known)

    model, findings, twin = _by_twin_or_published(folder, found.twin, version, opened)
    if tried:
        findings = hear_again(
            model, findings, lambda cost: too_slow(cost, findings.runs, reference_cost, trial) is not None
        )
        check(findings, reference_cost, trial)
    return Loaded(model, Segmenter(), findings, twin)


def _by_twin_or_published(
    folder: Path, twin: Found | None, version: str, opened: Callable[[Path | None], tuple[Model, Heard]]
) -> tuple[Model, Heard, Found | None]:
    """By the twin, if that is as it was made and runs, else by the published file."""
    if twin is not None and twin.usable is not None:
        try:
            return *opened(twin.usable), twin
        except (ModelError, InferenceFailed) as error:
            twin = replace(twin, state="damaged", problem=error.message)
            check_digests(folder)  # nobody has read the published file yet
    if twin is not None:
        log.warning("%s", described(twin, version, folder), extra={"version": version})
    return *opened(None), twin
