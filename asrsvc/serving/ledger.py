"""What the master writes into the store: which version served, and why another one did not."""

from __future__ import annotations

from asrsvc.errors import StoreError
from asrsvc.release.files import Link
from asrsvc.release.store import Store, Version
from asrsvc.serving.roll import Result, Settle


class Ledger:
    """The master's side of the store; it never takes the store's lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken: Link | None = None

    def take_wish(self, base: str | None) -> Version:
        """What to roll to now; see `Store.wish`. It is dropped when its roll has failed.

        Raises:
            StoreError: a pointer is broken, or there is no version to serve.
        """
        taken = self._store.look_at_next()
        wish = self._store.wish(base)
        if wish is None:
            raise StoreError(f"{self._store.root} holds no version to serve")
        self._taken = taken
        return wish

    def settle(self, end: Settle, *, source: str | None, base: str | None) -> None:
        """A roll has ended: move the pointers, or record why not.

        Args:
            end: of the roll.
            source: id of the version that served before the roll.
            base: id of the version that serves now.

        Raises:
            StoreError: the disk refuses; what has been done so far is consistent.
        """
        version = self._store.version(end.version)
        if end.result is Result.SUCCEEDED:
            self._store.promote(version, settled=source)
            return
        if end.result is Result.FAILED:
            if self._taken is not None:
                self._store.drop_next(version, self._taken)
            self._store.records.note_refused(version.id, end.error or "")
        # One that was called off had lost its wish before: what is there now was made since.
        if base is not None:
            self._store.restore_current(self._store.version(base))

    def first_serves(self, base: str) -> Version | None:
        """The start has succeeded: note what serves; the wish found on disk, if it is another version.

        Raises:
            StoreError: the disk refuses, or a pointer is broken and cannot be put back.
        """
        served = self._store.version(base)
        self._store.records.note_served(served.id)
        try:
            wish = self._store.wish(served.id)
        except StoreError:
            # A pointer leads nowhere: a reload would be refused for ever.
            self._store.restore_current(served)
            wish = self._store.wish(served.id)
        return wish if wish is not None and wish.id != served.id else None
