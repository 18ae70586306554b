"""What an explanation says of prompt caches: the settings of a model, and a user's newest requests. Synchronous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.utils import formats, timezone
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib import clock
from relay.gateway.snapshot.views import ModelView, Route
from relay.models import Token, UsageRecord
from relay.usage.caches.misses import CACHED, CacheVerdict, caches_of

_NEWEST: Final = 5  # requests that are explained
_DAYS: Final = 1  # that they are looked for in
# APIs that clients of text speak, in the words of their vendors.
_CLIENTS: Final = {
    "chat.completions": "chat completions",
    "responses": "responses",
    "messages": "Anthropic Messages",
    "generate_content": "Gemini generateContent",
}


@dataclass(frozen=True, slots=True)
class CacheLine:
    """A request and what became of its prompt. Texts are in the active language."""

    request_id: str
    at: str
    channel: str
    share: str  # of the prompt that came from the cache
    why: str
    record: int  # the id of its usage record


def settings_of(model: ModelView, routes: Sequence[Route]) -> list[str]:
    """The settings of a model that make requests fail which channels could answer, as conditions on requests."""
    found = []
    if model.keeps_cache:
        found.append(
            _(
                "“%(model)s” is set to fail rather than to leave the cache: while the channel and key that answered "
                "the turn before of a conversation cannot answer, it gets 503 “warm_channel_unavailable” until that "
                "cache has expired."
            )
            % {"model": model.name}
        )
    if model.native_only:
        served = {api for route in routes for api in route.channel.urls}
        names = [name for api, name in _CLIENTS.items() if api in served]
        lacking = [name for api, name in _CLIENTS.items() if api not in served]
        found.append(
            _(
                "“%(model)s” is set to fail rather than to convert: it answers requests of %(served)s; those of "
                "%(lacking)s get 503 “conversion_refused”."
            )
            % {"model": model.name, "served": ", ".join(names) or _("nothing"), "lacking": ", ".join(lacking) or "—"}
        )
    return found


def newest_requests(user: User, token: Token | None, model: str) -> list[CacheLine]:
    """The newest requests of a user for a model within a day, and why each did or did not come from a cache."""
    rows = UsageRecord.objects.filter(user=user, started_at__gte=clock.now() - timedelta(days=_DAYS), model=model)
    if token is not None:
        rows = rows.filter(token=token)
    rows = rows.filter(endpoint__in=CACHED, input_tokens__gt=0).select_related("channel").order_by("-started_at")
    newest = list(rows[:_NEWEST])
    found = caches_of(newest, staff=True)
    return [_line(record, found[record.pk]) for record in newest if record.pk in found]


def _line(record: Any, found: CacheVerdict) -> CacheLine:
    at = formats.date_format(timezone.localtime(record.started_at), "MOMENT_FORMAT")
    channel = str(record.channel) if record.channel is not None else f"#{record.channel_id}"
    return CacheLine(record.request_id, at, channel, found.share.text, found.text, record.pk)
