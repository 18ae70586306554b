"""Explains which channel a user's request for a model would go to, and why. Synchronous; not for the request path."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from portal.lib import clock
from relay.channels import cooldowns
from relay.gateway.access.authorization import find_model, may_call
from relay.gateway.routing.circuit_breaker import OpenCircuit
from relay.gateway.routing.explain.caches import newest_requests, settings_of
from relay.gateway.routing.explain.explanation import STRANGER, Explanation, Reader, RouteLine
from relay.gateway.routing.explain.money import Covers
from relay.gateway.routing.explain.plan import OwnPlan, explain_plan
from relay.gateway.routing.health import Health
from relay.gateway.routing.live import Live
from relay.gateway.routing.route_status import RouteExplanation, RouteStatus, explain_routes
from relay.gateway.routing.selection import RoutePreference
from relay.gateway.snapshot import load
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.views import ModelView, Route
from relay.models import ChannelModel, Model, ModelAlias, ModelPermission, Token
from relay.models.pool import STRATEGY_WORDS

_MOST_LINES: Final = 200  # of channels and keys
_STATUS_LABELS = {
    RouteStatus.NEXT: gettext_lazy("serves now"),
    RouteStatus.READY: gettext_lazy("ready"),
    RouteStatus.STANDBY: gettext_lazy("stands by"),
    RouteStatus.COOLING: gettext_lazy("left alone"),
    RouteStatus.REFUSED: gettext_lazy("not used"),
    RouteStatus.NO_KEY: gettext_lazy("no key"),
    RouteStatus.OTHER: gettext_lazy("not asked for"),
}


def explain_route(
    user: User,
    token: Token | None,
    model_name: str,
    seen: Live | None = None,
    reader: Reader = STRANGER,
) -> Explanation:
    """Explain where a user's request for a model would go now.

    `token` None: a token without limits. `seen`: the live state of this process, if it serves requests. `reader`: what
    the one may see who reads it.
    """
    now = clock.now()
    snapshot = load.load_snapshot()
    caller = load.caller_from_token(token) if token is not None else load.caller_from_user(user)
    obstacles = [*_person(user), *(_token(token, now) if token is not None else [])]
    plan = explain_plan(snapshot, caller, model_name) if reader.own else None
    if plan is not None and plan.channel:
        return _over_plan(plan, user, token, model_name, obstacles)
    view = find_model(snapshot, model_name)
    row = Model.objects.filter(name=model_name).first() or (
        Model.objects.filter(pk=view.id).first()
        if view is not None
        else Model.objects.filter(aliases__name=model_name).first()  # of one that is disabled
    )
    lines: list[RouteLine] = []
    serves, more = None, ""
    if row is None:
        obstacles.append(_unknown(model_name))
    else:
        if not row.enabled:
            obstacles.append(_("The model “%(model)s” is disabled. Enable it on its page.") % {"model": row.name})
        obstacles += _permission(user, row, now)
        if caller.models is not None and row.pk not in caller.models:
            obstacles.append(
                _(
                    "The token “%(token)s” is limited to other models. Add this one to its allowed models, or lift "
                    "the limit."
                )
                % {"token": token}
            )
        lines, serves, more = _lines(row, view, caller, now, seen)
        if serves is None:
            obstacles.append(
                _("No channel can serve it now; the table says why for each.")
                if lines
                else _("No channel serves it. Add it to a channel's models.")
            )
        if view is not None and not view.priced and settings.CONFIG.unpriced == "refuse":
            obstacles.append(_("It has no price, so requests are refused. Set one, or take the vendors' list prices."))
    covers = Covers(user, token, view, caller, snapshot.terms(caller).multiplier, now.timestamp(), reader.amounts)
    obstacles += covers.obstacles()
    who = _who(user, token)
    sells_unpriced = settings.CONFIG.unpriced != "refuse"
    visible = view is not None and may_call(caller, view, now.timestamp(), sells_unpriced)
    if not obstacles:
        verdict = _("%(who)s can use “%(model)s”: a request would go to %(channel)s now.") % {
            "who": who,
            "model": model_name,
            "channel": serves,
        }
    elif visible:
        verdict = _("%(who)s sees “%(model)s” in the list of models, but a request would fail now.") % {
            "who": who,
            "model": model_name,
        }
    else:
        verdict = _("%(who)s cannot see “%(model)s”.") % {"who": who, "model": model_name}
    return Explanation(
        user.get_username(),
        str(token) if token is not None else None,
        model_name,
        not obstacles,
        verdict,
        serves,
        obstacles,
        lines,
        [*_of_token(token), *(settings_of(view, caller.routes(view)) if view else ()), *covers.conditions()],
        row.name if row is not None and row.aliases.filter(name=model_name).exists() else "",
        newest_requests(user, token, row.name if row is not None else model_name) if reader.requests else [],
        plan=plan.said if plan is not None else "",
        more=more,
    )


def _who(user: User, token: Token | None) -> str:
    return _("%(user)s with the token “%(token)s”") % {"user": user, "token": token} if token is not None else str(user)


def _over_plan(plan: OwnPlan, user: User, token: Token | None, model: str, obstacles: list[str]) -> Explanation:
    """The explanation of a request that the user's own plan answers, which no channel and no price has a part in."""
    obstacles = [*obstacles, *([plan.obstacle] if plan.obstacle else [])]
    said = {"who": _who(user, token), "model": model, "channel": plan.channel}
    verdict = (
        _("%(who)s sees “%(model)s” in the list of models, but a request would fail now.")
        if obstacles
        else _("%(who)s can use “%(model)s”: a request would go to %(channel)s now.")
    ) % said
    name, serves = str(token) if token is not None else None, None if obstacles else plan.channel
    return Explanation(
        user.get_username(),
        name,
        model,
        not obstacles,
        verdict,
        serves,
        obstacles,
        [],
        _of_token(token),
        plan=plan.said,
    )


