"""Reading a form, fed through an ASGI `receive` in this process."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from waiting import PATIENCE

from asrsvc.errors import (
    AsrError,
    BadRequest,
    Cancelled,
    NoSpace,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from asrsvc.web.fields import Field, parse
from asrsvc.web.form import Form
from asrsvc.web.form_reader import MOST_PARTS, TEXT_BYTES, FormReader
from asrsvc.web.multipart import HEAD_BYTES, HEADS_BYTES
from asrsvc.web.upload import Receive, UploadLimits, check_head, read_form

BOUNDARY = "8cbf1d0e"
FIELDS = (Field("language", "what is spoken"), Field("use_itn", "digits"))
DEADLINE = 90.0
"""seconds that a test waits for anything"""
LARGE = 2**20 + 1
"""bytes of a declared body that is not kept in memory"""


def part(name: str, content: bytes, *, file: bool = False) -> bytes:
    kind = '; filename="a.wav"\r\nContent-Type: audio/wav' if file else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def body_of(file: bytes, **fields: str) -> bytes:
    return b"".join(part(name, value.encode()) for name, value in fields.items()) + (
        part("file", file, file=True) + END
    )


def headers(length: int | None, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Headers:
    return Headers(
        {"content-type": content_type} | ({} if length is None else {"content-length": str(length)})
    )


def limits(spool_dir: Path, **changed: Any) -> UploadLimits:
    usual = UploadLimits(
        bytes=8 * 2**20, seconds=DEADLINE, idle_seconds=DEADLINE, least_rate=0, spool_dir=spool_dir
    )
    return replace(usual, **changed)


def sender(chunks: Iterable[bytes], *, then: Callable[[], Awaitable[Any]] | None = None) -> Receive:
    """An ASGI `receive` that gives these chunks, and then the end of the body, or what `then` gives."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if waiting:
            more = len(waiting) > 1 or then is not None
            return {"type": "http.request", "body": waiting.pop(0), "more_body": more}
        if then is not None:
            return await then()
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def disconnect() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def nothing_more() -> dict[str, Any]:
    await asyncio.sleep(10 * DEADLINE)
    raise AssertionError("the reader waited too long")


def read(
    chunks: Iterable[bytes],
    upload_limits: UploadLimits,
    *,
    length: int | None = None,
    then: Callable[[], Awaitable[Any]] | None = None,
) -> Form:
    async def main() -> Form:
        async with asyncio.timeout(DEADLINE):
            return await read_form(headers(length), sender(chunks, then=then), upload_limits, FIELDS)

    return asyncio.run(main())


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def uploads(spool: Path) -> list[str]:
    """What is open of uploads; a thread that another module has left may open and close other things."""
    places = ("/memfd:upload", f"{spool.parent}/", "/dev/full")
    return sorted(link for link in map(link_of, descriptors()) if link.startswith(places))


def content(form: Form) -> bytes:
    """What was uploaded; closes the form."""
    assert form.descriptor is not None
    with os.fdopen(os.dup(form.descriptor), "rb") as file:
        file.seek(0)
        data = file.read()
    form.close()
    return data


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> None:
    """What other modules left would be closed at any time, and these tests count open files."""
    gc.collect()


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(autouse=True)
def nothing_left(spool: Path) -> Iterator[None]:
    """After each test, whatever it did, as many files are open as before and none lies about."""
    before = uploads(spool)
    yield
    assert len(uploads(spool)) == len(before)
    assert not list(spool.iterdir())


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# Contents that look like the ends of parts are the hard ones.
CONTENTS = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"\r\n--", b"\r\n--8cbf1d0", b"8cbf1d0e", b"x"]), min_size=1
    ).map(b"".join),
).filter(lambda data: f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + data + b"\r\n")


