"""Sessions for pages: lists of them by keyset, and what one of them was made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import Min, Q, QuerySet, Sum
from django.utils.translation import gettext

from relay.models import Channel, SessionPart, SessionSum
from relay.usage.sessions.sums import SUMS

_CURSOR: Final = re.compile(r"([0-9]{1,17})-([0-9]{1,18})")  # microseconds since 1970 and id of the last row
_MOST_MODELS: Final = 3  # that a list names of each session
_MOST_LINES: Final = 50  # of each table of one session
_MOST_DEPTH: Final = 4  # of sub-agents that sub-agents began, as far as they are moved in
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session in a list."""

    whole: SessionSum
    models: list[str]  # those with the most requests
    more: int  # how many further ones

    @property
    def margin(self) -> int:
        """Nano-USD that the portal earned."""
        return self.whole.charged - self.whole.upstream_cost

    @property
    def cache_share(self) -> float | None:
        return cache_share(self.whole)


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of sessions, those that were used last first."""

    rows: list[SessionRow]
    before: str  # cursor of the next page, empty when there is none


@dataclass(slots=True)
class SessionLine:
    """What a session used of one model, through one channel, or by one agent."""

    key: Any  # the name of the model, the id of the channel, or the digest of the agent (0: the main one)
    label: str
    requests: int
    failed: int
    turns: int
    input: int
    cached: int
    output: int
    charged: int  # nano-USD
    upstream_cost: int  # nano-USD
    depth: int = 0  # of an agent: how many agents are above it
    busy: timedelta = field(default=timedelta(), init=False)

    @property
    def cache_share(self) -> float | None:
        return cache_share(self)


def cache_share(sums: SessionSum | SessionLine) -> float | None:
    """Return which share of the input came from a cache, in percent; None without input."""
    return 100 * sums.cached / sums.input if sums.input else None


def session_page(rows: QuerySet[SessionSum], before: str, size: int) -> SessionPage:
    """Return at most `size` sessions. `before`: the cursor of a page, empty for the first."""
    ordered = rows.order_by("-last_at", "-pk").select_related("user", "token")
    cursor = _CURSOR.fullmatch(before)
    if cursor is not None:
        at = _EPOCH + timedelta(microseconds=min(int(cursor[1]), 99_999_999_999_999_999))
        ordered = ordered.filter(Q(last_at__lt=at) | Q(last_at=at, pk__lt=int(cursor[2])), last_at__lte=at)
    found = list(ordered[: size + 1])
    shown = found[:size]
    models = _models_of(shown)
    return SessionPage(
        [
            SessionRow(one, names[:_MOST_MODELS], len(names[_MOST_MODELS:]))
            for one in shown
            for names in (models.get((one.user_id, one.session), []),)
        ],
        _cursor_of(shown[-1]) if len(found) > size else "",
    )


def find_session(user_id: int, session: int | None) -> SessionSum | None:
    """Return a user's session by its digest."""
    if session is None:
        return None
    return SessionSum.objects.filter(user=user_id, session=session).first()


def by_model(whole: SessionSum) -> list[SessionLine]:
    """Return what a session used by model, the dearest first."""
    return [_line(row, row["model"], row["model"]) for row in _grouped(whole, "model")]


def by_channel(whole: SessionSum) -> list[SessionLine]:
    """Return the same by channel, for staff. A deleted channel is named by its id."""
    rows = _grouped(whole, "channel_id")
    names = dict(Channel.objects.filter(pk__in=[row["channel_id"] for row in rows]).values_list("pk", "name"))
    return [
        _line(row, pk, (names.get(pk) or f"#{pk}") if pk else gettext("no channel"))
        for row in rows
        for pk in (row["channel_id"],)
    ]


def by_agent(whole: SessionSum) -> list[SessionLine]:
    """Return the same by agent: the main one (with an empty label), then sub-agents below those that began them.

    They are numbered in the order in which they began.
    """
    rows: list[Any] = list(
        _parts_of(whole)
        .values("agent")
        .annotate(began=Min("first_at"), parent=Min("parent_agent"), **_SUMS)
        .order_by("began", "agent")[:_MOST_LINES]
    )
    lines = {}
    for number, row in enumerate((row for row in rows if row["agent"]), 1):
        lines[row["agent"]] = _line(row, row["agent"], str(number))
    parents = {row["agent"]: row["parent"] for row in rows if row["agent"]}
    found = [_line(row, 0, "") for row in rows if not row["agent"]]
    for agent in _in_order(parents):
        lines[agent].depth = min(_depth(agent, parents), _MOST_DEPTH)
        found.append(lines[agent])
    return found


_SUMS: Final[dict[str, Any]] = {f"sum_{name}": Sum(name) for name in SUMS}


def _parts_of(whole: SessionSum) -> QuerySet[SessionPart]:
    return SessionPart.objects.filter(user=whole.user_id, session=whole.session)


def _grouped(whole: SessionSum, by: str) -> list[dict[str, Any]]:
    rows = _parts_of(whole).values(by).annotate(**_SUMS).order_by("-sum_charged", "-sum_requests", by)
    return list(rows[:_MOST_LINES])


def _line(row: dict[str, Any], key: Any, label: str) -> SessionLine:
    names = ("requests", "failed", "turns", "input", "cached", "output", "charged", "upstream_cost")
    line = SessionLine(key, label, *(int(row[f"sum_{name}"]) for name in names))
    line.busy = timedelta(milliseconds=int(row["sum_busy_ms"]))
    return line


def _in_order(parents: dict[int, int]) -> list[int]:
    """Agents, each after the one that began it, otherwise in their order. `parents`: by agent."""
    below: dict[int, list[int]] = {}
    for agent, parent in parents.items():
        below.setdefault(parent if parent in parents and parent != agent else 0, []).append(agent)
    found: list[int] = []
    left = list(reversed(below.get(0, [])))
    while left:
        agent = left.pop()
        found.append(agent)
        left += reversed(below.get(agent, []))
    return found + [agent for agent in parents if agent not in set(found)]  # of those that began each other


def _depth(agent: int, parents: dict[int, int]) -> int:
    """How many agents are above one, the main one included."""
    depth, seen = 1, {agent}
    while (agent := parents.get(agent, 0)) in parents and agent not in seen:
        depth, seen = depth + 1, seen | {agent}
    return depth


def _models_of(sessions: Sequence[SessionSum]) -> dict[tuple[int | None, int], list[str]]:
    """The models of sessions by user and session, those with the most requests first."""
    rows = (
        SessionPart.objects.filter(
            user__in={one.user_id for one in sessions}, session__in={one.session for one in sessions}
        )
        .values_list("user_id", "session", "model")
        .annotate(n=Sum("requests"))
        .order_by("-n", "model")
    )
    found: dict[tuple[int | None, int], list[str]] = {}
    for user, session, model, _ in rows if sessions else ():
        found.setdefault((user, session), []).append(model)
    return found


def _cursor_of(row: SessionSum) -> str:
    whole = row.last_at - _EPOCH
    return f"{(whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds}-{row.pk}"
