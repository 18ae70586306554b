"""one-api's `/api/channel/` and `/api/models`: channels, whose keys are written and never shown."""

from __future__ import annotations

import json
from typing import Any, Final

from django import forms
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from relay.admin.pasted import parse_served
from relay.billing.price_import import listings_for
from relay.manage import actions
from relay.manage.oneapi.answers import (
    body_of,
    changed,
    integer,
    page,
    reads,
    route,
    searched,
    seconds,
    success,
    text,
    writes,
)
from relay.manage.requests import once
from relay.manage.requests.access import need_scope
from relay.manage.requests.problems import Missing, Problem, of_validation
from relay.manage.resources import rows
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.models import ApiKey, ChannelModel, Model

CHANNELS: Final = BY_PATH["channels"]
# Numbers of one-api's kinds of channels, and the vendors that they are.
TYPES: Final = {
    1: "openai", 3: "azure", 8: "relay", 14: "anthropic", 16: "zhipu", 17: "dashscope", 20: "openrouter",
    23: "tencent", 24: "gemini", 25: "moonshot", 27: "minimax", 28: "mistral", 29: "groq", 30: "ollama", 32: "stepfun",
    35: "cohere", 36: "deepseek", 37: "cloudflare", 39: "together", 40: "volcengine", 41: "novita",
    44: "siliconflow", 45: "xai", 47: "qianfan", 48: "spark", 49: "dashscope", 50: "relay",
}  # fmt: skip
_NUMBERS: Final = {vendor: number for number, vendor in reversed(TYPES.items())}
_OTHER: Final = 50  # of vendors that one-api has not: they speak OpenAI's API
_MOST_MODELS: Final = 1000


def _all(request: HttpRequest) -> tuple[Page, Any]:
    made = rows.page_of(request, CHANNELS)
    return made, rows.rows_of(CHANNELS, made).prefetch_related("served__model")


def _one(request: HttpRequest, pk: int) -> tuple[Page, Any]:
    made, found = _all(request)
    channel = found.filter(pk=pk).first()
    if channel is None:
        raise Missing(_("There is no such channel."))
    return made, channel


def _shown(channel: Any) -> dict[str, Any]:
    served = sorted(channel.served.all(), key=lambda one: one.model.name)
    renamed = {one.model.name: one.upstream_name for one in served if one.upstream_name}
    groups = sorted(group.name for group in channel.groups.all())
    return {
        "id": channel.pk,
        "type": _NUMBERS.get(channel.provider, _OTHER),
        "key": "",
        "status": 1 if channel.enabled else 2,
        "name": channel.name,
        "weight": channel.weight,
        "created_time": seconds(channel.created_at),
        "test_time": seconds(channel.tested_at),
        "response_time": channel.test_latency_ms or 0,
        "base_url": channel.base_url,
        "other": "",
        "balance": 0,
        "balance_updated_time": 0,
        "models": ",".join(one.model.name for one in served if one.enabled),
        "group": ",".join(groups) if channel.groups_limited else "default",
        "used_quota": 0,
        "model_mapping": json.dumps(renamed, ensure_ascii=False) if renamed else "",
        "priority": channel.priority,
        "config": "",
        "system_prompt": "",
    }


def _groups(typed: str) -> dict[str, Any]:
    """The groups that a channel is for: `default` stands for everybody, unless a group is called so."""
    names = [one.strip() for one in typed.split(",") if one.strip()]
    found = dict(Group.objects.filter(name__in=names[:_MOST_MODELS]).values_list("name", "pk"))
    if not names or ("default" in names and "default" not in found):
        return {"groups": [], "groups_limited": False}
    for name in names:
        if name not in found:
            raise Missing(_("There is no group “%(group)s”.") % {"group": name[:150]})
    return {"groups": list(found.values()), "groups_limited": True}


def _mapping(sent: dict[str, Any]) -> dict[str, str]:
    """The upstream's names of models, by public name."""
    typed = text(sent.get("model_mapping"), "model_mapping").strip()
    try:
        renamed = json.loads(typed) if typed else {}
    except (ValueError, RecursionError):
        renamed = None
    if not isinstance(renamed, dict) or not all(isinstance(one, str) for one in renamed.values()):
        raise Problem(_("“model_mapping” must be a JSON object of names."))
    return renamed


def _lines(sent: dict[str, Any]) -> list[str]:
    """The models of a body, as the channel's page takes them."""
    renamed = _mapping(sent)
    names = [one.strip() for one in text(sent.get("models"), "models").split(",") if one.strip()]
    return [f"{name} = {renamed[name]}" if renamed.get(name) else name for name in names]


