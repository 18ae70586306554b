"""What has changed of a channel there since it was carried over, unless the same was changed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib.auth.models import Group

from accounts.models import Change
from accounts.models.change import announce
from portal.lib.crypto import Undecryptable
from relay.importers.description import Level, SourceChannel, SourceKey
from relay.importers.mapping import Known, changed, digest
from relay.importers.run import Run
from relay.importers.writing.channel_rows import add_keys, add_routes, seen
from relay.models import ApiKey, Channel, ChannelModel

# Columns that follow the source as they are.
_COLUMNS: Final = ("provider", "base_url", "enabled", "priority", "weight", "overrides")


def follow_channel(run: Run, channel: SourceChannel, wanted: Channel, keys: Sequence[SourceKey], known: Known) -> None:
    """Carry over the changes. `wanted`: the channel as it would be made now."""
    row = Channel.objects.filter(pk=known.object_id).first()
    if row is None:
        run.report.leave_out("channel", channel, "It was carried over before and was deleted here.")
        return
    now = seen(channel, wanted, keys)
    fields = set(changed(known, now)) if not known.undone else set(now)
    if not fields:
        run.report.counts["channel"].unchanged += 1
        run.report.counts["key"].unchanged += len(keys)
        return
    apply: set[str] = {
        name for name in _COLUMNS if name in fields and (known.undone or getattr(row, name) == known.seen[name])
    }
    if "proxy_url" in fields and (known.undone or digest(row.proxy_url) == known.seen["proxy_url"]):
        apply.add("proxy_url")
    for name in sorted(fields - apply - {"groups", "routes", "keys"}):
        text = f"Its {name.replace('_', ' ')} was changed there and here: what it is here stays."
        run.report.tell("channel", channel, text)
    new_keys = [key for key in keys if digest(key.secret.strip()) not in known.seen["keys"]]
    gone = set(known.seen["keys"]) - set(now["keys"])
    if gone:
        text = f"{len(gone)} of its keys are no longer there; here they stay."
        run.report.tell("channel", channel, text, Level.NOTE)
    run.report.counts["channel"].changed += 1
    run.report.counts["key"].new += len(new_keys)
    run.report.counts["key"].unchanged += len(keys) - len(new_keys)
    if not run.applies:
        return
    with run.batch():
        for name in apply:
            setattr(row, name, getattr(wanted, name))
        row.save()
        if apply & {"provider", "base_url", "proxy_url"}:
            _send_keys_there(row, keys)
        have = _secrets(row)
        add_keys(row, [key for key in new_keys if key.secret.strip() not in have])
        if "routes" in fields:
            _follow_routes(run, channel, row, known.seen["routes"], now["routes"])
        if "groups" in fields:
            _follow_groups(run, row, known.seen["groups"], now["groups"])
        run.rows.update(known, now)
        run.audit("import.change", [(row, channel.id)])
        announce(Change.CATALOG)


def _secrets(row: Channel) -> set[str]:
    return {secret for key in row.keys.all() if (secret := _secret(key))}


def _secret(key: ApiKey) -> str:
    try:
        return key.secret_to_compare()
    except Undecryptable:
        return ""


def _send_keys_there(row: Channel, keys: Sequence[SourceKey]) -> None:
    """Give the keys that the source has for the channel to its new address."""
    known = {key.secret.strip() for key in keys}
    for key in row.keys.all():
        secret = _secret(key)
        if secret in known:
            key.set_secret(secret, row)
            key.save()


def _follow_routes(run: Run, channel: SourceChannel, row: Channel, before: Any, now: Any) -> None:
    """Add models that were added there, and take away those that were taken away and are as they were."""
    was, are = {tuple(entry) for entry in before}, {tuple(entry) for entry in now}
    for model, upstream in was - are:
        ChannelModel.objects.filter(channel=row, model__name=model, upstream_name=upstream).delete()
    add_routes(run, channel, row, {model for model, _upstream in are - was})


def _follow_groups(run: Run, row: Channel, before: Sequence[str] | None, now: Sequence[str] | None) -> None:
    gone = {here for one in set(before or ()) - set(now or ()) if (here := run.rows.here("group", one))}
    added = {here for one in set(now or ()) - set(before or ()) if (here := run.rows.here("group", one))}
    row.groups.remove(*Group.objects.filter(pk__in=gone))
    row.groups.add(*added)
