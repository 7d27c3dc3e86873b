"""The store of jobs: who may see, take and end which; what is left when a process dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE

from asrsvc.errors import JobsUnavailable, NoSpace, NotFound, TooManyJobs
from asrsvc.jobs import store as store_module
from asrsvc.jobs.claims import Claim, Claims, Findings
from asrsvc.jobs.database import SCHEMA
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.store import JobStore
from asrsvc.jobs.types import Found, Job, JobError, Limits
from asrsvc.speech.transcribe import Options
from asrsvc.speech.types import AUDIO_INCOMPLETE, Notice, Segment, Token, Word

CHECKOUT = Path(__file__).resolve().parent.parent
LIMITS = Limits(running=4, kept=200, kept_of_client=100, bytes=2**30, keep_seconds=3600, deaths=3)
OPTIONS = Options(language="yue", use_itn=False, words=True, tokens=True)
DEADLINE = PATIENCE
NOTICE = Notice(AUDIO_INCOMPLETE, "file is cut off: 3 s of 5 s are there")


def segment(start: float) -> Segment:
    words = (Word("早", start, start + 0.1, 0.9), Word("晨", start + 0.1, start + 0.2, 0.8))
    tokens = (Token(7, start, start + 0.1, 0.95, 0, 1), Token(9, start + 0.1, start + 0.2, 0.75, 1, 2))
    return Segment(start, start + 0.5, "早晨", "yue", "happy", ("bgm", "cough"), 0.85, words, tokens, 0.01)


class Place:
    """A state folder, as one worker sees it."""

    def __init__(self, folder: Path, limits: Limits = LIMITS) -> None:
        self.folder = folder
        self.storage = Storage.at(folder, limits)
        self.store = JobStore(self.storage)
        self.claims = Claims(self.storage)
        self.uploads = folder / "jobs" / "uploads"

    def begin(self, client: str = "", content: bytes = b"sound") -> Job:
        arrival = self.store.receive(client, len(content))
        descriptor = arrival.lock.open()
        os.write(descriptor, content)
        os.close(descriptor)
        return self.store.queue(arrival, OPTIONS)

    def take(self, beside: int = 0) -> Claim:
        claim = self.claims.take(beside=beside)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, *segments: Segment) -> None:
        assert self.claims.finish(claim, Findings("v1", segments, 16_000, 1.0))
        claim.lock.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "state")
    yield place
    place.store.close()


@contextmanager
def another(place: Place, **limits: float) -> Iterator[Place]:
    """The same folder, as another worker sees it."""
    other = Place(place.folder, replace(LIMITS, **limits))  # type: ignore[arg-type]
    try:
        yield other
    finally:
        other.store.close()


def test_a_job_goes_from_its_upload_to_its_result(place: Place) -> None:
    made = place.begin("alice", b"some sound")
    assert (made.state, made.client, made.options) == ("queued", "alice", OPTIONS)
    claim = place.take()
    assert claim.job.id == made.id
    assert claim.job.state == "running"
    descriptor = claim.lock.open()
    assert os.read(descriptor, 100) == b"some sound"
    os.close(descriptor)
    assert place.claims.keep(claim, Findings("v1", (segment(0), segment(1)), 32_000, 9.0))
    job = place.store.read(made.id, "alice")
    assert (job.audio_seconds, job.duration, job.segments, job.versions) == (2.0, 9.0, 2, ("v1",))
    assert place.claims.finish(claim, Findings("v2", (segment(5),), 90_000, 8.5))
    claim.lock.close()
    job, found = place.store.look(made.id, "alice")
    assert (job.state, job.audio_seconds, job.version, job.versions) == ("succeeded", 8.5, "v2", ("v1", "v2"))
    assert found == [Found(1, "v1", segment(0)), Found(2, "v1", segment(1)), Found(3, "v2", segment(5))]
    assert place.store.look(made.id, "alice", after=1, limit=1)[1] == found[1:2]
    assert not any(place.uploads.iterdir())


def test_nothing_is_made_before_the_first_job(place: Place) -> None:
    assert place.claims.take(beside=0) is None
    place.store.sweep()
    assert not place.folder.exists()


def test_others_do_not_see_a_clients_jobs(place: Place) -> None:
    job = place.begin("alice").id
    for client in ("bob", "", "ALICE"):
        for ask in (place.store.read, place.store.look, place.store.end):
            with pytest.raises(NotFound, match=job):
                ask(job, client)  # type: ignore[operator]
        assert place.store.page(client, before=2**53, limit=10) == []
    assert [j.id for j in place.store.page("alice", before=2**53, limit=10)] == [job]


def test_what_is_being_received_is_nobodys_yet(place: Place) -> None:
    arrival = place.store.receive("alice", 10)
    with pytest.raises(NotFound):
        place.store.read(arrival.id, "alice")
    assert place.claims.take(beside=0) is None
    place.store.sweep()
    assert [path.name for path in place.uploads.iterdir()] == [arrival.id]
    place.store.discard(arrival)
    assert not any(place.uploads.iterdir())


def test_no_more_than_so_many_run_over_all_workers(place: Place) -> None:
    for _ in range(6):
        place.begin()
    with another(place) as other:
        taken = [(place, other)[n % 2].take() for n in range(LIMITS.running)]
        assert len({claim.job.id for claim in taken}) == LIMITS.running
        assert place.claims.take(beside=2) is None
        assert other.claims.take(beside=2) is None
        place.finish(taken[0])
        assert other.take().job.id not in {claim.job.id for claim in taken}


def test_clients_take_turns_and_what_was_begun_goes_first(place: Place) -> None:
    ids = {place.begin(client).id: client for client in ("alice", "alice", "alice", "bob", "bob")}
    order = []
    for _ in range(2):
        claim = place.take()
        order.append(ids[claim.job.id])
        place.finish(claim)
    assert sorted(order) == ["alice", "bob"]
    begun = place.take()
    assert place.claims.give_back(begun, Findings("v1", (), 10, None))
    begun.lock.close()
    assert place.take().job.id == begun.job.id


def test_a_job_whose_lock_is_free_is_taken_over_with_what_was_found(place: Place) -> None:
    place.begin()
    claim = place.take()
    assert place.claims.keep(claim, Findings("v1", (segment(0),), 16_000, None))
    claim.lock.close()  # as the kernel does it when a process dies
    with another(place) as other:
        again = other.take()
        assert (again.turn, again.job.reached, again.job.segments) == (2, 16_000, 1)
        stale = Findings("v1", (segment(9),), 99_000, None)
        assert not place.claims.keep(claim, stale)
        assert not place.claims.give_back(claim, stale)
        assert not place.claims.fail(claim, JobError("x", "y"))
        assert not place.claims.finish(claim, stale)
        other.finish(again, segment(1))
        _job, found = other.store.look(claim.job.id, "")
        assert [one.segment for one in found] == [segment(0), segment(1)]


def test_a_cancelled_job_belongs_to_nobody(place: Place) -> None:
    job = place.begin().id
    claim = place.take()
    assert place.claims.lost([claim]) == []
    cancelled = place.store.end(job, "")
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    assert place.claims.lost([claim]) == [claim]
    assert not place.claims.finish(claim, Findings("v1", (), 1, 1.0))
    assert place.store.read(job, "").state == "cancelled"
    assert place.store.end(job, "") is None
    with pytest.raises(NotFound):
        place.store.end(job, "")


def die(claim: Claim) -> None:
    """What is left of a worker that dies."""
    claim.lock.close()


def test_a_job_that_kills_its_workers_is_given_up_and_they_have_no_other_beside_it(place: Place) -> None:
    bad = place.begin().id
    for turn in (1, 2):
        claim = place.take(beside=1)
        assert (claim.job.id, claim.turn, claim.alone) == (bad, turn, False)
        die(claim)
    good = place.begin().id
    assert place.take(beside=1).job.id == good
    claim = place.take()
    assert (claim.job.id, claim.turn, claim.alone) == (bad, 3, True)
    die(claim)
    assert place.claims.take(beside=0) is None
    job = place.store.read(bad, "")
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "job_kills_workers"
    assert "3 workers" in job.error.message


def test_deaths_with_progress_between_them_are_no_reason_to_give_up(place: Place) -> None:
    place.begin()
    for turn in range(1, 8):
        claim = place.take(beside=1)
        assert claim.turn == turn
        assert place.claims.keep(claim, Findings("v1", (), 100 * turn, None))
        die(claim)


def test_what_was_given_back_is_no_death(place: Place) -> None:
    place.begin()
    for _ in range(8):
        claim = place.take(beside=1)
        assert place.claims.give_back(claim, Findings("v1", (), 0, None))
        claim.lock.close()


def test_a_job_whose_upload_is_lost_fails(place: Place) -> None:
    ids = [place.begin().id for _ in range(2)]
    place.take().lock.close()
    for path in place.uploads.iterdir():
        path.unlink()
    assert place.claims.take(beside=0) is None
    for job in ids:
        error = place.store.read(job, "").error
        assert error is not None
        assert error.code == "upload_lost"


def test_bytes_are_reserved_as_they_come(place: Place) -> None:
    with another(place, bytes=5 * 2**20) as narrow:
        arrivals = [narrow.store.receive("", 4 * 2**20) for _ in range(20)]  # of which nothing has come
        arrival, other = arrivals[:2]
        narrow.store.reserve(arrival, 2**20)
        narrow.store.reserve(other, 2**20)
        narrow.store.reserve(arrival, 4 * 2**20)
        with pytest.raises(NoSpace, match="the jobs that are kept take 5 of 5 MiB"):
            narrow.store.reserve(arrival, 4 * 2**20 + 1)
        with pytest.raises(NoSpace):
            narrow.store.reserve(other, 2**20 + 1)  # what was refused has changed nothing
        narrow.store.reserve(arrival, 2**20)
        narrow.store.reserve(other, 4 * 2**20)
        with pytest.raises(NoSpace):
            narrow.store.receive("", 1)
        for one in arrivals:
            narrow.store.discard(one)


def test_one_key_leaves_room_for_others(place: Place) -> None:
    with another(place, bytes=10 * 2**20) as narrow:
        of_alice = narrow.store.receive("alice", 8 * 2**20)
        narrow.store.reserve(of_alice, 8 * 2**20)
        with pytest.raises(NoSpace, match="your jobs take 8 MiB and 2 MiB are free"):
            narrow.store.reserve(of_alice, 8 * 2**20 + 1)
        of_bob = narrow.store.receive("bob", 2**20)
        narrow.store.reserve(of_bob, 2**20)
        for one in (of_alice, of_bob):
            narrow.store.discard(one)


def test_what_is_over_a_limit_is_refused_with_the_limit(place: Place) -> None:
    place.begin("alice")
    with another(place, kept_of_client=1) as other:
        with pytest.raises(TooManyJobs, match="1 of your jobs"):
            other.store.receive("alice", 1)
        other.store.discard(other.store.receive("bob", 1))
    with another(place, kept=1) as other, pytest.raises(TooManyJobs, match="1 jobs are kept"):
        other.store.receive("bob", 1)
    with another(place, bytes=5 * 2**20) as other:
        arrival = other.store.receive("", 5 * 2**20 - 5)
        other.store.reserve(arrival, 5 * 2**20 - 5)
        with pytest.raises(NoSpace, match="of 5 MiB"):
            other.store.receive("", 1)
        other.store.discard(arrival)
        other.store.discard(other.store.receive("", 5 * 2**20 - 5))
    with another(place, bytes=2**62) as other, pytest.raises(NoSpace, match="the disk has no room"):
        other.store.receive("bob", 2**60)
    assert len(list(place.uploads.iterdir())) == 1


def test_results_count_with_their_size_and_uploads_no_more(place: Place) -> None:
    place.begin(content=bytes(2**20))
    place.finish(place.take(), *(segment(n) for n in range(100)))
    with another(place, bytes=2**20 + 10) as other:
        with pytest.raises(NoSpace):
            other.store.receive("", 2**20)
        other.store.discard(other.store.receive("", 2**19))


def test_an_ended_job_expires(place: Place) -> None:
    job = place.begin().id
    waiting = place.begin().id
    place.finish(place.take())
    with another(place, keep_seconds=0) as other:
        time.sleep(0.01)
        with pytest.raises(NotFound):
            other.store.read(job, "")
        assert [j.id for j in other.store.page("", before=2**53, limit=10)] == [waiting]
        other.store.sweep()
    with pytest.raises(NotFound):
        place.store.read(job, "")
    assert place.store.read(waiting, "").state == "queued"


def test_a_sweep_removes_what_nobody_needs_and_nothing_else(place: Place) -> None:
    receiving, died = place.store.receive("", 1), place.store.receive("", 1)
    died.lock.close()
    waiting = place.begin().id
    (place.uploads / "orphan").write_bytes(b"x")
    place.store.sweep()
    assert {path.name for path in place.uploads.iterdir()} == {receiving.id, waiting}
    assert place.store.queue(receiving, OPTIONS).state == "queued"


def test_others_of_the_machine_may_not_read_it(place: Place) -> None:
    mask = os.umask(0)
    try:
        place.begin()
    finally:
        os.umask(mask)
    assert place.folder.stat().st_mode & 0o077 == 0
    for path in (place.folder / "jobs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def change_schema(place: Place, statement: str) -> None:
    with sqlite3.connect(place.folder / "jobs" / "jobs.sqlite3") as connection:
        connection.executescript(statement)
    connection.close()


def test_newer_code_may_add_columns_beside_this_code(place: Place) -> None:
    job = place.begin().id
    change_schema(
        place,
        "ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';"
        f"ALTER TABLE segments ADD COLUMN speaker TEXT; UPDATE about SET schema = {SCHEMA + 1};",
    )
    with another(place) as other:
        for one in (place, other):
            one.begin()
            claim = one.take()
            one.finish(claim, segment(0))
            assert one.store.look(claim.job.id, "")[1][0].segment == segment(0)
    assert place.store.read(job, "").state == "succeeded"


OLD_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE about (schema INTEGER NOT NULL, readable_from INTEGER NOT NULL);
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL,
  state TEXT NOT NULL, options TEXT NOT NULL DEFAULT '{}', bytes INTEGER NOT NULL, created REAL NOT NULL,
  started REAL, claimed REAL, ended REAL, claim INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
  reached INTEGER NOT NULL DEFAULT 0, duration REAL, version TEXT, error TEXT
);
CREATE TABLE segments (
  job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, number INTEGER NOT NULL,
  version TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (job, number)
) WITHOUT ROWID;
INSERT INTO about VALUES (1, 1);
"""
OLD_VIEW = """
CREATE TEMP VIEW seen AS SELECT
  id, number, client, state, options, created, started, ended, reached, duration, version, error,
  (SELECT count(*) FROM segments WHERE job = jobs.number) AS segments
FROM jobs WHERE state != 'receiving'
"""
OLD_OPTIONS = '{"language": "zh", "use_itn": false}'