def _of_token(token: Token | None) -> list[str]:
    """What a token is limited to, of which an explanation cannot know whether a request keeps to it."""
    found = []
    if token is not None and token.allowed_ips:
        found.append(
            _("The token serves requests from %(addresses)s alone; others are refused as “ip_not_allowed”.")
            % {"addresses": ", ".join(token.allowed_ips)}
        )
    if token is not None and token.purpose:
        found.append(
            _("The token is for %(purpose)s alone; other endpoints are refused as “purpose_not_allowed”.")
            % {"purpose": token.get_purpose_display()}
        )
    return found


def _person(user: User) -> list[str]:
    return (
        []
        if user.is_active
        else [_("The account of %(user)s is disabled. Enable it on the user's page.") % {"user": user}]
    )


def _token(token: Token, now: datetime) -> list[str]:
    state = token.state(now)
    if state == "active":
        return []
    said = {
        "disabled": _("The token “%(token)s” is disabled. Enable it on its page."),
        "expired": _("The token “%(token)s” is expired. Give it a later end."),
        "revoked": _("The token “%(token)s” is revoked. That is for good: create another."),
    }
    return [said[state] % {"token": token}]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*_names(Model), *_names(ModelAlias)], 3, 0.6)
    if not near:
        return _("There is no model “%(model)s”. Create it, or add it to a channel's models.") % {"model": name}
    meant = _(" or ").join(f"“{one}”" for one in near)
    return _("There is no model “%(model)s”. Did you mean %(others)s?") % {"model": name, "others": meant}


def _names(table: type[Model] | type[ModelAlias]) -> Iterable[str]:
    return table.objects.values_list("name", flat=True)


