"""What is found out when routing is explained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from relay.gateway.routing.explain.caches import CacheLine


@dataclass(frozen=True, slots=True)
class RouteLine:
    """A channel, or one of its keys, in an explanation. Texts are in the active language."""

    channel: str  # its name
    channel_id: int
    key: str  # its name, empty for the channel as a whole
    status: str
    why: str
    priority: int
    returns: str | None = None  # when it is tried again, as ISO 8601; None: in service, or a person must act

    def as_json(self) -> dict[str, Any]:
        return {"standing" if name == "status" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Reader:
    """What the one may see who reads an explanation."""

    requests: bool = False  # the newest ones, which are usage that not everybody may see
    amounts: bool = False  # what is left of balances, quotas and budgets
    own: bool = False  # it is about themselves, so that their own plan counts


STRANGER: Final = Reader()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request for a model would succeed or fail now. Texts are in the active language."""

    user: str
    token: str | None
    model: str
    allowed: bool  # the model is in /v1/models and a request would be tried
    verdict: str  # one sentence
    serves: str | None  # what would serve a request, None: nothing
    obstacles: list[str] = field(default_factory=list)  # each with its remedy
    lines: list[RouteLine] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)  # which some requests do not meet
    alias_of: str = ""  # the model's own name, where it was asked for by a further one
    caches: list[CacheLine] = field(default_factory=list)  # newest requests, and why they missed a cache
    more: str = ""  # how many channels and keys have no line, by their status; empty: none
    plan: str = ""  # what the user's own plan does, which nobody else is told

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "lines": [line.as_json() for line in self.lines]}
