"""What bin/swap-model does first where root runs it: become the user whom the store belongs to."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace

from asrsvc import settings
from asrsvc.errors import AsrError, RootRefused
from asrsvc.release.cli.command import Context
from asrsvc.release.privileges import Place, User, heir, is_root, open_to_readers
from asrsvc.release.source_folder import opened_by_root
from asrsvc.release.sources import Folder, parse
from asrsvc.serving.root_user import config_places, take_over
from asrsvc.settings import SettingError


def leave_root(context: Context, options: argparse.Namespace) -> Context:
    """Become the store's owner, unless the store is root's alone; what the command is to work with.

    The runtime folder may be another user's where root stays root: nothing in it is trusted, see `Service`.

    Args:
        context: of the command.
        options: of the command. A source that is a folder is opened before: the owner may not be able to.

    Raises:
        RootRefused: root must not work there.
    """
    if not is_root():
        return context
    open_to_readers()
    store, runtime = _place("ASR_STORE"), _place("ASR_RUNTIME_DIR")
    place = store or runtime
    if place is None:
        return context  # the command looks at neither, and says which setting is wrong
    user = heir(place, config_places(), () if runtime is None else (runtime,))
    if user is None:
        return context
    if getattr(options, "source", None) is not None:
        options.source = _opened(options.source, user)
    take_over(user, place, starts_processes=_starts_processes(options))
    context.progress(f"goes on as {user.name}, whom {place} belongs to")
    return replace(context, on_behalf_of=context.on_behalf_of or settings.behind_sudo() or "root")


def _place(name: str) -> Place | None:
    with suppress(SettingError):
        return Place(name, settings.value(name))
    return None


def _opened(text: str, user: User) -> str | Folder:
    """The source, its files open if it is a folder."""
    try:
        source = parse(text)
        if isinstance(source, Folder):
            return opened_by_root(source, user)
    except RootRefused:
        raise
    except (AsrError, OSError):
        pass  # what is wrong with it, the command says
    return text


def _starts_processes(options: argparse.Namespace) -> bool:
    """Whether the command needs more than what is loaded by now: processes of its own, or packages."""
    return getattr(options, "apart", True) or isinstance(getattr(options, "source", None), str)
