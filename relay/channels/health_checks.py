"""Health checks of channels: tests with a real request, balances, model lists. Run by staff and by `relay.jobs`.

Synchronous.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import AuditEvent
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from relay.channels.bills import readings
from relay.channels.cooldowns import end_cooldowns
from relay.channels.keys import Evidence, notify_staff, postpone, put_back, take_out
from relay.channels.probe import (
    ProbeResult,
    fetch_balance,
    fetch_models,
    probe_addresses,
    probe_channel,
    why_unusable,
)
from relay.models import ApiKey, Channel, ChannelEvent
from relay.models.channel import AutoDisabled
from relay.models.notice import NoticeKind

logger: Final = logging.getLogger(__name__)
_MAX_NAMES: Final = 30  # of models in a notice
_MOST_KEYS: Final = 100  # of one channel that a test asks, or whose balances are fetched, one after the other
_MAX_RESULTS: Final = 20  # of keys in the message of a test


def test_channel(channel: Channel, actor: Any, ip: str | None = None) -> ProbeResult:
    """Test every enabled key of a channel with one model, then store and audit the outcome.

    The test passes if every key does. Its message has the result of each key, failures first.

    A key that passes is put back into service; one that is dead or without money is taken out.
    """
    model = model_for_tests(channel)
    keys: list[ApiKey | None] = list(_some_keys(channel))
    if model is None:
        result = ProbeResult(False, _("The channel serves no model yet. Add one, or fetch its models."))
    elif not keys and channel.vendor.needs_key:
        result = ProbeResult(False, _("The channel has no enabled key. Add one."))
    else:
        results = [(key, test_key(channel, key, model, actor, ip)) for key in keys or [None]]
        result = next((result for _key, result in results if not result.ok), results[-1][1])
        if len(keys) > 1:
            result = ProbeResult(result.ok, _each_result(results), result.latency_ms)
        if result.ok and (firsts := [one.first_token_ms for _model, one in results if one.first_token_ms is not None]):
            channel.test_first_token_ms = min(firsts)
    changed = channel.test_ok is not None and channel.test_ok != result.ok
    channel.tested_at, channel.test_ok = clock.now(), result.ok
    channel.test_latency_ms, channel.test_message = result.latency_ms, result.message[:500]
    with transaction.atomic():
        channel.save(update_fields=["tested_at", "test_ok", "test_latency_ms", "test_message", "test_first_token_ms"])
        if changed:
            ChannelEvent.write(channel.pk, "test passed" if result.ok else "test failed", result.message, actor)
        if actor is not None:
            AuditEvent.write("channel.test", actor, channel, ip, ok=result.ok, message=result.message)
    return result


def _some_keys(channel: Channel) -> Sequence[ApiKey]:
    """The enabled keys of a channel; of more than a test may ask, others each time."""
    every = list(channel.keys.filter(enabled=True).values_list("pk", flat=True))
    chosen = every if len(every) <= _MOST_KEYS else random.sample(every, _MOST_KEYS)
    return list(channel.keys.filter(pk__in=chosen))


def _each_result(results: Sequence[tuple[ApiKey | None, ProbeResult]]) -> str:
    """Say how each key did, failures first, so that one key's failure hides neither another's nor a success."""
    failed = sum(not result.ok for _key, result in results)
    counts = {"passed": len(results) - failed, "keys": len(results)}
    said = [_("%(passed)d of %(keys)d keys passed.") % counts]
    for key, result in sorted(results, key=lambda one: one[1].ok)[:_MAX_RESULTS]:
        said.append(_("Key %(key)s: %(message)s") % {"key": key.public_name if key else "", "message": result.message})
    return " ".join(said) + (" …" if len(results) > _MAX_RESULTS else "")


def model_for_tests(channel: Channel) -> str | None:
    """Return the upstream name of the model to test with: the configured one, or the first that the channel serves."""
    if channel.test_model:
        return channel.test_model
    served = channel.served.filter(enabled=True).select_related("model").order_by("pk").first()
    return (served.upstream_name or served.model.name) if served is not None else None


def test_key(channel: Channel, key: ApiKey | None, model: str, actor: Any = None, ip: str | None = None) -> ProbeResult:
    """Test one key with a real request, and take it out of service or put it back accordingly.

    The request is ours, so where a key is under suspicion already, a status without a code is enough.
    """
    try:
        # A person who tests hears of another address; on a schedule nothing is changed.
        result = (
            probe_channel(channel, key, model, streamed=True) if actor is None else probe_addresses(channel, key, model)
        )
    except Undecryptable as error:
        return ProbeResult(False, why_unusable(error))
    except Exception as error:  # one key's oddity must not keep the channel's other keys from being tested
        logger.exception("the test of the key %s of the channel %s failed", key, channel)
        result = ProbeResult(False, _("The test could not be made: %(error)s.") % {"error": type(error).__name__})
    if result.base_url:
        changed = correct_base_url(channel, result.base_url, actor, ip)
        result = replace(result, message=f"{changed} {result.message}", base_url="")
    if key is None:
        return result
    failure, suspected = result.failure, not key.auto_disabled and key.next_test_at is not None
    condemned = failure is not None and failure.kind.word in AutoDisabled.values and (failure.certain or suspected)
    if result.ok:
        put_back(key, actor, ip)
    elif key.auto_disabled:
        postpone(key, failure.wait if failure is not None else None)
    elif failure is not None and condemned:
        take_out(key.pk, failure.kind.word, failure.detail, Evidence(failure.status, failure.code))
    if suspected and not condemned:
        ApiKey._base_manager.filter(pk=key.pk, auto_disabled="").update(next_test_at=None)
    return result


def correct_base_url(channel: Channel, base_url: str, actor: Any, ip: str | None = None) -> str:
    """Store the base URL on the same host that answers instead of the channel's. Returns what was changed, in words."""
    before = channel.effective_base_url
    channel.base_url = "" if base_url == channel.vendor.base_url else base_url
    with transaction.atomic():
        channel.save(update_fields=["base_url"])
        AuditEvent.write("channel.change", actor, channel, ip, changes={"base_url": [before, base_url]})
        end_cooldowns(list(channel.cooldowns.all()), actor, ip)
    return _("The base URL was %(before)s, where no API answers; %(now)s does, so it is %(now)s now.") % {
        "before": before,
        "now": base_url,
    }


