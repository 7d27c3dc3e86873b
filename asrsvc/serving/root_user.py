"""What a program does first where root runs it: become the user whom the service's folders belong to."""

from __future__ import annotations

import os
from pathlib import Path

from asrsvc import settings
from asrsvc.errors import RootRefused
from asrsvc.release.ownership import look
from asrsvc.release.privileges import Place, User, become, heir, is_root
from asrsvc.settings import Settings


def take_over(user: User, place: Place, *, starts_processes: bool) -> None:
    """Become a user for good, and have its environment.

    Args:
        user: see `heir`.
        place: that belongs to this user.
        starts_processes: whether that user must be able to run this program too.

    Raises:
        RootRefused: see `become`.
    """
    become(user, place, starts_processes=starts_processes)
    settings.belong_to(user.name, user.home)


def config_places() -> tuple[Place, ...]:
    """The file of settings, if there is one: who can change it chooses what a program works on."""
    path = settings.config_file()
    return (Place(settings.CONFIG_VARIABLE, path, is_file=True),) if path is not None else ()


def owner_of_service(loaded: Settings) -> tuple[User, Place] | None:
    """The user who a start by root becomes, and the place that says so; None: it goes on as it is.

    Raises:
        RootRefused: the folders of the service are not one user's.
    """
    if not is_root():
        return None
    store = Place("ASR_STORE", loaded.store)
    user = heir(store, _others(loaded))
    return None if user is None else (user, store)


def make_folders_for(user: User, loaded: Settings) -> None:
    """Make what is missing of the service's folders, where that user could not.

    Raises:
        RootRefused: the disk refuses.
    """
    for path in (loaded.runtime_dir, loaded.state_dir):
        try:
            way = look(path)
            if not way.whole and way.of_root_alone:
                path.mkdir(mode=0o750, parents=True)
                os.chown(path, user.uid, user.gid)
        except OSError as error:
            raise RootRefused(f"{path} cannot be made for {user.name}: {error.strerror}") from error


def refuse_foreign_folders(loaded: Settings) -> None:
    """For a master that was started by hand: it stays who it is.

    Raises:
        RootRefused: it is root, and the folders of the service are not root's alone.
    """
    if (owner := owner_of_service(loaded)) is not None:
        user, place = owner
        raise RootRefused(
            f"{place} belongs to {user.name}, and root starts the service: start it with bin/serve"
        )


def _others(loaded: Settings) -> list[Place]:
    """What else the service writes to or believes."""
    places = [Place("ASR_RUNTIME_DIR", loaded.runtime_dir), Place("ASR_STATE_DIR", loaded.state_dir)]
    if loaded.api_keys is not None:
        places.append(Place("ASR_API_KEYS", loaded.api_keys, is_file=True))
    places += [
        Place(setting, Path(bind.removeprefix("unix:")), is_file=True)
        for setting, bind in (("ASR_BIND", loaded.bind), ("ASR_OPS_BIND", loaded.ops_bind))
        if bind.startswith("unix:")
    ]
    return [*places, *config_places()]
