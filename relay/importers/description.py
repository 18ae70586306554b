"""What another installation has, described without its words: what a source yields and `run` carries over. Pure.

Money is nano-USD, prices are USD per 1M tokens or per unit as in `relay.models.ModelPrice`, times are aware. Ids are
those of the source, as texts. A list that limits something is a tuple, and an empty one allows nothing; None: no limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Protocol

from relay.importers.usage_sums import UsageChunk

ONE: Final = Decimal(1)


class Level(StrEnum):
    """How much a remark matters."""

    LEFT_OUT = "left_out"  # something is not carried over
    CHANGED = "changed"  # it is carried over, and does something else here
    NOTE = "note"  # it is carried over; good to know


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence about what becomes of something. Never contains a secret."""

    text: str
    level: Level = Level.CHANGED


class Role(StrEnum):
    """What somebody may do in the other installation."""

    USER = "user"
    ADMIN = "admin"
    OWNER = "owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Anything that is carried over."""

    id: str
    name: str
    # Why it cannot be carried over at all; empty: it can.
    left_out: str = ""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Rates:
    """Rate limits. None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class SourceBudget:
    """The most that may be spent in a calendar period."""

    period: str  # day, week, month
    limit: int  # nano-USD


NO_RATES: Final = Rates()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGroup(Item):
    """A group of users, who pay a multiple of the prices."""

    multiplier: Decimal = ONE
    description: str = ""
    rates: Rates = NO_RATES  # of all members together


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUser(Item):
    """Somebody who signs in, owns tokens and pays. `name` is what is typed to sign in."""

    display_name: str = ""
    email: str = ""
    role: Role = Role.USER
    enabled: bool = True
    signs_in: bool = True  # False: it only owns keys, such as the account of a team
    # A hash of bcrypt, as `$2a$10$…`, or one as Django stores it; empty: none that can be used here.
    password: str = field(default="", repr=False)
    groups: tuple[str, ...] = ()  # ids
    balance: int | None = 0  # None: unlimited
    rates: Rates = NO_RATES
    budgets: tuple[SourceBudget, ...] = ()
    joined_at: datetime | None = None
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceToken(Item):
    """A key by which a client uses the relay."""

    user: str  # id
    # The whole key as clients send it, with its prefix.
    secret: str = field(default="", repr=False)
    # Where the source has no more than that: the SHA-256 digest of the key, in hexadecimal.
    sha256: str = field(default="", repr=False)
    hint: str = ""  # what pages show of such a key
    enabled: bool = True
    expires_at: datetime | None = None  # None: never
    quota: int | None = None  # what it may still spend; None: no limit of its own
    models: tuple[str, ...] | None = None  # public names
    networks: tuple[str, ...] | None = None  # addresses and networks; None: any
    rates: Rates = NO_RATES
    budgets: tuple[SourceBudget, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel(Item):
    """A public model name, and who may use it."""

    is_open: bool = False  # for everybody
    groups: tuple[str, ...] = ()  # ids of groups that may use it
    users: tuple[str, ...] = ()  # and of users
    aliases: tuple[str, ...] = ()
    description: str = ""
    rates: Rates = NO_RATES


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKey:
    """An upstream key of a channel, as its vendor here takes it."""

    secret: str = field(repr=False)
    label: str = ""
    enabled: bool = True
    weight: int = 1
    # Why the other program took it out of service, without secrets; empty: it is in service. Tests put it back.
    failed: str = ""
    failed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRoute:
    """That a channel serves a model, perhaps under another name."""

    model: str  # public name
    upstream: str = ""  # empty: the same
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChannel(Item):
    """A way to an upstream."""

    provider: str = "openai"  # key of one of `relay.providers.vendors`
    base_url: str = ""  # with the version path; empty: the vendor's own
    keys: tuple[SourceKey, ...] = ()
    routes: tuple[SourceRoute, ...] = ()
    groups: tuple[str, ...] | None = None  # ids; None: for everybody
    priority: int = 0
    weight: int = 1
    enabled: bool = True
    proxy_url: str = ""  # an HTTP proxy
    in_turn: bool = False  # its keys are used one after the other, otherwise at random
    overrides: tuple[Mapping[str, Any], ...] = ()  # as `relay.providers.overrides.rules` has them
    test_model: str = ""  # as the upstream calls it
    text_api: str = ""  # a value of `relay.models.channel.TextApi`; empty: as the vendor does
    rates: Rates = NO_RATES
    notes: str = ""
    tags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePrice(Item):
    """What users pay for a model. `name` is the model's public name."""

    channel: str = ""  # id of the channel it holds for; empty: for all
    is_cost: bool = False  # what the channel's upstream charges, instead of what users pay
    # (applies to prompts of more tokens than this, prices by class of `relay.models.price.CLASSES`)
    tiers: tuple[tuple[int, Mapping[str, Decimal]], ...] = ()


class CodeState(StrEnum):
    """Whether a redemption code can still be used."""

    OPEN = "open"
    DISABLED = "disabled"
    REDEEMED = "redeemed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCode(Item):
    """A redemption code. `name` is that of its batch."""

    code: str = field(default="", repr=False)
    amount: int = 0
    state: CodeState = CodeState.OPEN
    expires_at: datetime | None = None
    redeemed_by: str = ""  # id of a user; empty: unknown
    redeemed_at: datetime | None = None


class SourceUnreadable(Exception):
    """The source is none of the kind, or cannot be read. The message is one sentence, without secrets."""


class Source(Protocol):
    """Another installation, opened for reading. What it yields is read again at each call."""

    @property
    def program(self) -> str:
        """Its name as it is typed: `one-api`."""

    @property
    def title(self) -> str:
        """Its name as it is written: One API."""

    @property
    def shown(self) -> str:
        """Where it was opened, without a password."""

    def about(self) -> Sequence[Remark]:
        """What holds for the whole of it: tables that are missing, features that have no counterpart."""

    def groups(self) -> Iterator[SourceGroup]: ...
    def users(self) -> Iterator[SourceUser]: ...
    def models(self) -> Iterator[SourceModel]: ...
    def channels(self) -> Iterator[SourceChannel]: ...
    def prices(self) -> Iterator[SourcePrice]: ...
    def tokens(self) -> Iterator[SourceToken]: ...
    def codes(self) -> Iterator[SourceCode]: ...

    def usage(self, after: int) -> Iterator[UsageChunk]:
        """What was used, in the order in which it was written, behind the mark that the last chunk of an earlier
        import had; 0: from the beginning.
        """

    def close(self) -> None: ...