@contextmanager
def old_code(place: Place) -> Iterator[sqlite3.Connection]:
    """The table as code of the first schema has made it, and that code's own connection to it."""
    path = place.folder / "jobs" / "jobs.sqlite3"
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(OLD_TABLES)
        connection.execute(OLD_VIEW)
        yield connection
    finally:
        connection.close()


def test_jobs_of_older_code_are_read_and_older_code_goes_on_beside(place: Place) -> None:
    insert = (
        "INSERT INTO jobs (id, client, state, options, bytes, created, ended, duration, version)"
        " VALUES (?, '', ?, ?, 1, 1, ?, 2.5, 'v1')"
    )
    soon = time.time()
    with old_code(place) as old:
        old.execute(insert, ("ended", "succeeded", OLD_OPTIONS, soon))
        read = place.store.read("ended", "")
        assert (read.state, read.options.language, read.duration) == ("succeeded", "zh", 2.5)
        assert (read.options.refuse_incomplete, read.warnings) == (False, ())
        # The old worker writes and reads on, with what it has open.
        old.execute(insert, ("later", "succeeded", OLD_OPTIONS, soon))
        assert place.store.read("later", "").warnings == ()
        made = place.begin()
        claim = place.take()
        assert place.claims.finish(claim, Findings("v2", (segment(0),), 16_000, 1.0, (NOTICE,)))
        claim.lock.close()
        assert [row[0] for row in old.execute("SELECT * FROM seen")] == ["ended", "later", made.id]
        with another(place) as other:  # opened when it is up to date
            assert other.store.read(made.id, "").warnings == (NOTICE,)
        assert old.execute("SELECT schema, readable_from FROM about").fetchall() == [(SCHEMA, 1)]


