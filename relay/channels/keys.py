"""Takes upstream keys out of service and puts them back, and notifies staff. Synchronous."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from accounts.models import AuditEvent
from accounts.preferences import language_of
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from relay.channels import cooldowns
from relay.models import ApiKey, Channel, ChannelEvent, Notice
from relay.models.channel import AutoDisabled
from relay.models.notice import NoticeKind

_TEST_AFTER: Final = timedelta(minutes=1)  # after being taken out of service, a key is tested for the first time
_MAX_PAUSE: Final = timedelta(days=1)  # between two tests of a key
_WHY: Final = {
    AutoDisabled.KEY_DEAD: gettext_noop("the upstream does not accept it"),
    AutoDisabled.BILLING: gettext_noop("the account behind it has no money or quota left"),
}
_REMEDY: Final = {
    AutoDisabled.KEY_DEAD: gettext_noop("Replace it, or test the channel when it is valid again."),
    AutoDisabled.BILLING: gettext_noop("Top up the account at the vendor, then test the channel."),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The answer that took a key out of service, and whose request it answered."""

    status: int  # of HTTP
    code: str = ""  # the upstream's error code
    user: int = 0  # id; 0: it was a test of the portal's own
    request_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what an audit event stores of it."""
        name = get_user_model().objects.filter(pk=self.user).values_list("username", flat=True).first()
        found = {"status": self.status, "code": self.code[:64], "user": name or "", "request": self.request_id}
        return {name: value for name, value in found.items() if value}


def add_keys(channel: Channel, secrets: Iterable[str]) -> tuple[list[ApiKey], int]:
    """Give a channel keys. Returns those that are new, and how many it had already, which are not added again.

    One that it had for another address is now for this one, and among the new ones.
    """
    with transaction.atomic():
        have, elsewhere = secrets_of(channel), _keys_elsewhere(channel)
        new, again, there = [], [], 0
        for secret in secrets:
            if secret in have:
                there += 1
                continue
            have.add(secret)
            key = elsewhere.get(secret)
            if key is not None:
                key.set_secret(secret, channel)
                key.reset_state()
                key.save()
                cooldowns.close_circuits(key_id=key.pk)
                again.append(key)
                continue
            key = ApiKey(channel=channel)
            key.set_secret(secret, channel)
            new.append(key)
        ApiKey.objects.bulk_create(new, batch_size=200)
    return [*again, *new], there


def secrets_of(channel: Channel, but: ApiKey | None = None) -> set[str]:
    """The secrets of a channel's keys, `but` one. Those that cannot be used are left out. 5,000 take 0.2 s."""
    found = set()
    for key in channel.keys.all():
        if but is None or key.pk != but.pk:
            try:
                found.add(key.secret_for(channel))
            except Undecryptable:
                continue
    return found


def _keys_elsewhere(channel: Channel) -> dict[str, ApiKey]:
    """The keys of a channel that were given for another address, by their secrets."""
    found = {}
    for key in channel.keys.exclude(given_for=channel.key_destination()):
        try:
            found[key.secret_to_compare()] = key
        except Undecryptable:
            continue
    return found


def take_out(key_id: int, kind: str, reason: str, evidence: Evidence | None = None) -> bool:
    """Take a key that is dead or without money out of service until a test passes, and notify staff once.

    `kind` is a value of AutoDisabled, `reason` what the upstream said. False when it was out of service already. The
    first test is made soon, whatever time the upstream named: one that the account refuses costs nothing, and what took
    the key out may have been a slip of the upstream.
    """
    kind_ = AutoDisabled(kind)
    now = clock.now()
    with transaction.atomic():
        key = (
            ApiKey.objects.select_for_update()
            .select_related("channel")
            .filter(pk=key_id, enabled=True, auto_disabled="")
            .first()
        )
        if key is None:
            return False
        key.auto_disabled, key.auto_disabled_at, key.auto_disabled_reason = kind_, now, reason[:300]
        key.next_test_at, key.failed_tests = now + _TEST_AFTER, 0
        key.save(
            update_fields=[
                "auto_disabled",
                "auto_disabled_at",
                "auto_disabled_reason",
                "next_test_at",
                "failed_tests",
                "updated_at",
            ]
        )
        ChannelEvent.write(key.channel_id, "key out", f"{key.public_name}: {reason}")
        said = {"kind": kind, "reason": reason[:300], **(evidence.as_json() if evidence is not None else {})}
        AuditEvent.write("key.auto-disable", None, key, channel=key.channel.name, **said)
        left = key.channel.keys.filter(enabled=True, auto_disabled="").count()
        name, shown = key.channel.name, str(key)

        def write_text() -> tuple[str, str]:
            rest = (
                _("The channel has %(n)d other key(s) in service.") % {"n": left}
                if left
                else _("The channel has no other key in service.")
            )
            out = _(
                "The key “%(key)s” of the channel “%(channel)s” was taken out of service, since %(why)s (%(reason)s)."
            )
            out %= {"key": shown, "channel": name, "why": _(_WHY[kind_]), "reason": reason}
            again = _("It is tested by itself from time to time, too, and put back when a test passes.")
            subject = _("The key %(key)s of “%(channel)s” is out of service") % {"key": shown, "channel": name}
            return subject, f"{out} {rest} {_(_REMEDY[kind_])} {again}"

        notify_staff(
            NoticeKind.KEY_DISABLED,
            f"key:{key.pk}:{int(now.timestamp())}",
            write_text,
            {"channel": name, "key": shown, "because": kind, "keys_left": left},
        )
    return True