def refresh_balances(channel: Channel) -> int:
    """Fetch the balance of each key's account from vendors that report it. Returns how many were fetched."""
    found = 0
    for key in _some_keys(channel):
        try:
            balance = fetch_balance(channel, key)
        except Undecryptable:
            continue
        except Exception:
            logger.exception("the balance of the key %s of the channel %s could not be asked for", key, channel)
            continue
        if balance is not None:
            readings.note(key, balance, clock.now())
            ApiKey.objects.filter(pk=key.pk).update(
                balance=balance.amount, balance_currency=balance.currency, balance_at=clock.now()
            )
            found += 1
    readings.compare(channel)
    return found


def refresh_models(channel: Channel) -> bool:
    """Fetch the upstream's model list, and notify staff of models that are new or gone.

    False when it could not be fetched.
    """
    try:
        listed = fetch_models(channel, channel.keys.filter(enabled=True, auto_disabled="").first())
    except Undecryptable:
        return False
    if listed.error or not listed.names:
        channel.listed_at = clock.now()
        channel.save(update_fields=["listed_at"])
        return False
    before: Sequence[str] | None = channel.listed_models
    now = set(listed.names)
    with transaction.atomic():
        for served in channel.served.select_related("model"):
            there = (served.upstream_name or served.model.name) in now
            if there == (served.missing_since is not None):
                served.missing_since = None if there else clock.now()
                served.save(update_fields=["missing_since"])
        channel.listed_models, channel.listed_at = sorted(now), clock.now()
        channel.save(update_fields=["listed_models", "listed_at"])
        if before is not None and set(before) != now:
            _notify_of_models(channel, sorted(now - set(before)), sorted(set(before) - now))
    return True


def _notify_of_models(channel: Channel, new: list[str], gone: list[str]) -> None:
    """Notify staff that an upstream lists other models than before."""
    served = {
        row.upstream_name or row.model.name for row in channel.served.filter(enabled=True).select_related("model")
    }
    lost = [name for name in gone if name in served]

    def write_text() -> tuple[str, str]:
        said = [
            _("The upstream of the channel “%(channel)s” lists other models than before.") % {"channel": channel.name}
        ]
        said += [_("New: %(models)s.") % {"models": _names(new)}] if new else []
        said += [_("Gone: %(models)s.") % {"models": _names(gone)}] if gone else []
        said += (
            [
                _("The channel still serves %(models)s: take it off, or give it another upstream name.")
                % {"models": _names(lost)}
            ]
            if lost
            else []
        )
        return _("The models of “%(channel)s” changed") % {"channel": channel.name}, " ".join(said)

    notify_staff(
        NoticeKind.MODEL_LIST,
        f"models:{channel.pk}:{int(clock.now().timestamp() * 1000)}",
        write_text,
        {"channel": channel.name, "new": new[:200], "gone": gone[:200], "served_and_gone": lost[:200]},
    )


def _names(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (_(" and %(n)d more") % {"n": more} if more > 0 else "")
