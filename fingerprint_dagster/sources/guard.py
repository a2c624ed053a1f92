"""What may be reached: schemes, hosts, addresses, folders. Decided before anything is opened or connected to.

A list from outside names what the fetcher opens, so an address in it is taken for an attack until it is shown to be
harmless: a name is looked up once, every address it has must be public, and the connection goes to the address that
was checked. A second look-up could answer something else (DNS rebinding).

Address ranges: https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from fingerprint_dagster.errors import ContentError, UsageError
from fingerprint_dagster.sources.uri import SCHEMES, scheme_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""(name, port) -> the addresses of that name as text. Raises OSError (socket.gaierror) where there is none."""

# The special ranges, narrow before wide: the first that holds an address names it.
_SPECIAL: tuple[tuple[str, str], ...] = (
    ("168.63.129.16/32", "an address of a cloud's metadata service"),
    ("169.254.169.254/32", "an address of a cloud's metadata service"),
    ("169.254.170.2/32", "an address of a cloud's metadata service"),
    ("100.100.100.200/32", "an address of a cloud's metadata service"),
    ("192.0.0.192/32", "an address of a cloud's metadata service"),
    ("fd00:ec2::/32", "an address of a cloud's metadata service"),
    ("127.0.0.0/8", "a loopback address"),
    ("10.0.0.0/8", "a private address"),
    ("172.16.0.0/12", "a private address"),
    ("192.168.0.0/16", "a private address"),
    ("169.254.0.0/16", "a link-local address"),
    ("100.64.0.0/10", "a provider's internal address"),
    ("0.0.0.0/8", "an unspecified address"),
    ("192.0.0.0/24", "a reserved address"),
    ("192.0.2.0/24", "a reserved address"),
    ("192.88.99.0/24", "a reserved address"),
    ("198.18.0.0/15", "a reserved address"),
    ("198.51.100.0/24", "a reserved address"),
    ("203.0.113.0/24", "a reserved address"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),
    ("::1/128", "a loopback address"),
    ("::/128", "an unspecified address"),
    ("fc00::/7", "a private address"),
    ("fec0::/10", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("ff00::/8", "a multicast address"),
    ("2001::/23", "a reserved address"),  # among them Teredo, which wraps an IPv4 address
    ("2001:db8::/32", "a reserved address"),
    ("2002::/16", "a reserved address"),  # 6to4, which wraps an IPv4 address and is out of use (RFC 7526)
    ("3fff::/20", "a reserved address"),
)
_SPECIAL_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), name) for network, name in _SPECIAL
)
_CACHED = 4096  # hosts and addresses come again and again, and taking them apart is slow
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ENDS_IN_A_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")


