"""Which network addresses a webhook may be sent to: those of the public internet, and networks that were allowed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

# Written out rather than asked of `is_private`, whose answers differ between releases of Python, and which calls none of
# shared (100.64/10), NAT64 and 6to4 addresses private. From the IANA special-purpose registries.
_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers' NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; where clouds serve credentials
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")  # so loopback, fc00::/7, fe80::/10, multicast and NAT64 (64:ff9b::) are not
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)


def networks(text: str) -> tuple[Network, ...]:
    """Comma-separated networks, `10.0.0.0/8, fd00::/8`. Raises ValueError."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def may_connect(host: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether a socket may be connected to `host`, an IP address as it is in the socket's address, never a name.

    Anything that is not plainly an address is refused, so that nothing is left to be resolved afterwards.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # the kernel connects to that
    return any(address in network for network in allowed) or _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
