"""IP addresses and URLs: the address of a client, and the addresses that the portal may connect to."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from portal.lib.texts import TranslatableError, gettext_noop, whole_number

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Prefixes that carry an IPv4 address inside an IPv6 one: 6to4 and NAT64. `is_global` is true for them in any case.
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
# What `is_global` takes for public, depending on Python's version: IANA's registries of special purposes have them.
# 168.63.129.16 serves the machines in Azure.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        [
            "192.0.0.0/24",
            "192.88.99.0/24",
            "168.63.129.16/32",
            "fec0::/10",
            "2001::/23",
            "3fff::/20",
            "5f00::/16",
            "100::/63",
        ],
    )
)
_MAPPED_BITS = 96  # of ::ffff:0:0/96
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
# The widest network that is still somebody's, by version: operators of proxies publish at most a /12 and a /29.
_WIDEST = {4: 8, 6: 16}
_OWN_NAME_SECONDS = 3.0  # that a name server is waited for at the start
_NO_ADDRESS = gettext_noop("“%(text)s” is not an address, a network or a host name")


class AddressRefused(TranslatableError):
    """Connections to an address or URL are not allowed. The message gives the reason to the person who typed it."""


class NotPublic(AddressRefused):
    """The address is not on the public Internet. The administrator's allow-list may permit it."""


class BadAddress(TranslatableError, ValueError):
    """A typed text is not a valid address, network, host name or port. The message quotes it."""


def parse_networks(lines: Iterable[str]) -> tuple[Network, ...]:
    """Parse networks or single addresses, one per line; empty lines are skipped. Raises BadAddress."""
    found = []
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            found.append(_network(text))
        except ValueError as error:
            raise BadAddress(
                gettext_noop("“%(text)s” is neither an IP address nor a network such as 10.0.0.0/8"), text=text
            ) from error
    return tuple(found)


def _network(text: str) -> Network:
    """Parse a network or an address, as `parse_address` does: without a zone, and as IPv4 where that is mapped.

    Addresses are compared as IPv4 wherever they come from, so a mapped network would never match. Raises ValueError.
    """
    network = ipaddress.ip_network(re.sub("%[^/]*", "", text), strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))


def check_narrow(networks: Iterable[Network]) -> None:
    """Raise BadAddress for a network that holds so much of the Internet that it stands for everybody."""
    for network in networks:
        if network.prefixlen < _WIDEST[network.version] and not _inside_unique_local(network):
            raise BadAddress(
                gettext_noop("%(network)s is nearly everybody: name the networks that you mean, such as 10.0.0.0/8"),
                network=str(network),
            )


def _inside_unique_local(network: Network) -> bool:
    """Whether a network is a part of the unique local addresses of IPv6, which are as wide as nothing public may be."""
    return isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_UNIQUE_LOCAL)