def system_resolver(name: str, port: int) -> list[str]:
    """The addresses the operating system knows for a name, in its order of preference."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


@lru_cache(_CACHED)
def why_not_public(address: Address) -> str | None:
    """What kind of address it is, if it is not one of the public internet; None if it is."""
    inner = _ipv4_within(address)
    if inner is not None:
        return why_not_public(inner)
    for network, name in _SPECIAL_NETWORKS:
        if address.version == network.version and address in network:
            return name
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_IPV6:
        return "a reserved address"
    return None


@dataclass(frozen=True)
class Guard:
    """The rules. Immutable; can be sent to other processes.

    schemes: of uris that may be fetched.
    allowed_hosts: if any are given, only these; denied_hosts: never these, whatever else allows them. A host is a
        name (`example.org`), every name below one (`*.example.org`), an address, or a network (`203.0.113.0/24`).
        For object stores the bucket counts as the host.
    allowed_networks: the networks, addresses and hosts that may be reached although they are not public; `*`: all.
    folders: if any are given, only files in and below these.
    resolve: looks names up.
    """

    schemes: frozenset[str] = frozenset(SCHEMES)
    allowed_hosts: tuple[str, ...] = ()
    denied_hosts: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    resolve: Resolver = field(default=system_resolver, compare=False)

    @cached_property
    def _allowed_hosts(self) -> _Hosts:
        return _Hosts(self.allowed_hosts)

    @cached_property
    def _denied_hosts(self) -> _Hosts:
        return _Hosts(self.denied_hosts)

    @cached_property
    def _allowed_networks(self) -> _Hosts:
        return _Hosts(self.allowed_networks)

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        return tuple(folder.resolve() for folder in self.folders)

    def check_scheme(self, uri: str) -> str:
        """The scheme of `uri`. Raises ContentError where it is unknown or not among `schemes`."""
        scheme = scheme_of(uri)
        if scheme not in SCHEMES:
            raise ContentError(f"the scheme of the uri is unknown; known are {', '.join(SCHEMES)}")
        if scheme not in self.schemes:
            allowed = ",".join(sorted(self.schemes))
            raise ContentError(
                f"{scheme}: is not an allowed scheme; set FINGERPRINT_ALLOWED_SCHEMES to {allowed},{scheme} to allow it"
            )
        return scheme

    def check_name(self, name: str) -> None:
        """Raises ContentError where the lists of hosts forbid this host or bucket."""
        if self._denied_hosts.holds(name):
            raise ContentError(f"{_plain(name)} is a denied host (FINGERPRINT_DENIED_HOSTS)")
        if self.allowed_hosts and not self._allowed_hosts.holds(name):
            raise ContentError(f"{_plain(name)} is no allowed host; add it to FINGERPRINT_ALLOWED_HOSTS to allow it")

    def check_host(self, host: str) -> None:
        """Raises ContentError where what is written forbids it. Where a name leads, `addresses` checks."""
        host = _plain(host)
        literal = _address(host)
        if literal is None and _ENDS_IN_A_NUMBER.search(host):
            raise ContentError(f"{host} is no usable host: write an IPv4 address as four decimal numbers")
        self.check_name(host)
        if literal is not None:
            self._check_address(host, literal)

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, all of them checked: connect to one of these and look nothing up again.

        Raises ContentError where one of them may not be reached, OSError where the name cannot be resolved.
        """
        self.check_host(host)
        host = _plain(host)
        if _address(host):
            return [host]
        texts = list(self.resolve(host, port))
        if not texts:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        for text in texts:
            address = _address(text)
            if address is None:
                raise ContentError(f"{host} resolves to something that is no address")
            self._check_address(host, address)
        return texts

    def _check_address(self, host: str, address: Address) -> None:
        kind, denied = why_not_public(address), self._denied_hosts.holds_address(address)
        allowed = kind is None or self._allowed_networks.holds(host) or self._allowed_networks.holds_address(address)
        if allowed and not denied:
            return
        subject = str(address) if _address(host) else f"{host} is {address}, which"
        if denied:
            raise ContentError(f"{subject} is a denied host (FINGERPRINT_DENIED_HOSTS)")
        raise ContentError(
            f"{subject} is {kind}; set FINGERPRINT_ALLOWED_NETWORKS={address} (or a network, a host) to allow it"
        )

    def check_file(self, path: Path) -> Path:
        """The path to open for `path`: itself, or what it resolves to where `folders` confine it.

        Raises ContentError where it lies, or a symbolic link on its way leads, outside of them.
        """
        if not self.folders:
            return path
        real = path.resolve()  # of a path that does not exist: the part that does
        if not any(real.is_relative_to(folder) for folder in self._folders):
            raise ContentError("outside the allowed folders; add its folder to FINGERPRINT_ALLOWED_FOLDERS to allow it")
        return real


class _Hosts:
    """Host names, patterns and networks, and whether one holds a given host."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._endings: list[str] = []
        self._networks: list[Network] = []
        self._all = False
        for text in texts:
            self._add(_plain(text.strip()))

    def _add(self, text: str) -> None:
        if text == "*":
            self._all = True
        elif text.startswith("*."):
            self._endings.append(text[1:])
        elif network := _network(text):
            self._networks.append(network)
        elif re.fullmatch(r"[^/*\s:@]+", text):
            self._names.add(text)
        else:
            raise UsageError(f"{text!r} is no host, host pattern (*.example.org), address or network (10.0.0.0/8)")

    def holds(self, host: str) -> bool:
        """Whether that name, or address as text, is one of them."""
        host = _plain(host)
        address = _address(host)
        if address is not None:
            return self.holds_address(address)
        return self._all or host in self._names or any(host.endswith(ending) for ending in self._endings)

    def holds_address(self, address: Address) -> bool:
        """Whether that address is in one of the networks. An IPv4 address inside an IPv6 one counts as itself, too."""
        forms = [address, *filter(None, [_ipv4_within(address)])]
        return self._all or any(
            form.version == network.version and form in network for form in forms for network in self._networks
        )


def check_patterns(texts: Iterable[str]) -> None:
    """Raises UsageError for a text that is no host, host pattern, address or network."""
    _Hosts(texts)


@lru_cache(_CACHED)
def _plain(host: str) -> str:
    """The host as it is compared: lower case, no brackets, no dot at the end, no zone."""
    return host.strip("[]").partition("%")[0].rstrip(".").lower()


@lru_cache(_CACHED)
def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _ipv4_within(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, or as networks without IPv4 see it (NAT64, RFC 6052)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped
    return None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
