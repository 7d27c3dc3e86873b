"""Whether a version's token ids are those of funasr-onnx, the engine that SenseVoice was published with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asrsvc.release.process import Child, ChildBroke, ChildRefused, Limits
from asrsvc.release.trial.subject import Subject
from asrsvc.release.trial.types import Reference, TrialOptions

_MODULE: Final = "asrsvc.release.trial.reference"
_ANSWER_SECONDS: Final = 60.0


def compare_with_reference(
    tried: Subject, files: Sequence[str], options: TrialOptions, limits: Limits
) -> Reference:
    """Ask both for each embedded clip, with and without ITN, language auto.

    The two compute features in another order, and where two tokens are almost as likely the rounding
    decides. So ids that differ are asked for again from the reference's own features.

    Args:
        tried: the version, loaded.
        files: names of embedded clips.
        options: of the trial.
        limits: of the reference's process.

    Raises:
        ChildBroke: the version's process did not answer.
        ChildRefused: the version's engine failed.
    """
    child = Child(_MODULE, limits)
    try:
        return _compare(tried, child, files, options)
    finally:
        child.end()


def _compare(tried: Subject, child: Child, files: Sequence[str], options: TrialOptions) -> Reference:
    asks = [(file, use_itn) for file in files for use_itn in (True, False)]
    name, equal, rounded, differ = "funasr-onnx", 0, 0, []
    try:
        question: dict[str, object] = {"do": "load", "folder": str(tried.version.path)}
        name = str(child.ask(question, doing="while it loaded", seconds=options.load_timeout)["name"])
        for file, use_itn in asks:
            question = {"do": "ids", "file": file, "use_itn": use_itn}
            wanted = child.ask(question, doing=f"at {file}", seconds=_ANSWER_SECONDS)
            doing = f"while it was compared with {name}"
            found = _ask(tried, question, doing)
            if found == wanted["ids"]:
                equal += 1
                continue
            again: dict[str, object] = {
                "do": "ids_of_features",
                "features": wanted["features"],
                "use_itn": use_itn,
            }
            if _ask(tried, again, doing) == wanted["ids"]:
                rounded += 1
            else:
                differ.append(file if use_itn else f"{file} without ITN")
    except _OfTheVersion as error:
        raise error.cause from None
    except ChildBroke as error:
        return Reference(name, skipped=f"it cannot say: {error}")
    except ChildRefused as error:
        return Reference(name, skipped=error.message)
    return Reference(name, len(asks), equal, rounded, tuple(differ), None)


class _OfTheVersion(Exception):
    """What went wrong on the side of the version, not of the reference."""

    def __init__(self, cause: ChildBroke | ChildRefused) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _ask(tried: Subject, question: dict[str, object], doing: str) -> object:
    try:
        return tried.ask(question, doing=doing, seconds=_ANSWER_SECONDS).get("ids")
    except (ChildBroke, ChildRefused) as error:
        raise _OfTheVersion(error) from None
