"""The running service as the tool sees it: its status file, its master's process, its signals."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asrsvc.errors import NotPermitted, NotRunning, ReloadRefused, RootRefused, WaitTimeout
from asrsvc.release.ownership import look
from asrsvc.release.privileges import is_root
from asrsvc.serving import status as status_file
from asrsvc.serving.status import Roll, Status

_POLL_SECONDS: Final = 0.05


class Service:
    """The service whose files are in one runtime folder."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / status_file.FILE_NAME

    def status(self) -> Status:
        """What the service says of itself.

        Raises:
            NotRunning: there is none.
            StatusError: the status file is damaged, or cannot be read.
        """
        try:
            self._path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            text = f"no service is running: {self._path} is not there (ASR_RUNTIME_DIR names it)"
            raise NotRunning(text) from None
        except OSError:
            pass  # why, the reading says
        found = status_file.read(self._path)
        # Where nothing can be loaded the master lives on, and another version may be what helps.
        if not status_file.is_alive(found):
            raise NotRunning(f"no service is running: process {found.master.pid} of {self._path} has ended")
        return found

    def hang_up(self, status: Status) -> None:
        """Ask the master to read settings and wish again.

        Raises:
            NotPermitted: it belongs to another user.
            NotRunning: it has just ended.
            RootRefused: root cannot tell whether the status file names the master.
        """
        pid = status.master.pid
        try:
            if is_root():
                self._hang_up_with_care(status)
            else:
                os.kill(pid, signal.SIGHUP)
        except ProcessLookupError as error:
            raise NotRunning(f"no service is running: process {pid} has just ended") from error
        except PermissionError as error:
            raise NotPermitted(f"process {pid} takes signals from {_owner(pid)} and root alone") from error

    def _hang_up_with_care(self, status: Status) -> None:
        """Send the signal with root's rights, to none that the writer of the status file could not signal.

        Raises:
            ProcessLookupError: the master has ended.
            RootRefused: others than the master's user may write where the status file is.
        """
        pid = status.master.pid
        way = look(self._path.parent)
        process = _open_process(pid)  # from here on the same one, whatever becomes of its number
        try:
            users = status_file.users_of(pid)
            theirs = way.open is None and way.owners.keys() == users
            if not (way.of_root_alone or theirs):
                raise RootRefused(
                    f"{self._path} names process {pid} of {_owner(pid)}, and others than that user and root"
                    " may write there: root sends it no signal; give ASR_RUNTIME_DIR to the service's user"
                )
            if not status_file.is_alive(status):
                raise ProcessLookupError
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGHUP)
            else:
                os.kill(pid, signal.SIGHUP)
        finally:
            if process is not None:
                os.close(process)

    def watch(self, before: Status, timeout: float) -> Iterator[Status]:
        """The status, again and again, while the same master lives.

        Args:
            before: what it said before it was asked for something.
            timeout: seconds.

        Raises:
            NotRunning: the master has ended, or another one has taken over.
            ReloadRefused: it does not do what it was asked for.
            WaitTimeout: the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if status.master != before.master:
                raise NotRunning(
                    f"process {before.master.pid} has been replaced by {status.master.pid} meanwhile:"
                    " what it had begun was not seen to end"
                )
            if status.state == "stopping":
                raise NotRunning("the service is being stopped")
            if status.refused is not None and status.refused != before.refused:
                raise ReloadRefused(f"the service refused to reload: {status.refused.error}")
            yield status
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"{_under_way(status)} within {timeout:g} s; the service goes on with it")
            time.sleep(_POLL_SECONDS)


def describe(roll: Roll) -> str:
    """A roll in a few words."""
    if roll.source == roll.target:
        return f"roll {roll.id} ({roll.target} again)"
    return f"roll {roll.id} ({roll.source or 'nothing'} to {roll.target})"


def _open_process(pid: int) -> int | None:
    """A descriptor of a process; None: this kernel has none, it is older than 5.3; pidfd_open(2)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return None
        raise


def _owner(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}").owner()
    except (OSError, KeyError):
        return "its own user"


def _under_way(status: Status) -> str:
    roll = status.roll
    return f"{describe(roll)} did not end" if roll and status.rolling else "no roll began"