def test_many_who_find_the_table_of_older_code_at_once_bring_it_up_to_date_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrsvc.jobs.database._BUSY_SECONDS", DEADLINE)  # a slow disk has its time
    with old_code(place):
        pass
    others = [Place(place.folder) for _ in range(8)]
    with ThreadPoolExecutor(len(others)) as threads:
        pages = list(threads.map(lambda one: one.store.page("", before=9, limit=9), others))
    for one in others:
        one.store.close()
    assert pages == [[]] * len(others)


def test_warnings_stay_until_others_come_and_the_wish_to_refuse_is_kept(place: Place) -> None:
    arrival = place.store.receive("", 5)
    strict = replace(OPTIONS, refuse_incomplete=True)
    assert place.store.queue(arrival, strict).options == strict
    claim = place.take()
    assert claim.job.options == strict
    assert place.claims.give_back(claim, Findings("v1", (), 10, None, (NOTICE,)))
    claim.lock.close()
    with another(place) as other:
        claim = other.take()
        assert claim.job.warnings == (NOTICE,)
        assert other.claims.keep(claim, Findings("v2", (), 20, None))
        assert other.store.read(claim.job.id, "").warnings == (NOTICE,)
        better = replace(NOTICE, message="1 s of 2 s are there")
        assert other.claims.finish(claim, Findings("v2", (), 30, 1.0, (better,)))
        claim.lock.close()
        (listed,) = other.store.page("", before=9, limit=9)
        assert listed.warnings == (better,)


