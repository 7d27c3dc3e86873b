"""What an address names, and whether the list has it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc import settings
from asrsvc.errors import BadRequest, UrlRefused
from asrsvc.remote.hosts import HostList
from asrsvc.remote.target import Target, joined, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Media.Example.org", ("https", "media.example.org", 443, "/")),
        ("https://media.example.org./a", ("https", "media.example.org", 443, "/a")),
        (" https://media.example.org/a b?c=d e#f ", ("https", "media.example.org", 443, "/a%20b?c=d%20e")),
        ("HTTP://h:8080/%20?x=%2F&y=a/b", ("http", "h", 8080, "/%20?x=%2F&y=a/b")),
        ("https://h/录音.mp3", ("https", "h", 443, "/%E5%BD%95%E9%9F%B3.mp3")),
        ("https://127.0.0.1:1/a", ("https", "127.0.0.1", 1, "/a")),
        ("https://[::FFFF:7f00:1]/a", ("https", "::ffff:7f00:1", 443, "/a")),
        ("https://a_b.xn--bcher-kva.example/", ("https", "a_b.xn--bcher-kva.example", 443, "/")),
        ("https://h/..//y", ("https", "h", 443, "/..//y")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: tuple[str, str, int, str]) -> None:
    found = parse(text, "url")
    assert (found.scheme, found.host, found.port) == expected[:3]
    assert found.path == expected[3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "media.example.org/a",
        "//media.example.org/a",
        "ftp://media.example.org/a",
        "file:///etc/passwd",
        "data:audio/wav;base64,AAAA",
        "https:///a",
        "https:media.example.org",
        "https://:443/",
        "https://user@media.example.org/",
        "https://user:pass@media.example.org/",
        "https://media.example.org@127.0.0.1/",
        "https://media.example.org\\@127.0.0.1/",
        "https://media.example.org\\.evil.example/",
        "https://media.example.org:0/",
        "https://media.example.org:65536/",
        "https://media.example.org:https/",
        "https://media.example.org:+443/",
        "https://media.exa\r\nmple.org/",
        "https://media.example.org/\r\nHost: x",
        "https://media.example.org/\x00",
        "https://media.ex\tample.org/",
        "https://media example.org/",
        "https://média.example.org/",
        "https://media。example.org/",
        "https://%6dedia.example.org/",
        "https://media..example.org/",
        "https://-media.example.org/",
        f"https://{'a' * 64}.example.org/",
        f"https://{'.'.join(['a' * 60] * 5)}/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://1.2.3.4.5/",
        "https://256.0.0.1/",
        "https://example.123/",
        "https://example.0x/",
        "https://[::1/",
        "https://[::1%25lo]/",
        "https://[127.0.0.1]/",
        "https://[v1.a]/",
        "https://①②⑦.⓪.⓪.①/",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="^url ") as caught:
        parse(text, "url")
    assert caught.value.param == "url"
    assert "pass@" not in caught.value.message


@given(st.text(max_size=60), st.sampled_from(["https://", "http://", "https://[", "https://a@", ""]))
def test_whatever_is_sent_is_a_plain_target_or_a_bad_request(text: str, before: str) -> None:
    try:
        found = parse(before + text, "url")
    except BadRequest:
        return
    head = f"{found.authority} {found.path}"
    assert head.isascii()
    assert head.isprintable()
    assert head.count(" ") == 1
    assert found.path.startswith("/")
    assert parse(f"{found.origin}{found.path}", "url") == found


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b?c", "https://a.example/b?c"),
        ("b", "https://a.example/x/b"),
        ("//b.example/c", "https://b.example/c"),
        ("http://b.example/c", "http://b.example/c"),
        ("?q", "https://a.example/x/y?q"),
    ],
)
def test_a_redirect_is_relative_to_where_it_came_from(location: str, expected: str) -> None:
    found = joined(parse("https://a.example/x/y?z", "url"), location, "url")
    assert f"{found.origin}{found.path}" == expected


LISTED: list[tuple[str, str, bool]] = [
    ("media.example.org", "https://media.example.org/a", True),
    ("MEDIA.example.org", "https://media.EXAMPLE.org:443/a", True),
    ("media.example.org", "http://media.example.org/a", False),
    ("media.example.org", "https://media.example.org:8443/a", True),
    ("media.example.org", "https://evil.media.example.org/a", False),
    ("media.example.org", "https://media.example.org.evil.example/a", False),
    ("media.example.org", "https://amedia.example.org/a", False),
    ("media.example.org:8443", "https://media.example.org:8443/a", True),
    ("media.example.org:8443", "https://media.example.org/a", False),
    ("http://media.example.org", "http://media.example.org/a", True),
    ("media.example.org:443", "https://media.example.org/a", True),
    ("media.example.org:443", "https://media.example.org:8443/a", False),
    ("http://media.example.org", "https://media.example.org/a", False),
    ("http://media.example.org", "http://media.example.org:8080/a", True),
    ("http://media.example.org:8080", "http://media.example.org/a", False),
    ("http://media.example.org:8080", "http://media.example.org:8080/a", True),
    ("*.example.org", "https://a.example.org/", True),
    ("*.example.org", "https://a.b.example.org/", True),
    ("*.example.org", "https://example.org/", False),
    ("*.example.org", "https://aexample.org/", False),
    ("*.example.org:8443", "https://a.example.org:8443/", True),
    ("*.example.org:8443", "https://a.example.org/", False),
    ("*", "https://a.example.org/", True),
    ("*", "http://a.example.org/", False),
    ("*", "https://a.example.org:8443/", True),
    ("*:443", "https://a.example.org:8443/", False),
    ("*", "https://8.8.8.8/", False),
    ("*", "https://[2606:4700::1111]/", False),
    ("10.0.0.7", "https://10.0.0.7/", True),
    ("10.0.0.7", "https://[::ffff:10.0.0.7]/", True),
    ("10.0.0.7", "https://10.0.0.8/", False),
    ("10.0.0.7:8443", "https://10.0.0.7:8443/", True),
    ("10.0.0.7:8443", "https://10.0.0.7/", False),
    ("10.0.0.0/8", "https://10.1.2.3/", True),
    ("10.0.0.0/8", "https://10.1.2.3:8443/", True),
    ("10.0.0.0/8", "https://11.1.2.3/", False),
    ("10.0.0.0/8", "https://10.evil.example/", False),
    ("fd00::7", "https://[fd00::7]/", True),
    ("[fd00::7]", "https://[fd00:0::0:7]/", True),
    ("[fd00::7]:8443", "https://[fd00::7]:8443/", True),
    ("[fd00::7]:8443", "https://[fd00::7]/", False),
    ("fd00::/8", "https://[fd12::1]/", True),
    ("http://10.0.0.7:8080", "http://10.0.0.7:8080/", True),
    ("", "https://media.example.org/", False),
]


@pytest.mark.parametrize(("listed", "url", "taken"), LISTED)
def test_a_host_is_asked_if_the_list_has_it(listed: str, url: str, taken: bool) -> None:
    hosts = HostList.of(settings.load(environ={"ASR_URL_HOSTS": listed}).url_hosts)
    target = parse(url, "url")
    if taken:
        hosts.check(target, "url")
        return
    with pytest.raises(UrlRefused, match=r"url names .* none of the hosts in ASR_URL_HOSTS"):
        hosts.check(target, "url")


@pytest.mark.parametrize(
    ("listed", "url", "stands_for", "allowed"),
    [
        ("a.example", "https://a.example", ["8.8.8.8", "2606:4700::1111"], ["8.8.8.8", "2606:4700::1111"]),
        ("a.example", "https://a.example", ["10.0.0.7", "8.8.8.8", "fd00::1"], ["8.8.8.8"]),
        ("a.example", "https://a.example", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"], []),
        ("*", "https://localhost", ["127.0.0.1"], []),
        ("*.localhost", "https://a.localhost", ["127.0.0.1"], []),
        ("localhost", "https://localhost", ["127.0.0.1", "::1", "10.0.0.1"], ["127.0.0.1", "::1"]),
        ("localhost:1,a.example", "https://a.example", ["127.0.0.1"], []),
        ("localhost:1,*", "https://localhost", ["127.0.0.1"], []),
        (
            "a.example,10.0.0.0/8",
            "https://a.example",
            ["10.0.0.7", "::ffff:10.0.0.8"],
            ["10.0.0.7", "10.0.0.8"],
        ),
        ("a.example,10.0.0.0/8", "https://a.example", ["192.168.0.7"], []),
        ("a.example,10.0.0.7", "https://a.example", ["10.0.0.7", "10.0.0.8"], ["10.0.0.7"]),
        ("a.example:8443,10.0.0.7", "https://a.example:8443", ["10.0.0.7"], ["10.0.0.7"]),
        ("a.example,10.0.0.7:8443", "https://a.example", ["10.0.0.7"], []),
        ("a.example:8443,10.0.0.7:8443", "https://a.example:8443", ["10.0.0.7"], ["10.0.0.7"]),
        ("10.0.0.7", "https://10.0.0.7", ["10.0.0.7"], ["10.0.0.7"]),
        ("a.example,fd00::/8", "https://a.example", ["fd00::7", "fe80::1"], ["fd00::7"]),
    ],
)
def test_a_name_leads_to_public_addresses_and_to_those_that_are_named(
    listed: str, url: str, stands_for: list[str], allowed: list[str]
) -> None:
    hosts = HostList.of(settings.load(environ={"ASR_URL_HOSTS": listed}).url_hosts)
    target = parse(url, "url")
    hosts.check(target, "url")
    found = hosts.allowed(target, [ip_address(text) for text in stands_for])
    assert [str(address) for address in found] == allowed


ITEMS = st.one_of(
    st.from_regex(r"(https?://)?(\*\.)?[a-zA-Z0-9_.-]{1,20}(:[0-9]{1,6})?", fullmatch=True),
    st.from_regex(r"[a-c._-]{1,8}", fullmatch=True),
    st.ip_addresses().map(str),
    st.text(max_size=30),
)


@given(ITEMS)
def test_what_the_setting_takes_can_be_read(item: str) -> None:
    try:
        loaded = settings.load(environ={"ASR_URL_HOSTS": item})
    except settings.SettingError:
        return
    hosts = HostList.of(loaded.url_hosts)
    for entry in hosts.entries:
        assert entry.network is not None or entry.name
        if entry.network is None and not entry.name.startswith("*"):
            target: Any = parse(f"{entry.scheme}://{entry.name}:{entry.port or ''}/", "url")
            assert isinstance(target, Target)
            hosts.check(target, "url")