def _permission(user: User, model: Model, now: datetime) -> list[str]:
    """Why the user may not use the model; empty when they may."""
    if model.is_open:
        return []
    groups = list(user.groups.order_by("name"))
    found = list(ModelPermission.objects.filter(model=model).select_related("user", "group"))
    own = [one for one in found if one.user_id == user.pk or one.group_id in {group.pk for group in groups}]
    if any(one.expires_at is None or one.expires_at > now for one in own):
        return []
    if own:
        last = max(own, key=lambda one: one.expires_at or now)
        when = _moment(last.expires_at)
        if last.group is None:
            return [
                _("The permission of the user ended on %(when)s. Give it a later end on the model's page.")
                % {"when": when}
            ]
        return [
            _("The permission of the group %(group)s ended on %(when)s. Give it a later end on the model's page.")
            % {"group": last.group, "when": when}
        ]
    given = sorted({str(one.group) for one in found if one.group is not None})
    said = (
        _("The model is not open, %(user)s has no permission for it nor any of their groups (%(groups)s).")
        if groups
        else _("The model is not open, %(user)s has no permission for it and they are in no group.")
    ) % {"user": user, "groups": ", ".join(group.name for group in groups)}
    if given:
        remedy = _(
            "Give a permission on the model's page, open the model or put them into one of the groups that have it "
            "(%(groups)s)."
        ) % {"groups": ", ".join(given)}
    else:
        remedy = _("Give a permission on the model's page, open the model.")
    return [f"{said} {remedy}"]


def _lines(
    row: Model, view: ModelView | None, caller: Caller, now: datetime, seen: Live | None
) -> tuple[list[RouteLine], str | None, str]:
    """A line for every channel that lists the model, the name of the one that serves now, and what has no line."""
    found: list[RouteLine] = []
    serves: str | None = None
    routes = caller.routes(view) if view is not None else Routes()
    preference = RoutePreference(row.pk, row.strategy, settings.CONFIG.routing_strategy, user=caller.user_id)
    explained = list(explain_routes(routes, _live(seen), preference, now.timestamp()))
    if len(explained) > _MOST_LINES:
        explained.sort(key=lambda line: line.status is not RouteStatus.NEXT)
    rivals = {line.route.channel.id for line in explained if line.status in {RouteStatus.NEXT, RouteStatus.READY}}
    tier = next((tier for tier in routes.tiers if any(one.channel.id in rivals for one in tier.routes)), None)
    how = _(STRATEGY_WORDS[tier.strategy(preference.strategy, preference.default)]) if tier is not None else ""
    listed, rest = {route.channel.id for route in routes}, Counter[str]()
    rows = ChannelModel.objects.filter(model=row).order_by("pk")
    unused = [pk for pk, channel in rows.values_list("pk", "channel_id") if channel not in listed]
    last = {line.route.channel.id: place for place, line in enumerate(explained)}  # its line, after which it has ended
    for place, line in enumerate(explained):
        channel = line.route.channel
        if line.status is RouteStatus.NEXT:
            serves = _("the channel “%(channel)s”") % {"channel": channel.name}
        if len(found) < _MOST_LINES:
            found.append(_line(line, how, len(rivals)))
        else:
            rest[str(_STATUS_LABELS[line.status])] += 1
        if last[channel.id] != place:
            continue
        room = max(0, _MOST_LINES - len(found))
        found += [_disabled_key_line(line.route, key) for key in channel.disabled_keys[:room]]
        rest[_("out of service")] += len(channel.disabled_keys[room:])
    room = max(0, _MOST_LINES - len(found))
    rows = rows.filter(pk__in=unused[:room]).select_related("channel").prefetch_related("channel__groups")
    found += [_unused_line(row, served) for served in rows]
    rest[_("not used")] += len(unused[room:])
    more = ", ".join(f"{status}: {count}" for status, count in rest.items() if count)
    return found, serves, _("Channels and keys beyond these: %(more)s.") % {"more": more} if more else ""


def _unused_line(row: Model, served: ChannelModel) -> RouteLine:
    channel = served.channel
    if not channel.enabled:
        why = _("The channel is disabled. Enable it in the list of channels.")
    elif not served.enabled:
        why = _("The model is switched off on this channel.")
    elif not row.enabled:
        why = _("The model is disabled.")
    else:
        reserved = ", ".join(sorted(group.name for group in channel.groups.all()))
        why = (
            _("The channel is reserved for the groups %(groups)s, and the user is in none of them.")
            % {"groups": reserved}
            if reserved
            else _("The channel is reserved for groups, and none is left of them. Choose others, or lift the limit.")
        )
    return RouteLine(channel.name, channel.pk, "", _("not used"), why, channel.priority)


