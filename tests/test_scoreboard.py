"""Numbers that survive the process that wrote them."""

from __future__ import annotations

import signal
import subprocess
import sys

from asrsvc.serving.cores import SharedCores
from asrsvc.serving.scoreboard import NOTHING, ROWS, Column, Numbers, Scoreboard


def test_a_row_holds_what_was_written() -> None:
    board = Scoreboard.create()
    row = board.row(7)
    row[Column.IN_HAND] = 2
    row.add(Column.REQUESTS)
    row.add(Column.REQUESTS, 4)
    row.add(Column.AUDIO_MS, 12_345)
    assert board.row(7).numbers() == Numbers(2, 5, 0, 0, 12_345, 0)
    assert row[Column.STOPPING] == 0
    row.clear()
    assert row.numbers() == NOTHING


def test_rows_do_not_touch_each_other() -> None:
    board = Scoreboard.create()
    for worker in range(ROWS):
        for column in Column:
            board.row(worker)[column] = worker
    for worker in range(ROWS):
        assert [board.row(worker)[column] for column in Column] == [worker] * len(Column)


def test_a_row_is_used_again_but_never_the_masters() -> None:
    board = Scoreboard.create()
    board.row(0)[Column.STOPPING] = 1
    for worker in (1, ROWS - 1, ROWS, 2 * ROWS - 2, 10_000):
        board.row(worker).clear()
        board.row(worker).add(Column.REQUESTS)
    assert board.row(0)[Column.STOPPING] == 1
    assert board.row(ROWS)[Column.REQUESTS] == board.row(1)[Column.REQUESTS]


def test_one_number_is_summed_over_all_workers() -> None:
    board = Scoreboard.create()
    for worker in (1, 2, ROWS - 1):
        board.row(worker).add(Column.RUNNING, worker)
        board.row(worker).add(Column.IN_HAND, 1000)
    assert board.row(5).total(Column.RUNNING) == 1 + 2 + ROWS - 1
    assert board.row(5).total(Column.IN_HAND) == 3000


def test_workers_share_the_cores_of_one_machine() -> None:
    board = Scoreboard.create()
    one, other = SharedCores(board.row(1), 2), SharedCores(board.row(2), 2)
    assert one.idle(background=False)
    one.began(background=False)
    assert other.idle(background=False)
    other.began(background=False)
    assert not one.idle(background=False)
    other.ended(background=False)
    assert one.idle(background=False)
    board.row(1)[Column.RUNNING] = 0  # as the master does for one that was killed
    assert other.idle(background=False)


def test_what_runs_in_the_background_is_in_the_way_of_its_kind_alone() -> None:
    board = Scoreboard.create()
    one, other = SharedCores(board.row(1), 2), SharedCores(board.row(2), 2)
    one.began(background=True)
    one.began(background=False)
    assert not other.idle(background=True)
    assert other.idle(background=False)
    one.ended(background=False)
    assert other.idle(background=True)
    one.ended(background=True)
    assert one.idle(background=True)


def test_numbers_are_added_and_compared() -> None:
    before, now = Numbers(3, 10, 1, 2, 1000, 100), Numbers(1, 15, 1, 3, 1600, 190)
    assert now.since(before) == Numbers(1, 5, 0, 1, 600, 90)
    assert before.plus(now) == Numbers(4, 25, 2, 5, 2600, 290)
    assert now.plus(NOTHING) == now


WRITER = """
import os, signal, sys
from asrsvc.serving.cores import SharedCores
from asrsvc.serving.scoreboard import Column, Scoreboard
row = Scoreboard(int(sys.argv[1])).row(3)
row[Column.IN_HAND] = 4
row.add(Column.REQUESTS, 2**40)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_numbers_of_a_killed_process_can_be_read() -> None:
    board = Scoreboard.create()
    row = board.row(3)
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(board.descriptor)], pass_fds=[board.descriptor], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (row[Column.IN_HAND], row[Column.REQUESTS]) == (4, 2**40)
