"""What is scarce in a worker, shared out among clients."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from asrsvc.errors import OverCapacity
from asrsvc.web.shares import Shares


def take_all(shares: Shares, client: str, held: ExitStack) -> int:
    count = 0
    while True:
        try:
            held.enter_context(shares.one_of(client))
        except OverCapacity:
            return count
        count += 1


def test_one_client_alone_gets_half_and_the_next_half_of_the_rest() -> None:
    shares = Shares(64, "streams")
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        assert take_all(shares, "a", first) == 32
        assert take_all(shares, "b", second) == 16
        assert take_all(shares, "c", third) == 8
        first.close()
        assert take_all(shares, "c", third) > 8


def test_what_is_let_go_is_free_again_whatever_has_happened() -> None:
    shares = Shares(2, "streams")
    for _ in range(5):
        with pytest.raises(ValueError, match="inside"), shares.one_of("a"):
            with pytest.raises(OverCapacity, match="1 streams of yours are open, of 1 in all"):
                shares.one_of("a").__enter__()
            raise ValueError("inside")