def test_what_newer_code_says_of_a_warning_is_left_out(place: Place) -> None:
    job = place.begin().id
    newer = [{"code": "a", "message": "b", "param": "file", "seconds": 3}, {"code": "c", "message": "d"}]
    with sqlite3.connect(place.folder / "jobs" / "jobs.sqlite3") as connection:
        connection.execute("UPDATE jobs SET warnings = ?", (json.dumps(newer),))
    connection.close()
    assert place.store.read(job, "").warnings == (Notice("a", "b", "file"), Notice("c", "d"))


def test_a_schema_that_this_code_cannot_use_is_left_alone(place: Place) -> None:
    place.begin()
    change_schema(place, "UPDATE about SET schema = 9, readable_from = 8")
    with pytest.raises(JobsUnavailable, match="schema 9"):
        place.claims.take(beside=0)
    with pytest.raises(JobsUnavailable, match="newer code"):
        place.begin()


def test_a_damaged_table_is_told(place: Place) -> None:
    (place.folder / "jobs").mkdir(parents=True)
    (place.folder / "jobs" / "jobs.sqlite3").write_bytes(b"this is no table at all\n" * 1000)
    with pytest.raises(JobsUnavailable, match="not a database"):
        place.begin()
    with pytest.raises(JobsUnavailable, match="not a database"):
        place.claims.take(beside=0)


