"""What Host names: one reading, or none."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.web.addresses import Authority, authority, ip_of, subscriber


@pytest.mark.parametrize(
    ("text", "name", "address", "port"),
    [
        ("localhost", "localhost", None, None),
        ("LocalHost:7860", "localhost", None, 7860),
        ("localhost.", "localhost", None, None),
        ("localhost:", "localhost", None, None),
        ("my_service-1.example.org:65535", "my_service-1.example.org", None, 65535),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None, None),
        ("%6cocalhost", "%6cocalhost", None, None),
        ("a,b;c=d", "a,b;c=d", None, None),
        ("", "", None, None),
        (":7860", "", None, 7860),
        ("127.0.0.1", "", "127.0.0.1", None),
        ("192.168.1.2:0", "", "192.168.1.2", 0),
        ("[::1]", "", "::1", None),
        ("[::1]:7860", "", "::1", 7860),
        ("[2001:DB8::1]", "", "2001:db8::1", None),
        ("[::ffff:127.0.0.1]", "", "127.0.0.1", None),
        ("[fe80::1%25eth0]:80", "", "fe80::1", 80),
        ("[fe80::1%eth0]", "", "fe80::1", None),
        # what browsers and curl make an address of, before they send it, is a name where somebody sends it
        ("127.1", "127.1", None, None),
        ("2130706433", "2130706433", None, None),
        ("0x7f.0.0.1", "0x7f.0.0.1", None, None),
        ("0177.0.0.1", "0177.0.0.1", None, None),
        ("127.0.0.1.", "127.0.0.1", None, None),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example", None, None),
    ],
)
def test_a_host_is_taken_apart(text: str, name: str, address: str | None, port: int | None) -> None:
    assert authority(text) == Authority(name, None if address is None else ip_address(address), port)


@pytest.mark.parametrize(
    "text",
    [
        "[::1].evil.example",
        "[::1]evil.example",
        "[::1]:80.evil.example",
        "[::1]:80:80",
        "[::1",
        "::1]",
        "::1",
        "[[::1]]",
        "[]",
        "[localhost]",
        "[127.0.0.1]",
        "[v1.fe80]",
        "[::1%]",
        "[::1%a b]",
        "[::1%%]",
        "[::g]",
        "a@localhost",
        "localhost@evil.example",
        "a:b@localhost",
        "localhost:80:80",
        "localhost:x",
        "localhost:-1",
        "localhost:65536",
        "localhost:" + "8" * 200,
        "localhost/",
        "localhost/.evil.example",
        "localhost?x",
        "localhost#x",
        "http://localhost",
        "localhost evil.example",
        "local\thost",
        "localhost\\evil.example",
        "localhost\0",
        "localhost\n",
        "localhost, evil.example",
        "localhost..",
        "..localhost",
        ".localhost",
        "a..localhost",
        ".",
        "%",
        "%zz",
        "local%0host",
        "l\xf6calhost",
        "\uff4cocalhost",
        "localhost\xa0",
        "a" * 301,
    ],
)
def test_what_could_be_read_in_two_ways_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="right|the most"):
        authority(text)


@given(st.text(max_size=40) | st.text("[]:.@%/\\01localhost", max_size=40))
def test_whatever_is_sent_is_a_host_or_none(text: str) -> None:
    try:
        found = authority(text)
    except ValueError:
        return
    assert text.isascii()
    assert not set(text) & set("@/?#\\ \t\r\n")
    if found.address is None:
        assert found.name == text.rpartition(":")[0].lower().removesuffix(".") or ":" not in text


def test_a_zone_makes_no_other_client() -> None:
    assert str(ip_of("fe80::1%eth0")) == "fe80::1"
    assert subscriber("fe80::1%one") == subscriber("fe80::1%two") == "fe80::/64"
