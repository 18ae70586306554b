"""Channels with their keys and models. Their addresses pass the same check as those that people type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError

from accounts.models import Change
from accounts.models.change import announce
from portal.lib import net
from portal.lib.redaction.redact import redact
from portal.lib.texts import TranslatableError
from relay.channels.urls import allowance_for, base_url_of, check_typed_url
from relay.importers.description import Level, SourceChannel, SourceKey
from relay.importers.mapping import ImportRefused, NewRow
from relay.importers.run import Run
from relay.importers.writing.channel_rows import MOST_WEIGHT, add_keys, add_routes, seen
from relay.importers.writing.following import follow_channel
from relay.importers.writing.naming import Names, rates
from relay.models import AllowedUpstream, Channel
from relay.models.channel import KeyStrategy
from relay.providers.credentials.contract import BadKey
from relay.providers.overrides.rules import read_overrides
from relay.providers.vendors import BUILT_IN, PRIVATE, VENDORS

_LONGEST: Final = 80
_LONGEST_URL: Final = 300


class _Refused(Exception):
    """The channel cannot be carried over. The message says why."""


def carry(run: Run) -> None:
    also = _allow(run)
    names = Names(Channel.objects.values_list("name", flat=True), _LONGEST)
    checked: dict[tuple[str, str], str | Exception] = {}
    for channel in run.source.channels():
        run.report.remarks("channel", channel, channel.remarks)
        if channel.left_out:
            run.report.leave_out("channel", channel, channel.left_out)
            continue
        try:
            row = _row(run, channel, also, checked)
        except _Refused as why:
            run.report.leave_out("channel", channel, str(why))
            continue
        keys = _usable_keys(run, channel)
        known = run.rows.find("channel", channel.id)
        if known is None:
            _create(run, channel, row, keys, names)
        else:
            follow_channel(run, channel, row, keys, known)


def note_of(installation: str) -> str:
    """What stands beside an address that an import has allowed."""
    return f"For channels from {installation}"


def _allow(run: Run) -> list[net.Allowance]:
    """Put addresses on the list of those that channels may use. Returns all that an option names."""
    found = []
    for text in run.options.allow:
        entry = AllowedUpstream(address=text.strip(), note=note_of(run.report.installation))
        try:
            entry.clean()
        except ValidationError as error:
            raise ImportRefused(f"--allow: {' '.join(error.messages)}") from None
        found.append(net.Allowance.parse(entry.address))
        if run.applies and not AllowedUpstream.objects.filter(address=entry.address).exists():
            with run.batch():
                entry.save()
                run.audit("import.create", [(entry, entry.address)])
    return found


def _row(
    run: Run, channel: SourceChannel, also: Sequence[net.Allowance], checked: dict[tuple[str, str], str | Exception]
) -> Channel:
    """The channel as it is to be here, without a name that is free. Raises _Refused."""
    vendor = VENDORS.get(channel.provider)
    if vendor is None or channel.provider in BUILT_IN | PRIVATE:
        raise _Refused("There is no such vendor here.")
    place = (channel.provider, channel.base_url)
    if place not in checked:  # to resolve a name may take seconds
        try:
            checked[place] = base_url_of(vendor, channel.base_url, also)
        except net.AddressRefused as reason:
            checked[place] = reason
    base_url = checked[place]
    if not isinstance(base_url, Exception) and len(base_url) > _LONGEST_URL:
        raise _Refused(f"Its address is longer than {_LONGEST_URL} characters.")
    if isinstance(base_url, Exception):
        remedy = ""
        if isinstance(base_url, net.NotPublic):
            remedy = f" To carry it over, allow it: --allow {allowance_for(vendor, channel.base_url)}"
        raise _Refused(f"Its address cannot be used. {redact(str(base_url))}{remedy}")
    proxy, enabled = _proxy(run, channel, also), channel.enabled
    if proxy is None:
        proxy, enabled = "", channel.enabled and run.options.direct
    if not 0 < channel.weight <= MOST_WEIGHT:
        text = f"Its weight {channel.weight} becomes the nearest that there is here, from 1 to {MOST_WEIGHT}."
        run.report.tell("channel", channel, text)
    return Channel(
        name=channel.name,
        provider=channel.provider,
        base_url=base_url,
        enabled=enabled,
        priority=max(-(2**31), min(channel.priority, 2**31 - 1)),
        weight=max(1, min(channel.weight, MOST_WEIGHT)),
        groups_limited=channel.groups is not None,
        key_strategy=KeyStrategy.ROUND_ROBIN if channel.in_turn else KeyStrategy.RANDOM,
        proxy_url=proxy,
        overrides=_overrides(run, channel, vendor.credentials.header),
        text_api=channel.text_api,
        test_model=channel.test_model[:160],
        notes=channel.notes,
        tags=" ".join(channel.tags.split())[:200],
        **rates(channel.rates),
    )


def _proxy(run: Run, channel: SourceChannel, also: Sequence[net.Allowance]) -> str | None:
    """The proxy as it is stored. None: there is one that cannot be used here."""
    if not channel.proxy_url:
        return ""
    try:
        if len(channel.proxy_url) > _LONGEST_URL:
            raise net.AddressRefused("Its address is too long.")
        return check_typed_url(channel.proxy_url, ("http",), also)
    except net.AddressRefused as reason:
        consequence = (
            "It is called without one."
            if run.options.direct
            else "It is disabled until you set another one, or enable it without one (--direct does that for all)."
        )
        why = redact(str(reason))
        run.report.tell("channel", channel, f"Its proxy cannot be used here. {why} {consequence}")
        return None


def _overrides(run: Run, channel: SourceChannel, credential: str) -> list[dict[str, Any]]:
    """The rules that can be applied here."""
    found: list[dict[str, Any]] = []
    for rule in channel.overrides:
        try:
            read_overrides([*found, dict(rule)], credential)
        except TranslatableError as why:
            what = rule.get("path") or rule.get("header") or "?"
            run.report.tell("channel", channel, f"Its override of “{what}” is left out: {redact(str(why))}")
        else:
            found.append(dict(rule))
    return found


def _usable_keys(run: Run, channel: SourceChannel) -> list[SourceKey]:
    """Its keys, each once, without those that its vendor would not take."""
    found: dict[str, SourceKey] = {}
    credentials, uris = VENDORS[channel.provider].credentials, settings.CONFIG.google_token_uris
    for number, key in enumerate(channel.keys, 1):
        secret = key.secret.strip()
        try:
            credentials.check(secret, uris)
        except BadKey as why:
            run.report.tell("key", channel, f"Key {number} is left out: {why}", Level.LEFT_OUT)
            run.report.counts["key"].left_out += 1
            continue
        if not secret or (not secret.isprintable() and not credentials.is_json):
            run.report.counts["key"].left_out += 1
        elif secret in found:
            run.report.tell("key", channel, f"Key {number} is the same as an earlier one.", Level.NOTE)
        else:
            found[secret] = key
    if not found and VENDORS[channel.provider].needs_key:
        run.report.tell("channel", channel, "It has no key that can be used: it serves nobody until it gets one.")
    return list(found.values())


def _create(run: Run, channel: SourceChannel, row: Channel, keys: Sequence[SourceKey], names: Names) -> None:
    row.name = names.take(channel.name or f"Channel {channel.id}", run.report.installation)
    if row.name != channel.name:
        run.report.tell("channel", channel, f"It is called “{row.name}” here.", Level.NOTE)
    run.report.counts["channel"].new += 1
    run.report.counts["key"].new += len(keys)
    if not run.applies:
        run.rows.plan("channel", channel.id)
        return
    with run.batch():
        row.save()
        groups = [here for group in channel.groups or () if (here := run.rows.here("group", group))]
        row.groups.add(*groups)
        add_keys(row, keys)
        add_routes(run, channel, row)
        run.rows.add("channel", [NewRow(channel.id, row.pk, seen=seen(channel, row, keys))])
        run.audit("import.create", [(row, channel.id)])
        announce(Change.CATALOG)
