"""What this process has sent to upstreams and nobody must be told: keys, the hosts that they went to, and accounts.

Patterns know the keys of some vendors. Here a text is compared with what was really sent, so that a key of any form is
found, whole or a large part of it. The transports tell what they send; `redact` asks.

What a comparison finds is an answer to whoever wrote the text, and clients write parts of what upstreams say: with
`abc***` in a request, and the next letter in the next one, anybody could read a key off what is replaced. So a part has
to be half of a secret, which nobody guesses, and masked keys are known by their form (`redact`), not by comparison.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from functools import partial
from typing import Final
from urllib.parse import quote

from portal.lib.redaction.rules import ACCOUNT, HOST, KEY

# Headers that hold no secret; some of them are the client's.
_PUBLIC: Final = frozenset(
    (
        "accept",
        "accept-encoding",
        "anthropic-beta",
        "anthropic-version",
        "connection",
        "content-length",
        "content-type",
        "host",
        "openai-beta",
        "transfer-encoding",
        "user-agent",
        "x-amz-date",
    )
)
_SIGNED: Final = "AWS4-HMAC-SHA256 "  # begins a signature, which is another for every request and holds no secret
_CLIENTS: Final = "anthropic-"  # begins the names of headers that clients of Anthropic's API choose
# What is entered as a key where none is needed.
_PLACEHOLDERS: Final = frozenset(
    ("lm-studio", "no-key-required", "none-needed", "not-needed", "not-required", "placeholder", "sk-no-key-required")
)
_MOST: Final = 20_000  # secrets that are kept, the newest
_MOST_HOSTS: Final = 2_000  # the same of hosts, and of accounts
_GRAM: Final = 8  # characters by which a secret is found
_LEAST: Final = 4  # characters of a secret
_STRETCH: Final = 12  # characters of a part of a secret, if that is half of it
_PIECE: Final = 12  # characters of a part between separators that is a secret of its own
_WORD: Final = re.compile(r"[A-Za-z]{1,11}")
_SEPARATORS: Final = re.compile(r"[.:/|,;=]")
_RUN: Final = re.compile(r"\S{8,}")
# A part of an address that is an account, as in those of Cloudflare's gateway and of Azure's subscriptions.
_ACCOUNT: Final = re.compile(r"[0-9a-fA-F]{24,64}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d{9,}")
_NAME: Final = re.compile(r"(?<![\w.-])([\w-]+(?:\.[\w-]+)*)(:\d{1,5})?(?![\w-])", re.A)


class Sent:
    """Secrets, hosts and accounts. Remembering is cheap for what is known; texts are read by any thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self.cleared = 0  # how often something was forgotten: what was remembered before is to be told again
        self._values: set[str] = set()  # headers that have been taken apart
        self._secrets: dict[str, int] = {}  # with the characters that have to be found of each; oldest first
        self._grams: dict[str, list[tuple[str, int]]] = {}  # secrets by what they hold at a place
        self._short: tuple[str, ...] = ()  # secrets that are too short for grams
        self._paths: set[str] = set()  # paths of addresses that have been taken apart
        self._accounts: set[str] = set()
        self._hosts: set[str] = set()
        self._domains: set[str] = set()  # what hosts end with

    # -- what is sent ------------------------------------------------------------------------------------------------

    def remember(self, headers: Iterable[tuple[str, str]]) -> None:
        """Remember the secrets in the headers of a request."""
        for name, value in headers:
            if value in self._values or value.startswith(_SIGNED):
                continue
            if name.lower() not in _PUBLIC and not name.lower().startswith(_CLIENTS):
                if len(self._values) >= self._most:
                    self._values.clear()
                    self.cleared += 1
                self._values.add(value)
                for word in value.split():
                    self._take_apart(word)

    def remember_login(self, name: str, password: str) -> None:
        """Remember with what a request signs in at a proxy."""
        if password:
            self._take_apart(base64.b64encode(f"{name}:{password}".encode()).decode())

    def remember_address(self, host: str, path: str = "") -> None:
        """Remember the host of a request or a proxy, and the accounts in its path."""
        if host not in self._hosts:
            if len(self._hosts) >= _MOST_HOSTS:
                self._hosts, self._domains = set(), set()
                self.cleared += 1
            self._hosts.add(host)
            self._domains.update(_domains_of(host))
        if path not in self._paths:
            if len(self._paths) >= _MOST_HOSTS:
                self._paths.clear()
                self.cleared += 1
            self._paths.add(path)
            if len(self._accounts) >= _MOST_HOSTS:
                self._accounts.clear()
                self.cleared += 1
            self._accounts.update(filter(_ACCOUNT.fullmatch, path.split("/")))

    def _take_apart(self, word: str) -> None:
        """Add a key with what is known by it: `id.secret`, a token's parts, a name and password in base64."""
        pieces, pair = _SEPARATORS.split(word), _name_and_password(word)
        # The beginning of what has several parts may be known to anybody, such as the name before a password.
        whole = pair is not None or any(pieces[1:])
        for written in {word, quote(word, safe=""), word.replace("/", "\\/")}:  # in an address, and in JSON as of PHP
            self._add(written, whole)
        if pair is not None:
            self._add(":".join(pair), True)
            self._add(pair[1])
            return
        for piece in pieces:
            if len(piece) >= _PIECE:
                self._add(piece)

    def _add(self, secret: str, whole: bool = False) -> None:
        """`whole`: no part of it counts."""
        if len(secret) < _LEAST or secret in self._secrets or not _is_secret(secret):
            return
        size = len(secret)
        if len(self._secrets) >= self._most:
            newest = Sent(self._most)
            for kept, least in list(self._secrets.items())[self._most // 2 :]:
                newest._index(kept, least)
            self._grams, self._short, self._secrets = newest._grams, newest._short, newest._secrets
        self._index(secret, size if whole else min(size, max(_STRETCH, (size + 1) // 2)))

    def _index(self, secret: str, least: int) -> None:
        self._secrets[secret] = least
        if len(secret) < _GRAM:
            self._short = (*self._short, secret)
            return
        # One of these is in every stretch of the least size. None is at the beginning, which many keys share.
        for place in range(least - _GRAM, len(secret) - _GRAM + 1, least - _GRAM + 1):
            self._grams.setdefault(secret[place : place + _GRAM], []).append((secret, place))

    # -- texts -------------------------------------------------------------------------------------------------------

    def without_secrets(self, text: str) -> str:
        """A text without the secrets that were sent, and without large parts of them."""
        if not self._secrets:
            return text
        stretches = [place for run in _RUN.finditer(text) for place in self._found_in(text, *run.span())]
        for start, end in reversed(stretches):
            text = f"{text[:start]}{KEY}{text[end:]}"
        for secret in self._short:
            if secret in text:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", KEY, text, flags=re.A)
        return text

    def _found_in(self, text: str, start: int, end: int) -> list[tuple[int, int]]:
        """Where a text holds secrets, between two places. A part of one may be found before the whole is."""
        found: list[tuple[int, int]] = []
        grams, least = self._grams, self._secrets
        for at in range(start, end - _GRAM + 1):
            for secret, place in grams.get(text[at : at + _GRAM], ()):
                stretch = _stretch(text, at, secret, place)
                if stretch[1] - stretch[0] >= least.get(secret, len(secret)):
                    found.append(stretch)
        found.sort()
        return _united(found)

    def without_addresses(self, text: str, public: frozenset[str] = frozenset()) -> str:
        """A text without the hosts that requests were sent to, those above and below them, their ports, and accounts.

        A host of one label may be any word, so that only a port beside it tells what it is. `public`: hosts and domains
        that anybody knows, which stay, with what is below them, unless it is a customer's own.
        """
        if self._hosts:
            text = _NAME.sub(partial(self._named, public), text)
        for account in tuple(self._accounts):  # another thread may add one
            if account in text:
                text = re.sub(rf"(?<![\w-]){re.escape(account)}(?![\w-])", ACCOUNT, text, flags=re.A)
        return text

    def _named(self, public: frozenset[str], match: re.Match[str]) -> str:
        """What replaces a name: itself if it is none of a host."""
        name = match[1].lower()
        if name in public or (public and name not in self._hosts and not public.isdisjoint(_ends_of(name))):
            return match[0]
        if "." not in name:
            return HOST if match[2] and name in self._hosts else match[0]
        while "." in name:
            if name in self._domains:
                return HOST
            name = name.partition(".")[2]
        return match[0]


def _is_secret(value: str) -> bool:
    """Whether it is one, and no word that may stand in any sentence."""
    if len(value) < _GRAM:
        return any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return _WORD.fullmatch(value) is None and value.lower() not in _PLACEHOLDERS


def _name_and_password(word: str) -> tuple[str, str] | None:
    """What is behind the word after `Basic`."""
    try:
        pair = base64.b64decode(word, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = pair.partition(":")
    return (name, password) if colon and pair.isprintable() else None


def _stretch(text: str, at: int, secret: str, place: int) -> tuple[int, int]:
    """The longest stretch of a text, around a place, that is a part of a secret."""
    start, end, size = at, at + _GRAM, len(secret)
    before, after = place, place + _GRAM
    while before and start and text[start - 1] == secret[before - 1]:
        start, before = start - 1, before - 1
    while after < size and end < len(text) and text[end] == secret[after]:
        end, after = end + 1, after + 1
    return start, end


def _united(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted stretches, with those that overlap made one."""
    united: list[tuple[int, int]] = []
    for start, end in stretches:
        if united and start < united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((start, end))
    return united


def _ends_of(name: str) -> list[str]:
    """A name and the domains above it."""
    labels = name.split(".")
    return [".".join(labels[at:]) for at in range(len(labels))]


def _domains_of(host: str) -> set[str]:
    """The ends of names that belong to a host: itself, and its domain; none of an address, which patterns know."""
    labels = host.lower().strip(".").split(".")
    if all(map(str.isdigit, labels)) or ":" in host or len(labels) < 2:
        return set()
    return {".".join(labels), ".".join(labels[1:])} if len(labels) > 2 else {".".join(labels)}


sent: Final = Sent()  # of this process
