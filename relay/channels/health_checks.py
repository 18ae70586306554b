"""Looking after channels: tests, balances, model lists. Done by people in the admin, and by `relay.jobs` from time to time. Synchronous."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import AuditEvent
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from relay.channels.keys import postpone, put_back, take_out, tell_staff
from relay.channels.probe import ProbeResult, fetch_balance, fetch_models, probe_channel
from relay.models import ApiKey, Channel, ChannelEvent
from relay.models.channel import AutoDisabled
from relay.models.notice import NoticeKind

logger: Final = logging.getLogger(__name__)
_MOST_NAMES: Final = 30


def test_channel(channel: Channel, actor: Any, ip: str | None = None) -> ProbeResult:
    """Test every enabled key of a channel with its first model; keep and audit the outcome. The first failure is the outcome.

    A key that passes is put back into service, one that is dead or without money is taken out.
    """
    model = test_model(channel)
    keys: list[ApiKey | None] = list(channel.keys.filter(enabled=True))
    if model is None:
        result = ProbeResult(False, _("The channel serves no model yet. Add one, or fetch its models."))
    elif not keys and channel.vendor.needs_key:
        result = ProbeResult(False, _("The channel has no enabled key. Add one."))
    else:
        results = [(key, test_key(channel, key, model, actor, ip)) for key in keys or [None]]
        key, result = next(((key, result) for key, result in results if not result.ok), results[-1])
        if not result.ok and key is not None and len(keys) > 1:
            result = ProbeResult(False, _("Key %(key)s: %(message)s") % {"key": key, "message": result.message}, result.latency_ms)
        elif result.ok and (firsts := [one.first_token_ms for _model, one in results if one.first_token_ms is not None]):
            channel.test_first_token_ms = min(firsts)
    turned = channel.test_ok is not None and channel.test_ok != result.ok
    channel.tested_at, channel.test_ok = clock.now(), result.ok
    channel.test_latency_ms, channel.test_message = result.latency_ms, result.message[:500]
    with transaction.atomic():
        channel.save(update_fields=["tested_at", "test_ok", "test_latency_ms", "test_message", "test_first_token_ms"])
        if turned:
            ChannelEvent.write(channel.pk, "test passed" if result.ok else "test failed", result.message, actor)
        if actor is not None:
            AuditEvent.write("channel.test", actor, channel, ip, ok=result.ok, message=result.message)
    return result


def test_model(channel: Channel) -> str | None:
    """What the upstream calls the model that tests ask for: the one that the channel names, or the first that it serves."""
    if channel.test_model:
        return channel.test_model
    served = channel.served.filter(enabled=True).select_related("model").order_by("pk").first()
    return (served.upstream_name or served.model.name) if served is not None else None


def test_key(channel: Channel, key: ApiKey | None, model: str, actor: Any = None, ip: str | None = None) -> ProbeResult:
    """One real request with one key, and what follows from it for the key."""
    try:
        result = probe_channel(channel, key, model, streamed=actor is None)
    except Undecryptable:
        return ProbeResult(False, _("The key cannot be decrypted with the configured encryption keys. Enter it again."))
    except Exception as error:  # one key's oddity must not keep the channel's other keys from being tested
        logger.exception("the test of the key %s of the channel %s failed", key, channel)
        result = ProbeResult(False, _("The test could not be made: %(error)s.") % {"error": type(error).__name__})
    if key is None:
        return result
    if result.ok:
        put_back(key, actor, ip)
    elif key.auto_disabled:
        postpone(key)
    elif result.failure is not None and result.failure.certain and result.failure.kind.word in AutoDisabled.values:
        take_out(key.pk, result.failure.kind.word, result.failure.detail, result.failure.wait)
    return result


def refresh_balances(channel: Channel) -> int:
    """Ask the vendor what is left on each key's account, where it says so. Returns how many it said."""
    found = 0
    for key in channel.keys.filter(enabled=True):
        try:
            balance = fetch_balance(channel, key)
        except Undecryptable:
            continue
        except Exception:
            logger.exception("the balance of the key %s of the channel %s could not be asked for", key, channel)
            continue
        if balance is not None:
            ApiKey.objects.filter(pk=key.pk).update(balance=balance.amount, balance_currency=balance.currency, balance_at=clock.now())
            found += 1
    return found


def refresh_models(channel: Channel) -> bool:
    """Fetch the upstream's model list, and tell staff what is new and what is gone since the last time. False when it could not be had."""
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
            _tell_of_models(channel, sorted(now - set(before)), sorted(set(before) - now))
    return True


def _tell_of_models(channel: Channel, new: list[str], gone: list[str]) -> None:
    served = {row.upstream_name or row.model.name for row in channel.served.filter(enabled=True).select_related("model")}
    lost = [name for name in gone if name in served]

    def words() -> tuple[str, str]:
        said = [_("The upstream of the channel “%(channel)s” lists other models than before.") % {"channel": channel.name}]
        said += [_("New: %(models)s.") % {"models": _names(new)}] if new else []
        said += [_("Gone: %(models)s.") % {"models": _names(gone)}] if gone else []
        said += [_("The channel still serves %(models)s: take it off, or give it another upstream name.") % {"models": _names(lost)}] if lost else []
        return _("The models of “%(channel)s” changed") % {"channel": channel.name}, " ".join(said)

    tell_staff(
        NoticeKind.MODEL_LIST,
        f"models:{channel.pk}:{int(clock.now().timestamp() * 1000)}",
        words,
        {"channel": channel.name, "new": new[:200], "gone": gone[:200], "served_and_gone": lost[:200]},
    )


def _names(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (_(" and %(n)d more") % {"n": more} if more > 0 else "")