@settings(max_examples=200, deadline=None)
@given(
    file=CONTENTS,
    language=st.text(max_size=20).filter(lambda t: f"--{BOUNDARY}" not in t and "\r" not in t),
    places=st.lists(st.integers(0, 1000), max_size=12),
    declared=st.sampled_from(["not", "small", "large"]),
)
def test_however_the_body_is_cut_the_form_is_the_same(
    file: bytes, language: str, places: list[int], declared: str, spool: Path
) -> None:
    body = body_of(file, language=language)
    length = {"not": None, "small": len(body), "large": LARGE}[declared]
    form = read(cut(body, places), limits(spool), length=length)
    assert form.fields == {"language": language}
    assert form.size == len(file)
    assert content(form) == file


def test_byte_by_byte_is_the_same_too(spool: Path) -> None:
    body = body_of(b"RIFF\r\n--8cbf1d0\r\n", language="zh", use_itn="false")
    form = read([body[n : n + 1] for n in range(len(body))], limits(spool))
    assert form.fields == {"language": "zh", "use_itn": "false"}
    assert content(form) == b"RIFF\r\n--8cbf1d0\r\n"


def target(form: Form) -> str:
    assert form.descriptor is not None
    return str(Path(f"/proc/self/fd/{form.descriptor}").readlink())


@pytest.mark.parametrize(("length", "in_memory"), [(2**20, True), (2**20 + 1, False), (None, False)])
def test_a_small_upload_is_in_memory_and_another_in_a_file_without_a_name(
    length: int | None, in_memory: bool, spool: Path
) -> None:
    form = read([body_of(b"sound")], limits(spool), length=length)
    assert target(form).startswith("/memfd:upload" if in_memory else f"{spool}/")
    assert target(form).endswith(" (deleted)")
    assert not list(spool.iterdir())
    assert content(form) == b"sound"


def test_a_large_upload_arrives_whole(spool: Path) -> None:
    file = os.urandom(3 * 2**20 + 17)
    body = body_of(file, language="en")
    chunks = [body[n : n + 65_536] for n in range(0, len(body), 65_536)]
    form = read(chunks, limits(spool), length=len(body))
    assert form.fields == {"language": "en"}
    assert content(form) == file


@pytest.mark.parametrize(("count", "size"), [(100, 2**16), (5_000, 1)])
def test_what_waits_to_be_written_has_a_limit(count: int, size: int, spool: Path) -> None:
    """In bytes where pieces are large, and in number where they are small."""
    pieces = iter([part("file", b"", file=True)[:-2], *[b"x" * size] * count, b"\r\n" + END])
    sent = -1
    waiting = []

    async def receive() -> dict[str, Any]:
        nonlocal sent
        written = [os.fstat(int(d)).st_size for d in descriptors() if str(spool) in link_of(d)]
        waiting.append(max(0, sent) * size - sum(written))
        sent += 1
        piece = next(pieces)
        return {"type": "http.request", "body": piece, "more_body": piece[-len(END) :] != END}

    async def main() -> Form:
        return await read_form(headers(None), receive, limits(spool), FIELDS)

    assert len(content(asyncio.run(main()))) == count * size
    assert min(waiting) >= 0
    assert max(waiting) < min(2**20, 256 * size)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_the_limit_is_taken(declared: bool, spool: Path) -> None:
    body = body_of(b"x" * 1000)
    form = read(cut(body, [500]), limits(spool, bytes=len(body)), length=len(body) if declared else None)
    assert content(form) == b"x" * 1000


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_a_byte_over_the_limit_is_refused(declared: bool, spool: Path) -> None:
    body = body_of(b"x" * 1000)
    with pytest.raises(TooLarge, match=f"the limit is 0 MiB .{len(body) - 1} bytes") as caught:
        read(
            cut(body, [500]),
            limits(spool, bytes=len(body) - 1),
            length=len(body) if declared else None,
        )
    assert caught.value.param == "file"


def test_what_is_declared_over_the_limit_is_refused_before_anything_is_read(spool: Path) -> None:
    with pytest.raises(TooLarge, match="10000 bytes; the limit"):
        read([], limits(spool, bytes=9999), length=10_000, then=nothing_more)


def test_what_is_over_the_limit_is_refused_while_it_arrives(spool: Path) -> None:
    """The client goes on sending: nobody waits for the rest."""
    begin = part("file", b"", file=True)[:-2]
    with pytest.raises(TooLarge):
        read([begin, *[b"x" * 1000] * 10], limits(spool, bytes=5000), then=nothing_more)


