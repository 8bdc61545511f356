"""Addresses of the web as others write them, and numbers that belong to the public internet. No network here.

An address is read by one strict form, once, and what was read is what is called: two readers of a lax form may
disagree on the host. So there is no ``user@``, no fragment, no letter beyond ASCII (a name in another script is written
as its ``xn--`` form), no trailing dot, and of the many ways in which C reads an IPv4 address (``127.1``, ``0x7f.1``,
``017700000001``, ``2130706433``) the one with four decimal numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, NamedTuple

from schedules.outgoing.errors import Refused

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_LENGTH: Final = 2_000  # characters
_MAX_NAME: Final = 253  # RFC 1035, 2.3.4, without the root's dot
_PORTS: Final = {"http": 80, "https": 443}
# RFC 3986 but for what is left out above: path and query of the letters that need no escape.
_URL: Final = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:[/?](?:[a-zA-Z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})*)?)"
)
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# As browsers know it (URL Standard, “ends in a number checker”): such a host is an address or nothing.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# What IANA's registries of special-purpose addresses hold and ``is_global`` of Python 3.11 takes for public, or may in
# the next version; besides, what only its number makes public.
_REFUSED_4: Final = tuple(
    IPv4Network(each)
    for each in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's agent of virtual machines: what metadata services are elsewhere
    )
)
# Everything that is assigned to the public lies herein (RFC 4291, 2.4): mapped, compatible, translated, site-local
# addresses, multicast and what is still to be assigned do not.
_UNICAST_6: Final = IPv6Network("2000::/3")
_REFUSED_6: Final = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # IETF protocol assignments; of them Teredo holds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 holds an IPv4 address
        "3fff::/20",  # documentation (RFC 9637)
    )
)
# This machine, and where clouds tell machines who they are: never to be called for anybody.
OWN_NETWORKS: Final = tuple(
    ip_network(each)
    for each in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "192.0.0.0/24"),
        *("::/127", "fe80::/10", "fd00:ec2::/32", "fd20:ce::/32"),
    )
)
# Where IPv6 alone is spoken, every host of IPv4 has an address in here (RFC 6052): it is judged by what it holds.
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Rules(NamedTuple):
    """``refused`` are never called; ``allowed`` at every port, in clear too; elsewhere public addresses, by https, at
    one of ``ports``."""

    allowed: Sequence[IPNetwork] = ()
    refused: Sequence[IPNetwork] = ()
    ports: Sequence[int] = (443,)


class Target(NamedTuple):
    """``host`` is a name in lower case, or an address without brackets. ``path`` begins with a slash and holds the
    query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def literal(self) -> IPAddress | None:
        """The host, where it is an address."""
        return _literal(self.host)

    @property
    def authority(self) -> str:
        """As a request's ``Host`` says it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read(url: str) -> Target:
    """Raises ``Refused``. Says nothing of where the name leads."""
    found = _URL.fullmatch(url) if len(url) <= MAX_LENGTH else None
    if found is None:
        raise Refused("malformed", "is no address of the web: let it look like https://shop.example.com/path")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise Refused("scheme", "does not begin with https://")
    port = int(found["port"]) if found["port"] else _PORTS[scheme]
    if port > 65_535:
        raise Refused("port", "has a port that there is not")
    path = found["path"]
    return Target(scheme, _host(found["host"].lower()), port, path if path.startswith("/") else f"/{path}")


def is_public(address: IPAddress) -> bool:
    """Whether it is a host's on the public internet, as far as its number tells."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        return address in _UNICAST_6 and address.is_global and not _is_in(address, _REFUSED_6)
    return address.is_global and not _is_in(address, _REFUSED_4)


def judge(target: Target, address: IPAddress, rules: Rules) -> None:
    """Raises ``Refused`` unless ``target`` may be called at ``address``."""
    is_scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    is_refused = is_scoped or _is_in(address, rules.refused)
    if _is_in(address, rules.allowed) and not is_refused:
        return
    if is_refused or not is_public(address):
        raise Refused("not_public", "leads to where no user may have this service call")
    if target.scheme != "https":
        raise Refused("scheme", "does not begin with https://")
    if target.port not in rules.ports:
        raise Refused("port", "has a port that this service does not call")


def _host(host: str) -> str:
    address = _literal(host.strip("[]"))
    if address is not None and host.startswith("[") == isinstance(address, IPv6Address):
        return str(address)
    labels = host.split(".")
    is_name = all(map(_LABEL.fullmatch, labels)) and not _NUMBER.fullmatch(labels[-1])
    if len(host) > _MAX_NAME or not is_name:
        raise Refused("malformed", "has a host that is neither a name nor an address in its plain form")
    return host


def _literal(host: str) -> IPAddress | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None


def _is_in(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address in network for network in networks)
