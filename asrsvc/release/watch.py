"""The look at a version that has begun to serve: whether it does worse than the one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from asrsvc.errors import RollAborted
from asrsvc.release.numbers import NOTHING, Numbers, Thresholds, compare, compare_errors
from asrsvc.release.swap_types import Service, Serving, Terms
from asrsvc.release.versions import Version

_LOOK_SECONDS: Final = 0.25


CALLED_OFF: Final = "somebody has called it off"
"""what is wrong, where the numbers are not"""


def watch(
    service: Service,
    version: Version,
    before: Serving,
    terms: Terms,
    *,
    called_off: Callable[[], bool],
    comparable: bool = True,
) -> str | None:
    """Look at the numbers for a while; what is wrong, or None.

    Args:
        service: that serves it.
        version: that has begun to serve.
        before: what the service said before the switch.
        terms: see `Terms`.
        called_off: whether somebody wants the version taken back.
        comparable: whether text and speed may be compared with those of the version before.

    Raises:
        RollAborted: somebody has changed the version meanwhile.
        AsrError: the service has ended, or cannot be asked.
    """
    if terms.watch_seconds > 0:
        terms.say(f"{version.id} serves; watching it for {terms.watch_seconds:g} s")
    allowed = service.thresholds()
    old = before.numbers.get(before.version or "", NOTHING)
    end = time.monotonic() + terms.watch_seconds
    while time.monotonic() < end:
        now = service.serving()
        if now is None:
            raise RollAborted(
                f"the service has ended while {version.id} was watched; the next start serves it"
            )
        if now.version != version.id:
            raise RollAborted(f"{now.version} serves: somebody has taken {version.id} back meanwhile")
        if called_off():
            return CALLED_OFF
        wrong = _judge(version, before, now, allowed, old, forced=terms.forced or not comparable)
        if wrong is not None:
            return wrong
        time.sleep(_LOOK_SECONDS)
    return None


def _judge(
    version: Version, before: Serving, now: Serving, allowed: Thresholds, old: Numbers, *, forced: bool
) -> str | None:
    dead = now.deaths.get(version.id, 0) - before.deaths.get(version.id, 0)
    if dead > 0:
        return f"{dead} of its workers died"
    new = now.numbers.get(version.id, NOTHING).since(before.numbers.get(version.id, NOTHING))
    # What the old version has answered in the roll comes nearest in time: the machine was as busy then.
    lately = now.numbers.get(before.version or "", NOTHING).since(old)
    if before.version != version.id and min(lately.requests, sum(lately.costs)) >= allowed.min_samples:
        old = lately
    wrong = compare(new, old, allowed, forced=forced)
    if wrong is None and old.requests < allowed.min_samples:
        # Too little is known of the old version's text and speed; errors are to be none.
        wrong = compare_errors(new, allowed)
    return wrong