@pytest.mark.parametrize("size", [1024, 1025])
def test_a_text_field_may_have_1024_bytes(size: int, spool: Path) -> None:
    body = body_of(b"sound", language="z" * size)
    if size == 1024:
        form = read(cut(body, [300, 600]), limits(spool))
        assert form.fields == {"language": "z" * size}
        form.close()
        return
    with pytest.raises(BadRequest, match="field language is over 1024 bytes") as caught:
        read(cut(body, [300, 600]), limits(spool))
    assert caught.value.param == "language"


SMALL_FILE = part("file", b"sound", file=True)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (END, "missing_field", "file"),
        (part("language", b"zh") + END, "missing_field", "file"),
        (part("file", b"", file=True) + END, "file_empty", "file"),
        (SMALL_FILE * 2 + END, "invalid_value", "file"),
        (part("language", b"zh") * 2 + SMALL_FILE + END, "invalid_value", "language"),
        (part("langauge", b"zh") + SMALL_FILE + END, "unknown_field", "langauge"),
        (part("language", b"\xff") + SMALL_FILE + END, "invalid_value", "language"),
        (SMALL_FILE + part("language", b"\xff") + END, "invalid_value", "language"),
        (SMALL_FILE + part("", b"zh") + END, "unknown_field", ""),
        (f"--{BOUNDARY}\r\n\r\nzh\r\n".encode() + END, "unknown_field", ""),
        (f"--{BOUNDARY}\r\nContent-Type: a/b\r\n\r\nzh\r\n".encode() + END, "unknown_field", ""),
        (SMALL_FILE, "body_incomplete", None),
        (SMALL_FILE[:-4], "body_incomplete", None),
        (b"", "body_incomplete", None),
        (f"--{BOUNDARY}\r\nContent-Dispo".encode(), "body_incomplete", None),
        (b"no form at all", "body_malformed", None),
        (SMALL_FILE.replace(BOUNDARY.encode(), b"another") + END, "body_malformed", None),
        (SMALL_FILE.replace(b"Content-Type", b"Content Type") + END, "body_malformed", None),
        (SMALL_FILE + b"--" + BOUNDARY.encode() + b"xx\r\n", "body_incomplete", None),
    ],
    ids=range(19),
)
@pytest.mark.parametrize("length", [None, 2**20])
def test_what_is_wrong_with_a_form_is_named(
    length: int | None, body: bytes, code: str, param: str | None, spool: Path
) -> None:
    with pytest.raises(BadRequest) as caught:
        read([body], limits(spool), length=length)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("content_type", "length", "error"),
    [
        ("", None, UnsupportedMediaType),
        ("audio/wav", None, UnsupportedMediaType),
        ("application/x-www-form-urlencoded", "3", UnsupportedMediaType),
        ("multipart/mixed; boundary=x", None, UnsupportedMediaType),
        ("multipart/form-data", None, BadRequest),
        ("multipart/form-data; boundary=", None, BadRequest),
        ('multipart/form-data; boundary=""', None, BadRequest),
        ("multipart/form-data; boundary=" + "x" * 201, None, BadRequest),
        ("multipart/form-data; boundary=x", "many", BadRequest),
        ("multipart/form-data; boundary=x", "-1", BadRequest),
        ("multipart/form-data; boundary=x", "1.5", BadRequest),
        ("multipart/form-data; boundary=x", "", BadRequest),
        ("multipart/form-data; boundary=x", "\xb2", BadRequest),
        ("multipart/form-data; boundary=x", "9" * 19, BadRequest),
        ("multipart/form-data; boundary=x", "9" * 18, TooLarge),
    ],
)
def test_what_the_header_decides_is_decided_by_the_header(
    content_type: str, length: str | None, error: type[AsrError]
) -> None:
    given_headers = {"content-type": content_type} | ({} if length is None else {"content-length": length})
    with pytest.raises(error) as caught:
        check_head(Headers(given_headers), 1000)
    assert type(caught.value) is error


