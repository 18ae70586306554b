"""What needs a person: problems on the front page of the administration, with the pages to solve them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db.models import F
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from accounts.models.counts import count_of
from accounts.rights import may, people_who_may
from portal.lib import clock
from relay.admin.channels.model_list import PRICING
from relay.channels import status as channel_status
from relay.models import (
    ApiKey,
    BlockedAddress,
    BooksProof,
    Channel,
    ChannelModel,
    FailureRule,
    JobFault,
    LedgerAccount,
    Model,
    ModelPermission,
    ModelPrice,
    Token,
)
from relay.models.catalog import RETIRES_SOON
from relay.models.ledger import AMOUNTS
from relay.providers.vendors import BUILT_IN, PRIVATE

_CHECKS_CACHE_SECONDS: Final = 60.0
_MOST_RULES: Final = 1000


@dataclass(frozen=True, slots=True)
class Todo:
    """A problem that needs a person, and the page to solve it."""

    text: str
    url: str  # empty: the reader may not open the page
    urgent: bool = False  # requests fail, or will soon


def todos(person: Any, channels: list[channel_status.ChannelStatus], earnings: bool) -> list[Todo]:
    """All problems, urgent ones first."""
    found = [
        *(_ledger_todos() if earnings else ()),
        *_channel_todos(channels),
        *_rule_todos(),
        *_model_todos(person),
        *_installation_todos(may(person, AMOUNTS)),
    ]
    return sorted(found, key=lambda item: not item.urgent)


def _ledger_todos() -> list[Todo]:
    """The result of the last finished proof of the ledger."""
    last = next((proof for proof in BooksProof.objects.all()[:2] if proof.state != "running"), None)
    if last is None or last.state == "clean":
        return []
    url = reverse("admin:relay_ledgeraccount_verify_books")
    if last.state == "differs":
        return [Todo(_("The books do not balance: figures differ from the ledger's entries."), url, True)]
    return [
        Todo(_("The last proof of the books could not be made: %(why)s") % {"why": last.error or _("broken off")}, url)
    ]


def _channel_todos(channels: list[channel_status.ChannelStatus]) -> list[Todo]:
    found = []
    for one in channels:
        url = reverse("admin:relay_channel_change", args=[one.id])
        if one.state == channel_status.DOWN:
            found.append(
                Todo(_("Channel “%(name)s” serves nothing: %(why)s") % {"name": one.name, "why": one.text}, url, True)
            )
        elif one.failing:
            text = _("Channel “%(name)s” answers nothing: %(why)s") % {"name": one.name, "why": one.details[0]}
            found.append(Todo(text, url, True))
        elif one.serves and one.failed_test:
            why = channel_status.shorten(one.failed_test)
            found.append(
                Todo(_("Channel “%(name)s” failed its last test: %(why)s") % {"name": one.name, "why": why}, url)
            )
    down = {one.id for one in channels if not one.serves}
    for key in (
        ApiKey.objects.filter(enabled=True, channel__enabled=True)
        .exclude(auto_disabled="")
        .exclude(channel__in=down)
        .select_related("channel")[:20]
    ):
        url = reverse("admin:relay_channel_change", args=[key.channel_id]) + "#keys"
        text = (
            _("The account behind the key %(key)s of “%(name)s” is empty: top it up at the vendor.")
            if key.auto_disabled == "billing"
            else _("The key %(key)s of “%(name)s” is dead: replace it.")
        )
        found.append(Todo(text % {"name": key.channel.name, "key": key}, url))
    if not Channel.objects.exclude(provider__in=BUILT_IN | PRIVATE).exists():
        found.append(
            Todo(_("Only the demo answers so far: the guide leads to a channel of your own."), reverse("admin-setup"))
        )
    return found


def _rule_todos() -> list[Todo]:
    """Failure rules that are left out, as they cannot be used."""
    return [
        Todo(
            _("The failure rule “%(rule)s” is not used: %(why)s.") % {"rule": rule, "why": why},
            reverse("admin:relay_failurerule_change", args=[rule.pk]),
        )
        for rule in FailureRule.objects.filter(enabled=True)[:_MOST_RULES]
        if (why := rule.fault)
    ][:5]


def _model_todos(person: Any) -> list[Todo]:
    found = []
    models = Model.objects.filter(enabled=True).annotate(
        serving=count_of(ChannelModel.objects.filter(enabled=True, channel__enabled=True), "model"),
        granted=count_of(ModelPermission.objects.all(), "model"),
        prices_in_force=count_of(ModelPrice.objects.filter(valid_from__lte=clock.now(), purpose="sale"), "model"),
    )
    unpriced, unserved, unused = [], [], []
    for model in models:
        if not model.prices_in_force and settings.CONFIG.unpriced == "refuse":
            unpriced.append(model)
        elif not model.serving:
            unserved.append(model)
        elif not model.is_open and not model.granted:
            unused.append(model)
    where, soon = reverse("admin:relay_model_changelist"), (clock.now() + RETIRES_SOON).date()
    if unpriced:
        said = {"names": _names(unpriced), "people": ""}
        if may(person, PRICING):
            text = _("%(names)s: no price, so nobody can use it. Add one, or take the vendors' list prices.")
        else:
            said["people"] = people_who_may(PRICING) or _("a superuser")
            text = (
                _("%(names)s: no price, so nobody can use it. Take the vendors' list prices, or ask: %(people)s.")
                if may(person, "relay.change_model")
                else _("%(names)s: no price, so nobody can use it. A price can be set by: %(people)s.")
            )
        found.append(Todo(text % said, f"{where}?state=unpriced", True))
    if unserved:
        found.append(
            Todo(_("%(names)s: served by no channel.") % {"names": _names(unserved)}, f"{where}?state=unserved")
        )
    if unused:
        found.append(
            Todo(
                _("%(names)s: not open, and nobody has a permission.") % {"names": _names(unused)},
                f"{where}?state=unused",
            )
        )
    retiring = [model for model in models if model.retires_on is not None and model.retires_on <= soon]
    if retiring:
        found.append(
            Todo(
                _("%(names)s: taken out of service by the vendor, or soon. Offer another model in time.")
                % {"names": _names(retiring)},
                f"{where}?state=retiring",
            )
        )
    return found


def _names(models: list[Any]) -> str:
    shown = ", ".join(f"“{model}”" for model in models[:3])
    return _("%(names)s and %(n)d more") % {"names": shown, "n": len(models) - 3} if len(models) > 3 else shown


def _installation_todos(with_money: bool) -> list[Todo]:
    found = [
        Todo(
            _("Scheduled work fails (%(n)d×): %(what)s: %(why)s")
            % {"n": fault.times, "what": fault, "why": fault.text},
            reverse("admin:relay_channel_changelist"),
        )
        for fault in JobFault.objects.all()[:5]
    ]
    empty = LedgerAccount.objects.filter(
        kind="wallet", limited=True, used__gt=0, granted__lte=F("used"), user__is_active=True
    ).count()
    if empty and with_money:
        found.append(
            Todo(
                _("%(n)d user(s) have used their balance up.") % {"n": empty},
                reverse("admin:accounts_user_changelist") + "?balance=empty",
            )
        )
    blocked = BlockedAddress.objects.filter(blocked_until__gt=clock.now()).count()
    if blocked:
        found.append(
            Todo(
                _("%(n)d address(es) are blocked for bad tokens.") % {"n": blocked},
                reverse("admin:relay_blockedaddress_changelist"),
            )
        )
    # Who uses the portal alone needs no other user, but a token.
    if not Token.objects.filter(revoked_at=None).exists():
        found.append(Todo(_("No app can use the portal yet: create a token."), reverse("token-new")))
    found += [Todo(text, reverse("admin-installation"), urgent) for text, urgent in _system_checks()]
    return found


_checks_cache: dict[str, tuple[float, list[tuple[str, bool]]]] = {}


def _system_checks() -> list[tuple[str, bool]]:
    """Messages of the portal's system checks, and whether each is an error. Cached for a minute per language."""
    language = get_language() or ""
    cached = _checks_cache.get(language)
    if cached is not None and time.monotonic() - cached[0] < _CHECKS_CACHE_SECONDS:
        return cached[1]
    found = [
        (f"{message.msg} {message.hint or ''}".strip(), message.level >= checks.ERROR)
        for message in checks.run_checks(include_deployment_checks=True)
        if str(message.id).startswith("portal.")
    ]
    _checks_cache[language] = (time.monotonic(), found)
    return found