def _values(sent: dict[str, Any], new: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ("name", "base_url"):
        if sent.get(name) is not None:
            values[name] = text(sent[name], name)
    if "type" in sent or new:
        number = integer(sent.get("type"), "type", 0)
        if number not in TYPES:
            said = _("Channels of the type %(number)d of one-api are made in the administration, or over /api/v1.")
            raise Problem(said % {"number": number})
        values["provider"] = TYPES[number]
    for name in ("priority", "weight"):
        if sent.get(name) is not None:
            values[name] = integer(sent[name], name)
    if values.get("weight") == 0:  # one-api's default
        values["weight"] = 1
    if sent.get("status"):
        values["enabled"] = integer(sent["status"], "status") == 1
    if sent.get("group") is not None:
        values |= _groups(text(sent["group"], "group"))
    return values


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    """Public and upstream names of these models. Raises Invalid."""
    try:
        return list(parse_served("\n".join(lines)))
    except forms.ValidationError as error:
        raise of_validation(error) from None


def _look_up_prices(request: HttpRequest, pairs: list[tuple[str, str]], provider: str) -> None:
    """Look up list prices before the transaction begins, as the channel's page does."""
    if pairs:
        request.listings = listings_for(provider, pairs)  # type: ignore[attr-defined]


@reads("channels")
def listed(request: HttpRequest) -> Any:
    return [_shown(one) for one in page(request, _all(request)[1])]


@reads("channels")
def search(request: HttpRequest) -> Any:
    return [_shown(one) for one in searched(request, *_all(request))]


@reads("channels")
def read(request: HttpRequest, pk: int) -> Any:
    return _shown(_one(request, pk)[1])


def add(request: HttpRequest) -> HttpResponse:
    """Make one channel with all keys that are sent, one a line."""
    need_scope(request, "channels", write=True)
    sent = body_of(request)
    values = {**_values(sent, True), "add_models": _lines(sent)}
    values["add_keys"] = [one for one in text(sent.get("key"), "key").splitlines() if one.strip()]
    _look_up_prices(request, _pairs(values["add_models"]), values["provider"])

    def work() -> tuple[int, Any]:
        rows.page_of(request, CHANNELS).add(CHANNELS.values(values, True))
        return 200, success()

    return once.do(request, work)


def change(request: HttpRequest) -> HttpResponse:
    """Change a channel. A key that is sent replaces the only one there is; the models are those that are sent.

    As in one-api, empty texts change nothing; only an empty `model_mapping` does.
    """
    need_scope(request, "channels", write=True)
    body = body_of(request)
    pk = integer(body.get("id"), "id", 0)
    before = _one(request, pk)[1]
    sent = changed(body, _shown(before))
    for name in ("models", "group"):
        if sent.get(name) == "":
            del sent[name]
    values = _values(sent, False)
    mapping = _mapping(sent) if sent.get("model_mapping") is not None else None
    values["add_models"] = _lines({**body, "models": sent.get("models")})
    pairs = _pairs(values["add_models"])
    keys = [one for one in text(sent.get("key"), "key").splitlines() if one.strip()]
    _look_up_prices(request, pairs, values.get("provider") or before.provider)

    def work() -> tuple[int, Any]:
        made, channel = _one(request, pk)
        there = list(channel.keys.all()[:2])
        if len(keys) == 1 and len(there) == 1:
            other = Page(request, ApiKey)
            other.change(other.find(there[0].pk, lock=True), {"secret": keys[0]})
        elif keys:
            values["add_keys"] = keys
        made.change(made.find(pk, lock=True), CHANNELS.values(values, False))
        if pairs:
            _serve_only(request, pk, {public for public, _upstream in pairs})
        if mapping is not None:
            _rename(request, pk, mapping)
        return 200, success(_shown(_one(request, pk)[1]))

    return once.do(request, work)


def _serve_only(request: HttpRequest, channel: int, names: set[str]) -> None:
    """Take the models out of a channel that are not among these. Disabled ones are not shown, and stay as they are."""
    made = Page(request, ChannelModel)
    there = made.rows().filter(channel=channel).select_related("model")
    for row in list(there.filter(enabled=True).exclude(model__name__in=names)):
        made.delete(row)
    for row in list(there.filter(enabled=False, model__name__in=names)):
        made.change(row, {"enabled": True})


def _rename(request: HttpRequest, channel: int, mapping: dict[str, str]) -> None:
    """Set the upstream's names of the models that a channel serves."""
    made = Page(request, ChannelModel)
    for row in list(made.rows().filter(channel=channel, enabled=True).select_related("model")):
        wanted = mapping.get(row.model.name, "")
        if row.upstream_name != wanted:
            made.change(row, {"upstream_name": wanted})


@writes("channels")
def delete(request: HttpRequest, pk: int) -> Any:
    made = _one(request, pk)[0]
    made.delete(made.find(pk, lock=True))


def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Test a channel with a real request."""
    need_scope(request, "channels", write=True)
    _channel, result = actions.run_test(request, pk)
    took = (result.latency_ms or 0) / 1000
    return once.answered(200, {"success": result.ok, "message": "" if result.ok else result.message, "time": took})


@reads("models")
def models(request: HttpRequest) -> Any:
    """The models of each kind of channel, by its number."""
    found: dict[int, set[str]] = {}
    links = Page(request, ChannelModel).rows().filter(enabled=True)
    for provider, name in links.values_list("channel__provider", "model__name").distinct()[:_MOST_MODELS]:
        found.setdefault(_NUMBERS.get(provider, _OTHER), set()).add(name)
    return {str(number): sorted(names) for number, names in sorted(found.items())}


@reads("models")
def all_models(request: HttpRequest) -> HttpResponse:
    """All models, as /v1/models lists them."""
    found = Page(request, Model).rows().order_by("name")[:_MOST_MODELS]
    data = [{"id": one.name, "object": "model", "created": seconds(one.created_at)} for one in found]
    return once.answered(200, {"object": "list", "data": data})


ROUTES: Final = {
    "channel/": route(GET=listed, POST=add, PUT=change),
    "channel/search": route(GET=search),
    "channel/models": route(GET=all_models),
    "channel/test/<int:pk>": route(GET=test),
    "channel/<int:pk>": route(GET=read, DELETE=delete),
    "models": route(GET=models),
}