def _line(line: RouteExplanation, how: str, rivals: int) -> RouteLine:
    channel = line.route.channel
    returns = None
    why = ""
    if line.status is RouteStatus.NEXT and line.cooling is not None:
        why = " ".join((_cooling(line.cooling), _("Nothing else is left, so it is used all the same.")))
    elif line.status is RouteStatus.NEXT:
        if rivals > 1:
            why = _("Chosen %(how)s, among %(rivals)d channels of priority %(priority)d.") % {
                "how": how,
                "rivals": rivals,
                "priority": channel.priority,
            }
        else:
            why = _("The only one in service with the highest priority (%(priority)d).") % {
                "priority": channel.priority
            }
    elif line.status is RouteStatus.READY:
        why = _("Of the same priority; takes its share.")
    elif line.status is RouteStatus.STANDBY:
        why = _("Priority %(priority)d is lower; used when the higher ones fail.") % {"priority": channel.priority}
    elif line.cooling is not None:
        why, returns = (
            _cooling(line.cooling),
            datetime.fromtimestamp(line.cooling.until, UTC).isoformat(timespec="seconds"),
        )
    elif line.status is RouteStatus.REFUSED:
        why = _("Its address is not permitted: %(why)s. Change it, or let a superuser allow it.") % {
            "why": channel.refusal
        }
    elif line.status is RouteStatus.NO_KEY:
        why = _("It has no key in service.") if channel.disabled_keys else _("It has no enabled key. Add one.")
    return RouteLine(
        channel.name,
        channel.id,
        line.key.name if line.key else "",
        str(_STATUS_LABELS[line.status]),
        why,
        channel.priority,
        returns,
    )


def _cooling(cooling: OpenCircuit) -> str:
    _channel, key, model = cooling.place
    what = (
        _("This key for this model")
        if key and model
        else _("This key")
        if key
        else _("This model on this channel")
        if model
        else _("The channel")
    )
    if cooling.half_open:
        said = _("%(what)s is being tried again now: %(why)s (%(detail)s).")
    elif cooling.own:
        said = _("%(what)s is left alone for this user's requests until %(until)s: %(why)s (%(detail)s).")
    else:
        said = _("%(what)s is left alone until %(until)s: %(why)s (%(detail)s).")
    return said % {
        "what": what,
        "until": _moment(datetime.fromtimestamp(cooling.until, UTC)),
        "why": _(cooling.kind.text),
        "detail": cooling.detail,
    }


def _disabled_key_line(route: Route, key: Any) -> RouteLine:
    when = _moment(datetime.fromtimestamp(key.at, UTC))
    said = {"when": when, "why": key.reason}
    why = _("Taken out of service on %(when)s (%(why)s). It comes back after a passing test.") % said
    if key.next_test:
        at = _moment(datetime.fromtimestamp(key.next_test, UTC))
        why += " " + _("The next one is at %(when)s; the channel's page can put it back at once.") % {"when": at}
    returns = datetime.fromtimestamp(key.next_test, UTC).isoformat(timespec="seconds") if key.next_test else None
    return RouteLine(
        route.channel.name, route.channel.id, key.name, _("out of service"), why, route.channel.priority, returns
    )


def _live(seen: Live | None) -> Live:
    """The circuits that all workers share, and the rest of the live state of this process."""
    health = Health("")
    for place, state in cooldowns.read_circuits().items():
        health.live.breaker.take_over(
            place, state.since, state.until, state.kind, state.detail, state.opened, state.guessed
        )
        health.live.breaker.circuits[place].foreign = False  # shows the circuit's own time, without the grace period
    if seen is None:
        return health.live
    return Live(health.live.breaker, seen.suspicions, seen.in_flight, seen.latency, seen.full, seen.turns, seen.fastest)


def _moment(at: datetime | None) -> str:
    return formats.date_format(timezone.localtime(at), "MOMENT_FORMAT") if at is not None else _("never")
