"""How the page's files are sent: types, caching, compression, and what a browser may do with them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from threading import get_ident
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from starlette.applications import Starlette

from asrsvc import settings
from asrsvc.errors import AsrError
from asrsvc.web import pages
from asrsvc.web.access import Access, Rules
from asrsvc.web.answers import error_response
from asrsvc.web.app import Counting, create_apology
from asrsvc.web.openapi import document

FILES = sorted(path for path in pages.PAGE_FOLDER.rglob("*") if path.is_file())
OWN = [path for path in FILES if "vendor" not in path.parts]


async def _refuse(_request: Any, error: Any) -> Any:
    return error_response(error)


APP = Starlette(routes=[*pages.routes(), document.route()], exception_handlers={AsrError: _refuse})


def get(path: str, method: str = "GET", app: Any = APP, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=named)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/samples/en_1.flac", "audio/flac"),
        ("/page/vendor/swagger-ui/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ],
)
def test_a_file_is_sent_once_and_asked_for_again(path: str, kind: str) -> None:
    answer = get(path, accept_encoding="identity")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert "content-encoding" not in answer.headers
    packed = get(path, accept_encoding="gzip, br")
    assert packed.content == answer.content
    for one in (answer, packed):
        assert one.headers["cache-control"] == "no-cache"
        assert one.headers["vary"] == "Accept-Encoding"
        assert one.headers["x-content-type-options"] == "nosniff"
        encoding = one.headers.get("content-encoding", "identity")
        again = get(path, accept_encoding=encoding, if_none_match=f'"other", W/{one.headers["etag"]}')
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == one.headers["etag"]
    assert get(path, method="HEAD").content == b""


PACKED = "/page/vendor/swagger-ui/swagger-ui-bundle.js"


def test_what_is_kept_packed_is_unpacked_once_and_never_by_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though fifty clients that take no gzip ask at the same time, for it and for the description."""
    pages._unpacked.cache_clear()
    document._content.cache_clear()
    made: list[tuple[str, int]] = []
    unpack, pack = pages.zlib.decompressobj, pages.gzip.compress
    monkeypatch.setattr(
        pages.zlib,
        "decompressobj",
        lambda *args, **named: made.append(("unpack", get_ident())) or unpack(*args, **named),
    )
    monkeypatch.setattr(
        pages.gzip,
        "compress",
        lambda *args, **named: made.append(("pack", get_ident())) or pack(*args, **named),
    )

    async def main() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=APP)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asked = [
                client.get(path, headers={"Accept-Encoding": "identity"})
                for path in [PACKED, "/openapi.json"] * 50
            ]
            return await asyncio.gather(*asked)

    answers = asyncio.run(main())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 2
    assert sorted(kind for kind, _ in made) == ["pack", "unpack"]
    assert get_ident() not in {thread for _, thread in made}


def test_what_is_kept_packed_has_a_size_when_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    pages._unpacked.cache_clear()
    (path,) = (path for path in FILES if path.name == "swagger-ui-bundle.js.gz")
    size = len(gzip.decompress(path.read_bytes()))
    monkeypatch.setattr(pages, "_UNPACKED_BYTES", size - 1)
    with pytest.raises(ValueError, match=f"more than {size - 1} bytes"):
        pages._unpacked(path)
    monkeypatch.setattr(pages, "_UNPACKED_BYTES", size)
    assert len(pages._unpacked(path).plain or b"") == size


def test_text_is_compressed_unless_it_is_not_wanted() -> None:
    assert get("/page/main.js", accept_encoding="gzip").headers["content-encoding"] == "gzip"
    assert get("/page/main.js", accept_encoding="*").headers["content-encoding"] == "gzip"
    for unwanted in ("identity", "br", "gzip;q=0", "GZIP; q=0.0"):
        assert "content-encoding" not in get("/page/main.js", accept_encoding=unwanted).headers
    plain, packed = (get("/page/main.js", accept_encoding=one).headers["etag"] for one in ("br", "gzip"))
    assert plain != packed


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/none.js",
        "/page/../pages.py",
        "/page/%2e%2e/pages.py",
        "/page/..%2fpages.py",
        "/page//etc/passwd",
        "/page/vendor/swagger-ui/swagger-ui.css.gz",
        "/page/samples/manifest.json",
        "/page/samples/../clips/en_1.flac",
        "/page/main.js%00",
    ],
)
def test_nothing_else_is_sent(path: str) -> None:
    assert get(path).status_code == 404


def test_a_page_may_do_nothing_but_what_it_needs() -> None:
    policies = {}
    for path in ("/", "/docs", "/page/main.js", "/openapi.json"):
        header = get(path).headers["content-security-policy"]
        policies[path] = {rule.split()[0]: rule.split()[1:] for rule in header.split(";")}
        assert policies[path]["default-src"] == ["'none'"]
        assert policies[path]["frame-ancestors"] == ["'none'"]
        assert "unsafe" not in header
        assert "http" not in header
    for path in ("/", "/docs"):
        assert policies[path]["script-src"] == policies[path]["style-src"] == ["'self'"]
    assert policies["/"]["require-trusted-types-for"] == ["'script'"]
    assert policies["/"]["trusted-types"] == ["'none'"]


class Inline(HTMLParser):
    """Finds what a strict policy forbids, and every address."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.addresses: list[str] = []
        self._in_script = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.found += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        self._in_script = tag in {"script", "style"}
        self.addresses += [names[name] or "" for name in ("src", "href") if name in names]

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.found.append(data)

    def handle_endtag(self, _tag: str) -> None:
        self._in_script = False


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_no_script_or_style_stands_in_the_html(name: str) -> None:
    parsed = Inline(pages.PAGE_FOLDER / name)
    assert parsed.found == []
    for address in parsed.addresses:
        if not address.startswith("#"):
            assert get(f"/{address.removeprefix('./')}").status_code == 200, address


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_file_asks_for_anything_of_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"'\s)>]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_every_module_that_is_imported_is_there() -> None:
    for path in OWN:
        for name in re.findall(r'from "\./([\w.-]+)"', path.read_text(encoding="utf-8")):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_who_has_no_model_shows_the_page_all_the_same() -> None:
    rules = Rules.of(settings.load({}, {}))
    counting = Counting(MagicMock(), MagicMock(endpoint=pages.page))  # of no interest here
    app = create_apology("no version can be loaded", Access(rules, None, MagicMock()), counting)
    for path in ("/", "/docs", "/page/main.js", "/openapi.json"):
        assert get(path, app=app).status_code == 200
    assert get("/v1/models", app=app).status_code == 503


def test_what_others_made_is_not_changed() -> None:
    folder = pages.PAGE_FOLDER / "vendor" / "swagger-ui"
    digests = re.findall(r"^([0-9a-f]{64})  (\S+)$", (folder / "README.txt").read_text(), re.MULTILINE)
    assert {name for _, name in digests} == {path.stem for path in folder.glob("*.gz")}
    for digest, name in digests:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == digest
    assert "Apache License" in (folder / "LICENSE.txt").read_text()
