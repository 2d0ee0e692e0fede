"""What kind of address a fetch would connect to: public, or one of those that a client has no business to send us to.

Asked about the address itself, after every spelling of it (decimal, octal, a name that leads there) has been resolved.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

CLOSED = tuple(
    (ip_network(network), word)
    for network, word in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "private"),  # shared by carriers; a cloud's metadata service too (100.100.100.200)
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "link-local"),  # Azure's host agent: a public number that leads to the machine's own host
        ("169.254.0.0/16", "link-local"),  # cloud metadata services, 169.254.169.254
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),  # 192.0.0.192: Oracle's metadata service
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "private"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo, ORCHID, benchmarks: nobody's web server
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
        ("::/0", ""),
        ("0.0.0.0/0", ""),
    )
)
"""The first network that holds an address names its kind; from IANA's registries of special-purpose addresses. A table of our own,
because what Python's ``is_global`` says of the same address changes from one release to the next, and is true of multicast."""

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The only part of IPv6 that is given out."""

TRANSLATED = IPv6Network("64:ff9b::/96")
"""An IPv4 address in its last four bytes, which a NAT64 gateway connects to (RFC 6052)."""


def kind_of(address: Address) -> str:
    """ "private", "loopback", ... ; empty for a public one. An IPv4 address inside an IPv6 one counts as what it is."""
    inner = inside(address)
    if inner is not None:
        return kind_of(inner)
    kind = next(word for network, word in CLOSED if address.version == network.version and address in network)
    return kind or ("reserved" if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST else "")


def inside(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped (::ffff:127.0.0.1), translated by NAT64, or 6to4."""
    if not isinstance(address, IPv6Address):
        return None
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def forms(address: Address) -> tuple[Address, ...]:
    """The address, and the IPv4 one that it stands for: a rule that names either means both."""
    inner = inside(address)
    return (address,) if inner is None else (address, inner)
