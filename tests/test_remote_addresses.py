"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrsvc.remote.addresses import is_public, plain

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
]
PUBLIC += [
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
]
NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1"),
    *("127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1"),
    *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.1.2.3"),
    *("240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "::1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:8.8.8.8",
        "64:ff9b::10.0.0.1",
    ),
    *("64:ff9b::127.0.0.1", "64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::"),
    *("2002:a00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "2606:4700::1111%1", "fec0::1", "ff02::1"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_what_anybody_may_be_asked_at_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_leads_inside_or_to_nobody_is_not(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_address_in_an_ipv6_one_is_judged_as_itself(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    assert plain(mapped) == address
    assert is_public(mapped) == is_public(address) == is_public(IPv6Address(f"64:ff9b::{address}"))
    assert not is_public(IPv6Address(f"::{address}"))
    assert not is_public(IPv6Address((0x2002 << 112) | (int(address) << 80)))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_anything_else(address: IPv4Address | IPv6Address) -> None:
    """Python's own list is of another hand; where the two differ, ours is the stricter one."""
    inside = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if (inside or address.is_unspecified or address.is_reserved) and plain(address) == address:
        in_nat64 = isinstance(address, IPv6Address) and str(address).startswith("64:ff9b::")
        assert in_nat64 or not is_public(address)
