"""Where a webhook may lead, by the address that a socket would be connected to."""

from __future__ import annotations

import pytest

from services.alerts.channels.addresses import may_connect, networks

PUBLIC = [
    "8.8.8.8", "203.0.112.255", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "169.253.0.1",
    "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8",
]  # fmt: skip
REFUSED = [
    "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001::1", "2001:db8::1", "3fff::1",
    "localhost", "example.com", "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "127.0.0.01", "", " 8.8.8.8", "[::1]",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_may_be_reached(address: str) -> None:
    assert may_connect(address)


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_or_not_plainly_an_address_may_not(address: str) -> None:
    assert not may_connect(address)
    assert not may_connect(address, networks("172.20.0.0/16, fd99::/16"))


@pytest.mark.parametrize(
    ("address", "allowed", "reached"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.0.1", "10.1.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("64:ff9b::808:808", "64:ff9b::/96", True),
        ("fd12::1", "10.0.0.0/8, fd00::/8", True),
        ("127.0.0.1", "0.0.0.0/0", True),
        ("::1", "0.0.0.0/0", False),
    ],
)
def test_networks_can_be_allowed(address: str, allowed: str, reached: bool) -> None:
    assert may_connect(address, networks(allowed)) is reached


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError):
        networks("10.0.0.0/8, here")