def put_back(key: ApiKey, actor: Any, ip: str | None = None) -> bool:
    """Put a key back into service, close its circuits and notify staff. False when it was in service already."""
    with transaction.atomic():
        fresh = (
            ApiKey.objects.select_for_update()
            .select_related("channel")
            .filter(pk=key.pk)
            .exclude(auto_disabled="")
            .first()
        )
        if fresh is None:
            return False
        kind, since = fresh.auto_disabled, fresh.auto_disabled_at
        fresh.auto_disabled = fresh.auto_disabled_reason = ""
        fresh.auto_disabled_at = fresh.next_test_at = None
        fresh.failed_tests = 0
        cooldowns.close_circuits(key_id=fresh.pk)
        fresh.save(
            update_fields=[
                "auto_disabled",
                "auto_disabled_at",
                "auto_disabled_reason",
                "next_test_at",
                "failed_tests",
                "updated_at",
            ]
        )
        ChannelEvent.write(fresh.channel_id, "key back", fresh.public_name, actor)
        AuditEvent.write(
            "key.auto-enable" if actor is None else "key.put-back",
            actor,
            fresh,
            ip,
            channel=fresh.channel.name,
            was=kind,
        )
        notify_staff(
            NoticeKind.KEY_ENABLED,
            f"key-back:{fresh.pk}:{int(since.timestamp()) if since else 0}",
            lambda: (
                _("The key %(key)s of “%(channel)s” is back in service")
                % {"key": fresh, "channel": fresh.channel.name},
                _("The key “%(key)s” of the channel “%(channel)s” works again and was put back into service.")
                % {"key": fresh, "channel": fresh.channel.name},
            ),
            {"channel": fresh.channel.name, "key": str(fresh)},
        )
    key.refresh_from_db()
    return True


def evidence_of(key: ApiKey) -> dict[str, Any]:
    """Return what took a key out of service, as `Evidence.as_json` gives it; empty when nothing is known of it."""
    rows = AuditEvent.objects.filter(action="key.auto-disable", target_type="apikey", target_id=str(key.pk))
    found = rows.order_by("-pk").first()
    return found.detail if found is not None else {}


def order_test(key_id: int) -> None:
    """Have a key in service tested soon, since a request suggested that it does not work.

    Announces nothing: requests do not depend on when a key is tested.
    """
    keys = ApiKey._base_manager.filter(pk=key_id, enabled=True, auto_disabled="", next_test_at=None)
    keys.update(next_test_at=clock.now())


def postpone(key: ApiKey, wait: float | None = None) -> None:
    """Schedule the next test of a key after a failed one: twice as long after as before, at most a day.

    `wait`: the seconds after which the key works again, if the upstream said so in the test.
    """
    pause = max(_TEST_AFTER * 2 ** min(key.failed_tests + 1, 12), timedelta(seconds=wait or 0.0))
    next_test = clock.now() + min(pause, _MAX_PAUSE)
    ApiKey.objects.filter(pk=key.pk).update(failed_tests=key.failed_tests + 1, next_test_at=next_test)


def notify_staff(
    kind: str,
    key: str,
    write_text: Callable[[], tuple[str, str]],
    data: dict[str, Any],
    rights: tuple[str, ...] = ("relay.change_channel",),
) -> int:
    """Write a notice to everyone who may change channels, or has other `rights`, once per `key`.

    Returns how many are new.

    `write_text` returns subject and text in the active language, which is that of the recipient.
    """
    found = 0
    people = get_user_model().objects.filter(is_active=True, is_staff=True)
    for person in people:
        if person.has_perms(rights):
            with language_of(person):
                subject, text = write_text()
            _notice, fresh = Notice.objects.get_or_create(
                key=f"{key}:{person.pk}"[:120],
                defaults={"kind": kind, "user": person, "subject": subject[:150], "text": text, "data": data},
            )
            found += fresh
    return found
