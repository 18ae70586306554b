"""Addresses: who is calling, and where this portal may connect to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from portal.lib.texts import Explained, gettext_noop

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Prefixes that carry an IPv4 address inside an IPv6 one: 6to4 and NAT64. `is_global` is true for them, whatever they carry.
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
_NO_ADDRESS = gettext_noop("“%(text)s” is not an address, a network or a host name")


class Refused(Explained):
    """The guard does not allow this address. The message says why, for the person who typed it."""


class NotPublic(Refused):
    """The address is not on the public Internet. The administrator's allow-list may permit it."""


class BadAddress(Explained, ValueError):
    """What somebody typed is no address, network, host name or port. The message names it."""


def parse_networks(lines: Iterable[str]) -> tuple[Network, ...]:
    """Networks or single addresses. Raises BadAddress."""
    found = []
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise BadAddress(gettext_noop("“%(text)s” is neither an IP address nor a network such as 10.0.0.0/8"), text=text) from error
    return tuple(found)


def own_names() -> list[str]:
    """Names and addresses under which other machines may reach this one. Looks up its own name; sends nothing."""
    name = socket.gethostname()
    found = {name, socket.getfqdn()}
    try:
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except OSError:
        pass
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # chooses the outgoing address; a datagram socket sends nothing yet
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    return sorted(f"[{entry}]" if ":" in entry else entry for entry in found if "%" not in entry)


def parse_address(text: str) -> Address | None:
    """An address, v4 when it is a v4 one in v6 clothes, or None."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def inside(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def client_ip(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The caller's address: the peer, or, behind trusted proxies, the last untrusted hop of X-Forwarded-For.

    A header from an untrusted peer is ignored: anyone can write one.
    """
    if not trusted or not forwarded_for:
        return peer
    here = parse_address(peer)
    if here is None or not inside(here, trusted):
        return peer
    seen = peer
    for hop in reversed(forwarded_for.split(",")):
        address = parse_address(hop)
        if address is None:
            return seen
        seen = str(address)
        if not inside(address, trusted):
            return seen
    return seen


@lru_cache(maxsize=4096)
def block_key(ip: str) -> str:
    """The unit that is blocked: an IPv4 address, or an IPv6 /64, since one subscriber owns a whole /64."""
    address = parse_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address else ip


def is_global_unicast(address: Address) -> bool:
    """Reachable on the public Internet and nothing else: no private, shared, link-local, metadata, mapped or tunnelled address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_global_unicast(address.ipv4_mapped)
        if address in _SIX_TO_FOUR or any(address in net for net in _NAT64) or address in _SITE_LOCAL or address.teredo:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One line of the administrator's allow-list: a network or a host name, on one port or on all."""

    network: Network | None
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """`127.0.0.1`, `10.0.0.0/8`, `127.0.0.1:11434`, `[::1]:8000`, `ollama.lan`, `ollama.lan:11434`. Raises BadAddress."""
        value, port = text.strip().lower(), None
        if value.startswith("["):
            value, _, rest = value[1:].partition("]")
            port = _port(rest.removeprefix(":")) if rest else None
        elif value.count(":") == 1:
            value, _, rest = value.partition(":")
            port = _port(rest)
        if not value or any(character.isspace() for character in value):
            raise BadAddress(_NO_ADDRESS, text=text)
        try:
            return cls(ipaddress.ip_network(value, strict=False), "", port)
        except ValueError:
            if "/" in value or ":" in value:
                raise BadAddress(_NO_ADDRESS, text=text) from None
            return cls(None, value, port)

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.host == host.lower()
        return address is not None and inside(address, (self.network,))


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise BadAddress(gettext_noop("“%(text)s” is not a port"), text=text)
    return int(text)


def permit(host: str, address: Address, port: int, allowed: Sequence[Allowance]) -> None:
    """Raise Refused unless a connection to this address may be made. Called with every address a name resolves to."""
    plain = parse_address(str(address)) or address
    if is_global_unicast(plain) or any(entry.covers(host, plain, port) for entry in allowed):
        return
    raise NotPublic(gettext_noop("%(address)s is not a public Internet address"), address=str(plain))


def check_url(url: str, allowed: Sequence[Allowance], schemes: Sequence[str] = ("https", "http")) -> str:
    """Check a URL that a person typed, before any name is resolved. Returns it without a trailing slash. Raises Refused."""
    text = url.strip()
    if not text.isascii() or any(character.isspace() or ord(character) < 32 for character in text) or "\\" in text:
        raise Refused(gettext_noop("the URL contains characters that do not belong in one"))
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise Refused(gettext_noop("this is not a valid URL")) from error
    if parts.scheme not in schemes:
        first, *others = (f"{scheme}://" for scheme in schemes)
        if others:
            raise Refused(gettext_noop("the URL must start with %(first)s or %(others)s"), first=first, others=", ".join(others))
        raise Refused(gettext_noop("the URL must start with %(first)s"), first=first)
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise Refused(gettext_noop("the URL has no host name"))
    if parts.username or parts.password:
        raise Refused(gettext_noop("the URL must not contain a user name or password"))
    if parts.query or parts.fragment:
        raise Refused(gettext_noop("the URL must not contain a query or a fragment"))
    if "%" in host:
        raise Refused(gettext_noop("the host name contains a percent sign"))
    address = parse_address(host)
    if address is not None:
        permit(host, address, port, allowed)
    elif _looks_numeric(host):
        raise Refused(gettext_noop("“%(host)s” is a number in disguise, not a host name"), host=host)
    elif _is_local_name(host) and not any(entry.network is not None or entry.covers(host, None, port) for entry in allowed):
        # With an address on the allow-list a local name may stand for it; the connection is checked again.
        raise NotPublic(gettext_noop("“%(host)s” is a name of the local network"), host=host)
    return text.rstrip("/")


def _looks_numeric(host: str) -> bool:
    """127.1, 0x7f000001, 017700000001: forms that some resolvers read as an address."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or last.startswith("0x")


def _is_local_name(host: str) -> bool:
    return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