def own_names() -> list[str]:
    """Names and addresses by which other machines may reach this one. Resolves its own name; sends nothing else.

    A name server that hangs is waited for a few seconds: then the name and the outgoing addresses are all.
    """
    name = socket.gethostname()
    found = {name}
    resolved: list[set[str]] = []

    def resolve() -> None:
        names = {socket.getfqdn()}
        try:
            names |= {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
        except OSError:
            pass
        resolved.append(names)

    resolving = threading.Thread(target=resolve, daemon=True)
    resolving.start()
    resolving.join(_OWN_NAME_SECONDS)
    found |= resolved[0] if resolved else set()
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # selects the outgoing address; connecting a datagram socket sends nothing
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    return sorted(f"[{entry}]" if ":" in entry else entry for entry in found if "%" not in entry)


def parse_address(text: str) -> Address | None:
    """Parse an address, None if it is invalid. An IPv4-mapped IPv6 address becomes its IPv4 address."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address means the machine itself, whatever a name server says (RFC 6761, 6.3)."""
    plain = host.lower().rstrip(".")
    address = parse_address(plain)
    return plain == "localhost" or plain.endswith(".localhost") or (address is not None and address.is_loopback)


def inside(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def parse_hop(text: str) -> Address | None:
    """An address in X-Forwarded-For: `203.0.113.9`, `203.0.113.9:51234`, `2001:db8::9`, `[2001:db8::9]:51234`."""
    hop = text.strip().strip('"')
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return parse_address(hop)


def client_ip(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address of the client: the peer, or behind trusted proxies the last untrusted hop of X-Forwarded-For.

    The header of an untrusted peer is ignored, since it can be forged. Some proxies write ports, too (Azure's do).
    """
    if not trusted or not forwarded_for:
        return peer
    here = parse_address(peer)
    if here is None or not inside(here, trusted):
        return peer
    seen = peer
    for hop in reversed(forwarded_for.split(",")):
        address = parse_hop(hop)
        if address is None:
            return seen
        seen = str(address)
        if not inside(address, trusted):
            return seen
    return seen


@lru_cache(maxsize=4096)
def block_key(ip: str) -> str:
    """The unit of blocking: an IPv4 address, or an IPv6 /64, since one subscriber owns a /64."""
    address = parse_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address else ip


def is_global_unicast(address: Address) -> bool:
    """Whether an address is public: not private, shared, link-local, metadata, mapped or tunnelled."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_global_unicast(address.ipv4_mapped)
        if address in _SIX_TO_FOUR or any(address in net for net in _NAT64):
            return False
    if inside(address, _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@dataclass(frozen=True, slots=True)
class Allowance:
    """An entry of the administrator's allow-list: a network or a host name, on one port or on all."""

    network: Network | None  # None for a host name
    host: str  # lower case; empty for a network
    port: int | None  # None: all ports

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """Parse an entry. Raises BadAddress.

        Forms: `127.0.0.1`, `10.0.0.0/8`, `127.0.0.1:11434`, `[::1]:8000`, `ollama.lan`, `ollama.lan:11434`.
        """
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
            return cls(_network(value), "", port)
        except ValueError:
            if "/" in value or ":" in value:
                raise BadAddress(_NO_ADDRESS, text=text) from None
            return cls(None, value, port)

    @classmethod
    def check(cls, text: str) -> Allowance:
        """Parse what somebody types. Raises BadAddress, also for what stands for everything, and for patterns."""
        found = cls.parse(text)
        if found.network is not None:
            check_narrow((found.network,))
        elif re.fullmatch(r"[\w.-]+", found.host) is None:
            raise BadAddress(
                gettext_noop("“%(text)s” is no host name: name each host or network, there are no patterns"), text=text
            )
        return found

    def covers(self, host: str, address: Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.host == host.lower()
        return address is not None and inside(address, (self.network,))


def _port(text: str) -> int:
    port = whole_number(text, 1, 65535)
    if port is None:
        raise BadAddress(gettext_noop("“%(text)s” is not a port"), text=text)
    return port


def permit(host: str, address: Address, port: int, allowed: Sequence[Allowance]) -> None:
    """Raise NotPublic unless an address may be connected to. Called with every address that a name resolves to."""
    plain = parse_address(str(address)) or address
    if is_global_unicast(plain) or any(entry.covers(host, plain, port) for entry in allowed):
        return
    raise NotPublic(gettext_noop("%(address)s is not a public Internet address"), address=str(plain))


def check_url(
    url: str, allowed: Sequence[Allowance], schemes: Sequence[str] = ("https", "http"), query: bool = False
) -> str:
    """Check a typed URL without resolving its name. Returns it without a trailing slash. Raises AddressRefused.

    `query`: it may have one, as addresses of webhooks do; paths are added to base URLs, which may not.
    """
    text = url.strip()
    if not text.isascii() or any(character.isspace() or ord(character) < 32 for character in text) or "\\" in text:
        raise AddressRefused(gettext_noop("the URL contains characters that do not belong in one"))
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise AddressRefused(gettext_noop("this is not a valid URL")) from error
    if parts.scheme not in schemes:
        first, *others = (f"{scheme}://" for scheme in schemes)
        if others:
            raise AddressRefused(
                gettext_noop("the URL must start with %(first)s or %(others)s"), first=first, others=", ".join(others)
            )
        raise AddressRefused(gettext_noop("the URL must start with %(first)s"), first=first)
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise AddressRefused(gettext_noop("the URL has no host name"))
    if parts.username or parts.password:
        raise AddressRefused(gettext_noop("the URL must not contain a user name or password"))
    if parts.fragment or (parts.query and not query):
        raise AddressRefused(gettext_noop("the URL must not contain a query or a fragment"))
    if "%" in host:
        raise AddressRefused(gettext_noop("the host name contains a percent sign"))
    address = parse_address(host)
    if address is not None:
        permit(host, address, port, allowed)
    elif _looks_numeric(host):
        raise AddressRefused(gettext_noop("“%(host)s” is a number in disguise, not a host name"), host=host)
    elif _is_local_name(host) and not any(
        entry.network is not None or entry.covers(host, None, port) for entry in allowed
    ):
        # A local name may resolve to an address on the allow-list; the check is repeated at each connection.
        raise NotPublic(gettext_noop("“%(host)s” is a name of the local network"), host=host)
    return text if parts.query else text.rstrip("/")


def mask_query(url: str) -> str:
    """A URL without the values of its query, which may be secrets: `https://example.org/hook?access_token=…`."""
    base, mark, query = url.partition("?")
    return base + mark + "&".join(f"{part.partition('=')[0]}=…" for part in query.split("&") if part)


def origin(url: str) -> str:
    """The scheme, host and port of a URL, as in https://api.example.org:443. Empty when it is not a valid one."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"https": 443, "wss": 443, "http": 80, "ws": 80}.get(parts.scheme, 0)
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}" if host and port else ""


def _looks_numeric(host: str) -> bool:
    """Whether some resolvers read the host as an address: `127.1`, `0x7f000001`, `017700000001`."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or last.startswith("0x")


def _is_local_name(host: str) -> bool:
    return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