def test_a_full_disk_changes_nothing_and_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.begin()
    claim = place.take()
    table = place.storage.database._open()
    (pages,) = table.execute("PRAGMA page_count").fetchone()
    table.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says on a full disk
    many = tuple(segment(n) for n in range(500))
    with pytest.raises(NoSpace, match="full"):
        place.claims.finish(claim, Findings("v1", many, 1, 1.0))
    assert place.store.read(claim.job.id, "").state == "running"
    table.execute("PRAGMA max_page_count = 1000000")
    assert place.claims.finish(claim, Findings("v1", many, 1, 1.0))
    monkeypatch.setattr(store_module, "_SPARE_BYTES", 2**62)
    with pytest.raises(NoSpace):
        place.begin()


WORKER = """
import sys, time
from pathlib import Path
from asrsvc.jobs import database
from asrsvc.jobs.claims import Claims, Findings
from asrsvc.jobs.storage import Storage
from asrsvc.jobs.types import Limits

database._BUSY_SECONDS = 600  # a slow disk leaves little time between the transactions of the others
claims = Claims(Storage.at(Path(sys.argv[1]), Limits(1000, 1000, 1000, 2**40, 3600, 1000)))
print("ready", flush=True)
sys.stdin.readline()
while True:
    claim = claims.take(beside=0)
    if claim is None:
        time.sleep(0.01)
        continue
    with claim.lock:
        for reached in range(claim.job.reached + 1, 6):
            time.sleep(0.002)
            assert claims.keep(claim, Findings(str(reached), (), reached, None))
        if claims.finish(claim, Findings("end", (), 6, 6.0)):
            print(claim.job.id, flush=True)
"""


