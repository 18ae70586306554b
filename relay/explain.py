"""Why a request of somebody for a model goes where it goes, or nowhere, in words. Synchronous; for people, not for the request path."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import formats, timezone

from accounts.models import User
from portal.lib import clock, money
from relay import cooldowns
from relay.gateway import load
from relay.gateway.access import find_model
from relay.gateway.breaker import Cooling
from relay.gateway.health import Health
from relay.gateway.pick import Explained, Live, Standing, Wish, explain, strategy_of
from relay.gateway.runtime import current
from relay.gateway.snapshot import Caller, ModelView, Route
from relay.models import ChannelModel, LedgerAccount, Model, ModelPermission, Token
from relay.models.pool import Strategy

_STANDING = {
    Standing.NEXT: "serves now",
    Standing.READY: "ready",
    Standing.STANDBY: "stands by",
    Standing.COOLING: "left alone",
    Standing.REFUSED: "not used",
    Standing.NO_KEY: "no key",
    Standing.OTHER: "not asked for",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A channel, or one of its keys. `returns`: when it is tried again, as ISO 8601, None when that needs a person or it is in service."""

    channel: str
    channel_id: int
    key: str
    standing: str
    why: str
    priority: int
    returns: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`allowed`: whether it is in /v1/models and a request would be tried. `obstacles`: everything in the way, each with its remedy."""

    user: str
    token: str | None
    model: str
    allowed: bool
    verdict: str
    serves: str | None
    obstacles: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain_route(user: User, token: Token | None, model_name: str) -> Explanation:
    """Where a request of `user` (with `token`, or with one that limits nothing) for a model would go now."""
    now = clock.now()
    snapshot = load.load_snapshot()
    caller = load.caller_of(token) if token is not None else load.caller_of_user(user)
    obstacles = [*_person(user), *(_token(token, now) if token is not None else [])]
    view = find_model(snapshot, model_name)
    row = Model.objects.filter(name=model_name).first() or (Model.objects.filter(pk=view.id).first() if view is not None else None)
    lines: list[Line] = []
    serves: str | None = None
    if row is None:
        obstacles.append(_unknown(model_name))
    else:
        if not row.enabled:
            obstacles.append(f"The model “{row.name}” is disabled. Enable it on its page.")
        obstacles += _permission(user, row, now)
        if caller.models is not None and row.pk not in caller.models:
            obstacles.append(f"The token “{token}” is limited to other models. Add this one to its allowed models, or leave the list empty.")
        lines, serves = _lines(row, view, caller, now)
        if serves is None:
            obstacles.append("No channel can serve it now; the table says why for each." if lines else "No channel serves it. Add it to a channel's models.")
        if view is not None and not view.priced and settings.CONFIG.unpriced == "refuse":
            obstacles.append("It has no price, so requests are refused. Set one, or take the vendors' list prices.")
    obstacles += _money(user, token)
    who = f"{user} with the token “{token}”" if token is not None else str(user)
    visible = view is not None and caller.may_use(view, now.timestamp()) and bool(caller.routes(view))
    if not obstacles:
        verdict = f"{who} can use “{model_name}”: a request would go to {serves} now."
    elif visible:
        verdict = f"{who} sees “{model_name}” in the list of models, but a request would fail now."
    else:
        verdict = f"{who} cannot see “{model_name}”."
    return Explanation(user.get_username(), str(token) if token is not None else None, model_name, not obstacles, verdict, serves, obstacles, lines)


def _person(user: User) -> list[str]:
    return [] if user.is_active else [f"The account of {user} is disabled. Enable it on the user's page."]


def _token(token: Token, now: datetime) -> list[str]:
    state = token.state(now)
    if state == "active":
        return []
    remedy = {"disabled": "Enable it on its page.", "expired": "Give it a later end.", "revoked": "That is for good: create another."}[state]
    return [f"The token “{token}” is {state}. {remedy}"]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, Model.objects.values_list("name", flat=True), 3, 0.6)
    return f"There is no model “{name}”. " + (f"Did you mean {' or '.join(f'“{one}”' for one in near)}?" if near else "Create it, or add it to a channel's models.")


def _permission(user: User, model: Model, now: datetime) -> list[str]:
    """Empty when the user may use it."""
    if model.is_open:
        return []
    groups = list(user.groups.order_by("name"))
    found = list(ModelPermission.objects.filter(model=model).select_related("user", "group"))
    own = [one for one in found if one.user_id == user.pk or one.group_id in {group.pk for group in groups}]
    if any(one.expires_at is None or one.expires_at > now for one in own):
        return []
    if own:
        last = max(own, key=lambda one: one.expires_at or now)
        whose = f"of the group {last.group}" if last.group is not None else "of the user"
        return [f"The permission {whose} ended on {_moment(last.expires_at)}. Give it a later end on the model's page."]
    theirs = f"nor any of their groups ({', '.join(group.name for group in groups)})" if groups else "and they are in no group"
    given = sorted({str(one.group) for one in found if one.group is not None})
    hint = f" or put them into one of the groups that have it ({', '.join(given)})" if given else ""
    return [f"The model is not open, {user} has no permission for it {theirs}. Give a permission on the model's page, open the model{hint}."]


def _lines(row: Model, view: ModelView | None, caller: Caller, now: datetime) -> tuple[list[Line], str | None]:
    """Every channel that has the model in its list, and which serves now."""
    found: list[Line] = []
    serves: str | None = None
    routes = caller.routes(view) if view is not None else ()
    wish = Wish(row.pk, row.strategy, settings.CONFIG.routing_strategy)
    explained = explain(routes, _live(), wish, now.timestamp())
    top = [line.route for line in explained if line.standing in {Standing.NEXT, Standing.READY}]
    how = Strategy(strategy_of(top, wish).value).label if top else ""
    for line in explained:
        if line.standing is Standing.NEXT:
            serves = f"the channel “{line.route.channel.name}”"
        found.append(_line(line, how, len({route.channel.id for route in top})))
        found += [_benched(line.route, key) for key in line.route.channel.benched if line is _first_of(explained, line.route)]
    listed = {route.channel.id for route in routes}
    for served in ChannelModel.objects.filter(model=row).exclude(channel__in=listed).select_related("channel").prefetch_related("channel__groups"):
        channel = served.channel
        if not channel.enabled:
            why = "The channel is disabled. Enable it in the list of channels."
        elif not served.enabled:
            why = "The model is switched off on this channel."
        elif not row.enabled:
            why = "The model is disabled."
        else:
            why = f"The channel is reserved for the groups {', '.join(sorted(group.name for group in channel.groups.all()))}, and the user is in none of them."
        found.append(Line(channel.name, channel.pk, "", "not used", why, channel.priority))
    return found, serves


def _first_of(lines: list[Explained], route: Route) -> Explained:
    return next(line for line in lines if line.route is route)


def _line(line: Explained, how: str, rivals: int) -> Line:
    channel = line.route.channel
    returns = None
    why = ""
    if line.standing is Standing.NEXT and line.cooling is not None:
        why = f"{_cooling(line.cooling)} Nothing else is left, so it is used all the same."
    elif line.standing is Standing.NEXT:
        why = f"Chosen {how}, among {rivals} channels of priority {channel.priority}." if rivals > 1 else f"The only one in service with the highest priority ({channel.priority})."
    elif line.standing is Standing.READY:
        why = "Of the same priority; takes its share."
    elif line.standing is Standing.STANDBY:
        why = f"Priority {channel.priority} is lower; used when the higher ones fail."
    elif line.cooling is not None:
        why, returns = _cooling(line.cooling), datetime.fromtimestamp(line.cooling.until, UTC).isoformat(timespec="seconds")
    elif line.standing is Standing.REFUSED:
        why = f"Its address is not permitted: {channel.refusal}. Change it, or let a superuser allow it."
    elif line.standing is Standing.NO_KEY:
        why = "It has no key in service." if channel.benched else "It has no enabled key. Add one."
    return Line(channel.name, channel.id, line.key.name if line.key else "", _STANDING[line.standing], why, channel.priority, returns)


def _cooling(cooling: Cooling) -> str:
    _, key, model = cooling.place
    what = "this key for this model" if key and model else "this key" if key else "this model on this channel" if model else "the channel"
    state = "is being tried again now" if cooling.half_open else f"is left alone until {_moment(datetime.fromtimestamp(cooling.until, UTC))}"
    return f"{what[0].upper()}{what[1:]} {state}: {cooling.kind.text} ({cooling.detail})."


def _benched(route: Route, key: Any) -> Line:
    why = f"Taken out of service on {_moment(datetime.fromtimestamp(key.at, UTC))} ({key.reason}). It comes back after a passing test."
    returns = datetime.fromtimestamp(key.next_test, UTC).isoformat(timespec="seconds") if key.next_test else None
    return Line(route.channel.name, route.channel.id, key.name, "out of service", why, route.channel.priority, returns)


def _money(user: User, token: Token | None) -> list[str]:
    found = []
    wallet = LedgerAccount.objects.filter(user=user, kind="wallet", limited=True).first()
    if wallet is not None and wallet.granted - wallet.used <= 0:
        found.append(f"The balance of {user} is used up. Top it up on the user's page.")
    quota = LedgerAccount.objects.filter(token=token, kind="quota", limited=True).first() if token is not None else None
    if quota is not None and quota.granted - quota.used <= 0:
        found.append(f"The quota of the token, {money.show(quota.granted)}, is used up. Raise it on the token's page.")
    return found


def _live() -> Live:
    """The circuits that workers have told each other, and what else this process has seen of channels, if it serves."""
    health = Health("")
    for place, state in cooldowns.read_all().items():
        health.live.breaker.take_over(place, state.since, state.until, state.kind, state.detail, state.opened, state.guessed)
        health.live.breaker.cells[place].foreign = False  # its own time is what people want to know
    running = current()
    if running is None:
        return health.live
    seen = running.health.live
    return Live(health.live.breaker, seen.in_flight, seen.latency, seen.turns)


def _moment(at: datetime | None) -> str:
    return formats.date_format(timezone.localtime(at), "j M Y H:i:s") if at is not None else "never"