@settings(max_examples=300, deadline=None)
@given(content_type=st.text(st.characters(max_codepoint=255), max_size=80))
@example(content_type='multipart/form-data; boundary="')
@example(content_type="multipart/form-data; boundary*=utf-8''x")
@example(content_type="multipart/form-data;;;=;boundary")
def test_no_content_type_is_too_odd(content_type: str) -> None:
    for text in (content_type, f"multipart/form-data;{content_type}"):
        raw = [(b"content-type", text.encode("latin-1"))]
        try:
            boundary = check_head(Headers(raw=raw), 1000)
        except AsrError:
            continue
        assert 0 < len(boundary) <= 200


# Pieces that a form is made of, in any order, bent and broken.
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\r\n",
            b"\r",
            b"\n",
            b"--",
            f"--{BOUNDARY}".encode(),
            f"--{BOUNDARY}\r\n".encode(),
            f"\r\n--{BOUNDARY}".encode(),
            END,
            SMALL_FILE,
            part("language", b"zh"),
            b"Content-Disposition: form-data",
            b'; name="file"',
            b"; name=language",
            b'; name="',
            b"; filename*=utf-8''%ff",
            b": ",
            b";" * 300,
            b"a" * 5000,
            b"X-A: b\r\n" * 9,
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=12),
    places=st.lists(st.integers(0, 10_000), max_size=6),
    small=st.booleans(),
)
def test_whatever_is_sent_is_a_form_or_a_named_error(
    pieces: list[bytes], places: list[int], small: bool, spool: Path
) -> None:
    before = uploads(spool)
    try:
        form = read(
            cut(b"".join(pieces), places),
            limits(spool, bytes=20_000),
            length=2**14 if small else None,
        )
    except AsrError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - a form is as good
    else:
        form.close()
    assert uploads(spool) == before


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_form_with_some_bytes_changed_is_a_form_or_a_named_error(data: st.DataObject, spool: Path) -> None:
    body = bytearray(body_of(b"sound\r\n" * 5, language="zh"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    before = uploads(spool)
    try:
        read([bytes(body)], limits(spool), length=2**12).close()
    except AsrError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - as above
    assert uploads(spool) == before


@pytest.mark.parametrize("length", [None, 2**20])
@pytest.mark.parametrize(
    "sent", [b"", SMALL_FILE[:10], SMALL_FILE[:-2]], ids=["at once", "in the header", "in the file"]
)
def test_a_client_that_goes_is_told_apart(sent: bytes, length: int | None, spool: Path) -> None:
    with pytest.raises(Cancelled):
        read([sent], limits(spool), length=length, then=disconnect)


@pytest.mark.parametrize("length", [None, 2**20])
def test_a_client_that_falls_silent_is_given_up(length: int | None, spool: Path) -> None:
    with pytest.raises(RequestTimeout, match=r"100 bytes came, then nothing for 0.05 s"):
        read([SMALL_FILE[:100]], limits(spool, idle_seconds=0.05), length=length, then=nothing_more)


@pytest.mark.parametrize("length", [None, 2**20])
def test_a_client_that_trickles_is_given_up_when_its_time_is_over(length: int | None, spool: Path) -> None:
    """It is never silent for long, and never done."""

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(RequestTimeout, match=r"or not all within 0.2 s"):
        read([SMALL_FILE[:-2]], limits(spool, seconds=0.2), length=length, then=trickle)


def test_a_client_that_floods_without_a_pause_is_given_up_when_its_time_is_over(spool: Path) -> None:
    """Its messages are there already each time: nothing ever waits."""

    async def flood() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": True}

    with pytest.raises(RequestTimeout):
        read([SMALL_FILE[:-2]], limits(spool, seconds=0.2), then=flood)


def test_a_task_that_is_cancelled_leaves_nothing(spool: Path) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(
            read_form(headers(None), sender([SMALL_FILE[:-2]], then=nothing_more), limits(spool), FIELDS)
        )
        async with asyncio.timeout(DEADLINE):
            while not any(str(spool) in link for link in map(link_of, descriptors())):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def link_of(descriptor: str) -> str:
    try:
        return str(Path("/proc/self/fd", descriptor).readlink())
    except FileNotFoundError:  # the listing's own
        return ""


def test_a_folder_that_is_gone_is_no_space(spool: Path) -> None:
    with pytest.raises(NoSpace, match="the upload cannot be stored: No such file or directory") as caught:
        read([body_of(b"sound")], limits(spool / "gone"))
    assert caught.value.status == 507


def test_a_disk_that_is_full_is_no_space(tmp_path: Path) -> None:
    """The size of a file is limited, in a child process: to this one the limit would do harm."""
    script = (
        "import resource, signal, sys, pathlib, test_upload as t\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: t.read([t.body_of(b'x' * 5000)], t.limits(pathlib.Path(sys.argv[1])))\n"
        "except t.NoSpace as error: print(error.message)\n"
        "assert not [d for d in t.descriptors() if sys.argv[1] in t.link_of(d)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == "the upload cannot be stored: File too large\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["a file", "memory"])
def test_no_descriptor_left_is_no_want_of_space(where: str, tmp_path: Path) -> None:
    """The limit of descriptors is lowered, in a child process: to this one it would do harm."""
    script = (
        "import asyncio, gc, os, resource, sys, pathlib, test_upload as t\n"
        "from asrsvc.errors import OutOfDescriptors\n"
        "body, place = t.body_of(b'x' * 5000), t.limits(pathlib.Path(sys.argv[1]))\n"
        "length = len(body) if sys.argv[2] == 'memory' else None\n"
        "async def main():\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1, 999))\n"
        "    return await t.read_form(t.headers(length), t.sender([body]), place, t.FIELDS)\n"
        "try: asyncio.run(main())\n"
        "except OutOfDescriptors as error:\n"
        "    print(int(error.status), error.code, error.retry_after_seconds, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, where],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == "503 out_of_descriptors 2 the upload cannot be stored: Too many open files\n"


def read_into(path: str, flags: int, body: bytes) -> Form:
    """Read a body whose file is written to a place of the caller's."""

    async def main() -> Form:
        return await read_form(
            headers(len(body)),
            sender([body]),
            limits(Path("/nowhere")),
            FIELDS,
            open_file=lambda: os.open(path, flags, 0o600),
        )

    return asyncio.run(main())


def test_a_file_may_be_written_to_a_place_of_ones_own(tmp_path: Path) -> None:
    form = read_into(str(tmp_path / "own"), os.O_RDWR | os.O_CREAT, body_of(b"sound", language="zh"))
    form.close()
    assert (form.size, form.fields) == (5, {"language": "zh"})
    assert (tmp_path / "own").read_bytes() == b"sound"


def test_a_place_of_ones_own_that_is_full_is_no_space(spool: Path) -> None:
    before = uploads(spool)
    with pytest.raises(NoSpace, match="the upload cannot be stored: No space left on device"):
        read_into("/dev/full", os.O_WRONLY, body_of(b"sound"))
    assert uploads(spool) == before


def test_who_takes_the_file_closes_it(spool: Path) -> None:
    form = read([body_of(b"sound")], limits(spool))
    taken = form.take()
    form.close()
    assert os.pread(taken, 10, 0) == b"sound"
    os.close(taken)
    with pytest.raises(ValueError, match="holds no file"):
        form.take()


def read_lists(spool: Path, *parts: bytes) -> Form:
    """Read a form with the list `tags` and the large field `prompt`."""
    body = b"".join(parts) + part("file", b"sound", file=True) + END

    async def main() -> Form:
        return await read_form(
            headers(None),
            sender([body]),
            limits(spool),
            (*FIELDS, Field("prompt", "a text", most_bytes=5000), Field("tags", "some", many=True)),
        )

    return asyncio.run(main())


def test_a_list_comes_with_brackets_and_without(spool: Path) -> None:
    tags = [part("tags", b"a"), part("language", b"zh"), part("tags[]", b"b"), part("tags", b"a")]
    form = read_lists(spool, *tags, part("tags[0]", b"c"), part("tags[17]", b"d"))
    assert form.lists == {"tags": ["a", "b", "a", "c", "d"]}
    assert form.fields == {"language": "zh"}
    form.close()


@pytest.mark.parametrize("name", ["language[]", "language[0]", "[]", "tags[][]", "tags[x]", "tags[00000]"])
def test_other_brackets_are_names_of_their_own(name: str, spool: Path) -> None:
    with pytest.raises(BadRequest, match="is unknown; the fields are file, language, prompt, tags, use_itn"):
        read_lists(spool, part(name, b"a"))


def test_a_list_has_so_many_values_at_most(spool: Path) -> None:
    read_lists(spool, *[part("tags", b"a")] * 100).close()
    with pytest.raises(BadRequest, match="field tags is given more than 100 times") as caught:
        read_lists(spool, *[part("tags", b"a")] * 101)
    assert caught.value.param == "tags"


@pytest.mark.parametrize(("name", "size"), [("prompt", 5000), ("tags[]", 1024)])
def test_a_field_may_be_larger_than_others(name: str, size: int, spool: Path) -> None:
    read_lists(spool, part(name, b"x" * size)).close()
    with pytest.raises(BadRequest, match=f"field {name.removesuffix('[]')} is over {size} bytes"):
        read_lists(spool, part(name, b"x" * (size + 1)))


def test_a_list_is_text_too(spool: Path) -> None:
    with pytest.raises(BadRequest, match="field tags is not UTF-8"):
        read_lists(spool, part("tags", b"\xff"))


# What a header of a part decides, and what all parts together may be.

REFERENCES = Field("references", "of speakers", kind="bytes", many=True, most_bytes=4 * 2**20, most_values=4)
BIG = (
    *FIELDS,
    *(Field(f"note{number}", "a text", most_bytes=2**20) for number in range(4)),
    Field("tags", "some", many=True, most_bytes=2**16, most_values=5000),
    Field("speakers", "refused", many=True, unsupported="nobody tells them apart"),
    REFERENCES,
)


def read_big(spool: Path, *parts: bytes, then: Callable[[], Awaitable[Any]] | None = None) -> Form:
    """Read a form with large fields, in the pieces that a socket gives."""
    body = b"".join(parts)
    pieces = [body[at : at + 2**16] for at in range(0, len(body), 2**16)]

    async def main() -> Form:
        async with asyncio.timeout(DEADLINE):
            allowed = limits(spool, bytes=2**30)
            return await read_form(headers(None), sender(pieces, then=then), allowed, BIG)

    return asyncio.run(main())


def begun(name: str) -> bytes:
    """A part of which nothing but the header has come."""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()


@pytest.mark.parametrize(
    ("name", "code", "param"),
    [
        ("speakers", "unsupported_parameter", "speakers"),
        ("speakers[]", "unsupported_parameter", "speakers"),
        ("speakers[3]", "unsupported_parameter", "speakers"),
        ("speaker", "unknown_field", "speaker"),
        ("speakers[x]", "unknown_field", "speakers[x]"),
        ("s" * 5000, "unknown_field", "s" * 60),
        ("references[00000]", "unknown_field", "references[00000]"),
        ("", "unknown_field", ""),
    ],
)
def test_a_part_that_may_not_be_is_refused_at_its_header(
    name: str, code: str, param: str, spool: Path
) -> None:
    """None of its content has come; of what is not supported some, since it may be empty."""
    wanted = begun(name) + (b"x" * 100 if code == "unsupported_parameter" else b"")
    for before in ((), (SMALL_FILE,), (part("language", b"zh"), SMALL_FILE)):
        with pytest.raises(BadRequest) as caught:
            read_big(spool, *before, wanted, then=nothing_more)
        assert (caught.value.code, caught.value.param) == (code, param)


def test_a_part_too_many_is_refused_at_its_header(spool: Path) -> None:
    sent = [part("references[]", b"x")] * 4 + [begun("references[]")]
    with pytest.raises(BadRequest, match="field references is given more than 4 times") as caught:
        read_big(spool, *sent, then=nothing_more)
    assert caught.value.param == "references"
    for again in ("language", "file"):
        first = part("language", b"zh") if again == "language" else SMALL_FILE
        with pytest.raises(BadRequest, match=f"field {again} is given twice"):
            read_big(spool, first, begun(again), then=nothing_more)


def test_all_text_of_a_form_has_a_limit(spool: Path) -> None:
    """Names and values: 1 MiB, to the byte."""
    three = [part(f"note{number}", b"x" * (300_000 - 5)) for number in range(3)]
    rest = TEXT_BYTES - 900_000 - len("note3")
    form = read_big(spool, *three, part("note3", b"y" * rest), SMALL_FILE, END)
    assert sum(len(name) + len(text) for name, text in form.fields.items()) == TEXT_BYTES
    form.close()
    with pytest.raises(
        BadRequest, match=f"field note3 the last of them, are over {TEXT_BYTES} bytes"
    ) as caught:
        read_big(spool, *three, part("note3", b"y" * (rest + 1)), then=nothing_more)
    assert caught.value.param == "note3"


def test_names_are_text_too(spool: Path) -> None:
    tags = [part("tags[]", b"x" * 2**16)] * 15
    rest = TEXT_BYTES - 15 * (len("tags[]") + 2**16)
    read_big(spool, *tags, *[part("tags[]", b"")] * 500, SMALL_FILE, END).close()
    with pytest.raises(BadRequest, match=f"over {TEXT_BYTES} bytes together"):
        read_big(
            spool, *tags, part("note0", b"x" * (rest - 20)), *[part("tags[]", b"")] * 3, then=nothing_more
        )


def test_fields_of_bytes_have_limits_of_their_own(spool: Path) -> None:
    """They are kept as they came, and leave the room for text as it is."""
    sound = b"\xff\x00" * (2**21)
    note = part("note0", b"x" * (TEXT_BYTES - 5))
    form = read_big(spool, *[part("references[]", sound)] * 4, note, SMALL_FILE, END)
    assert form.blobs == {"references": [sound] * 4}
    assert "references" not in form.lists | form.fields
    assert parse((REFERENCES,), form) == {"references": (sound,) * 4}
    form.close()
    with pytest.raises(BadRequest, match=f"field references is over {4 * 2**20} bytes") as caught:
        read_big(spool, part("references", sound + b"x"), then=nothing_more)
    assert caught.value.param == "references"


def test_a_form_has_so_many_parts_at_most(spool: Path) -> None:
    tags = [part("tags[]", b"x")] * (MOST_PARTS - 1)
    read_big(spool, *tags, SMALL_FILE, END).close()
    with pytest.raises(BadRequest, match=f"the form has more than {MOST_PARTS} parts: field 'tags") as caught:
        read_big(spool, SMALL_FILE, *tags, begun("tags[]"), then=nothing_more)
    assert caught.value.param == "tags[]"


def test_headers_of_parts_have_a_limit_together(spool: Path) -> None:
    """Each is as large as one may be."""
    note = b"X-Note: " + b"n" * (HEAD_BYTES - 200) + b"\r\n"
    large = part("tags[]", b"x").replace(b"\r\n\r\n", b"\r\n" + note + b"\r\n", 1)
    size = len(large) - 2 - len(f"--{BOUNDARY}\r\n") - 1 - 2
    fit = HEADS_BYTES // size - 1
    read_big(spool, *[large] * fit, SMALL_FILE, END).close()
    with pytest.raises(BadRequest, match=f"headers of its parts are over {HEADS_BYTES} bytes") as caught:
        read_big(spool, *[large] * (fit + 3), then=nothing_more)
    assert caught.value.code == "body_malformed"


def test_of_a_value_that_is_too_large_no_more_is_kept_than_may_be() -> None:
    reader = FormReader(Form(), BIG, lambda: -1)
    reader.on_part({b"content-disposition": b'form-data; name="language"'})
    data = bytes(2**24)
    with pytest.raises(BadRequest, match="field language is over 1024 bytes"):
        reader.on_data(data, 0, len(data))
    assert len(reader._value) <= 1024


# Parts as other programs write them.


OF_LANGUAGE = b'Content-Disposition: form-data; name="language"'


def odd_part(header: bytes, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\n".encode() + header + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("header", "content", "text"),
    [
        (b"Content-Disposition: form-data; name=language", b"zh", "zh"),
        (b'content-disposition: FORM-DATA; NAME="language"', b"zh", "zh"),
        (b'Content-Disposition: form-data;\r\n name="language"', b"zh", "zh"),
        (b'Content-Disposition: form-data; name="language"; filename="x"', b"zh", "zh"),
        (b"Content-Disposition: form-data; name=\"language\"; filename*=utf-8''x", b"zh", "zh"),
        (b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="language"', b"zh", "zh"),
        (
            b"Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=UTF-8\r\n" + OF_LANGUAGE,
            "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
            "\N{LATIN SMALL LETTER E WITH ACUTE}",
        ),
        (
            b'Content-Type: text/plain; charset="ISO-8859-1"\r\n' + OF_LANGUAGE,
            b"\xe9",
            "\N{LATIN SMALL LETTER E WITH ACUTE}",
        ),
        (
            b"Content-Type: text/plain; charset=gbk\r\n" + OF_LANGUAGE,
            b"\xd6\xd0",
            "\N{CJK UNIFIED IDEOGRAPH-4E2D}",
        ),
        (
            b"Content-Type: text/plain; charset=of-mine\r\nContent-Length: 2\r\n" + OF_LANGUAGE,
            b"zh",
            "zh",
        ),
    ],
)
def test_a_part_is_read_in_every_dress(header: bytes, content: bytes, text: str, spool: Path) -> None:
    form = read([odd_part(header, content) + SMALL_FILE + END], limits(spool))
    assert form.fields == {"language": text}
    form.close()


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Disposition: form-data; name=file",
        b'Content-Disposition: form-data; name="file"',
        b'Content-Disposition: form-data; name="file"; filename=""',
        b'Content-Disposition: form-data; name="file";\r\n filename="a b.wav"\r\nContent-Type: audio/wav',
        b'Content-Disposition: form-data; filename="a;b=\\"c.wav"; name="file"',
        b'Content-Disposition: form-data; name="file"; filename*=UTF-8\'\'%e4%b8%ad.wav; filename="x.wav"',
        b'Content-Transfer-Encoding: BINARY\r\nContent-Disposition: attachment; name="file"; filename="a"',
    ],
)
def test_a_file_is_a_file_in_every_dress(header: bytes, spool: Path) -> None:
    body = odd_part(header, b"sound") + part("language", b"zh") + END
    for whole in (body, b"A preamble\r\n" + body.replace(b"\r\n", b" \r\n", 1)):
        form = read(cut(whole, [40, 90]), limits(spool))
        assert form.fields == {"language": "zh"}
        assert content(form) == b"sound"


@pytest.mark.parametrize("coding", [b"base64", b"quoted-printable", b"x-own"])
def test_a_part_that_is_coded_is_refused_with_a_reason(coding: bytes, spool: Path) -> None:
    header = b'Content-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: ' + coding
    with pytest.raises(
        BadRequest, match=f"Content-Transfer-Encoding of field file is '{coding.decode()}'"
    ) as caught:
        read([odd_part(header, b"c291bmQ=") + END], limits(spool))
    assert caught.value.param == "file"


@pytest.mark.parametrize(
    "boundary", ["'()+_,-./:=?", "a b", "x" * 200, "----WebKitFormBoundary7MA4YWxkTrZu0gW"]
)
def test_every_boundary_that_may_be_is_one(boundary: str, spool: Path) -> None:
    body = (SMALL_FILE + END).replace(BOUNDARY.encode(), boundary.encode())
    given = headers(None, f'multipart/form-data; charset=utf-8; boundary="{boundary}"')
    assert check_head(given, 1000) == boundary.encode()
    form = asyncio.run(read_form(given, sender([body]), limits(spool), FIELDS))
    assert content(form) == b"sound"