@contextmanager
def worker(place: Place) -> Iterator[subprocess.Popen[str]]:
    """A process that works on jobs once it is told to; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(place.folder)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def test_each_job_is_ended_once_whoever_is_killed_meanwhile(place: Place) -> None:
    ids = [place.begin().id for _ in range(60)]
    ended: list[str] = []

    def done() -> int:
        return sum(j.state == "succeeded" for j in place.store.page("", before=2**53, limit=100))

    with worker(place) as first, worker(place) as second, worker(place) as third:
        for process in (first, second, third):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        deadline = time.monotonic() + DEADLINE
        for victim, when in ((first, 10), (second, 30), (None, 60)):
            while done() < when:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            if victim is not None:
                victim.send_signal(signal.SIGKILL)
        third.kill()
        for process in (first, second, third):
            assert process.stdout is not None
            ended += process.stdout.read().split()
    # one that was killed between the end of a job and its word about it
    assert max(Counter(ended).values()) == 1
    assert len(ids) - 3 <= len(ended) <= len(ids)
    for job in place.store.page("", before=2**53, limit=100):
        assert (job.state, job.audio_seconds) == ("succeeded", 6.0)
    place.store.sweep()
    assert not any(place.uploads.iterdir())


_OPENERS = """
import sys, threading, time
from pathlib import Path
from asrsvc.jobs import database as module
from asrsvc.jobs.database import Database
module._BUSY_SECONDS = 600  # as above

def use(database, makes):
    for _ in range(5):
        while not makes and not database.exists():
            time.sleep(0.0005)
        with database.transaction() as table:
            table.execute(
                "INSERT INTO jobs (id, client, state, bytes, created)"
                " VALUES (hex(randomblob(8)), '', 'queued', 1, 1)"
            )

for line in sys.stdin:
    both = [Database(Path(line.strip())) for _ in range(2)]
    threads = [threading.Thread(target=use, args=(one, makes)) for one, makes in zip(both, (True, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)
"""


def test_two_connections_of_a_process_keep_their_locks_beside_those_of_another_process(
    tmp_path: Path,
) -> None:
    """A file that is closed takes all of its process's locks on it away (fcntl(2)), whoever holds them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPENERS],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = [tmp_path / str(number) / "jobs.sqlite3" for number in range(15)]
    for path in paths:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
    for process in processes:
        assert process.communicate(timeout=DEADLINE)[1] == ""  # where threads say that they failed
    for path in paths:
        with sqlite3.connect(path) as table:
            assert table.execute("SELECT count(*) FROM jobs").fetchone() == (20,)
        table.close()
