"""What the API has: kinds of rows, each with the page of the administration that it is, and what is shown of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from django.contrib.auth.models import Group
from django.db.models import Model as Table
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from pydantic import Field

from accounts.models import LIMIT_FIELDS, GroupSettings, User
from accounts.rights import may
from portal.lib import money
from relay.manage.resources.groups import SETTINGS, settings_formsets
from relay.manage.resources.pages import Page, Values
from relay.models import (
    ApiKey,
    Budget,
    Channel,
    ChannelModel,
    Cooldown,
    Model,
    ModelPermission,
    ModelPrice,
    RedemptionBatch,
    Token,
)
from relay.models.ledger import AMOUNTS
from relay.models.price import CLASSES

Members = Mapping[str, tuple[Any, str]]  # type and description, by name
_LINES: Final = Annotated[list[Annotated[str, Field(max_length=20_000)]], Field(max_length=1000)]
_PASSWORD: Final = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class Resource:
    """A kind of row of the API."""

    path: str
    model: type[Table]
    area: str  # of scopes
    kind: str  # the member `object` of its rows
    one: str  # what a row is called
    reads: tuple[str, ...]  # fields
    writes: tuple[str, ...] = ()  # fields, and members of `sent`, that can be set
    fixed: tuple[str, ...] = ()  # of these, those that are set once
    required: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    searchable: bool = True
    does: frozenset[str] = frozenset(("add", "change", "delete"))
    shown: Members = field(default_factory=dict)  # members beside the fields
    show: Callable[[Any, Page], Mapping[str, Any]] = lambda row, page: {}
    sent: Members = field(default_factory=dict)  # members of bodies that are no fields of the row
    values: Callable[[dict[str, Any], bool], dict[str, Any]] = lambda values, new: values
    prepare: Callable[[Any, Values], None] | None = None
    formsets: Callable[[Values], Callable[[Any, Any], list[Any]]] | None = None
    called: Mapping[str, str] = field(default_factory=dict)  # what the API calls fields of the page's form otherwise
    narrow: Callable[[QuerySet[Any]], QuerySet[Any]] = lambda rows: rows


def _lines(*names: str) -> Callable[[dict[str, Any], bool], dict[str, Any]]:
    """Fields that a page has as lines of text, and the API as lists."""

    def written(values: dict[str, Any], new: bool) -> dict[str, Any]:
        return {name: "\n".join(value or ()) if name in names else value for name, value in values.items()}

    return written


def _prepare_channel(form: Any, values: Values) -> None:
    """The button of the page that allows an address is the member `allow_address` here."""
    form.offer = staticmethod(_offer)


def _offer(reason: str, entry: str) -> str:
    said = _("%(reason)s Send “allow_address”: “%(address)s” to allow it with this channel.")
    return said % {"reason": reason, "address": entry}


def _channel_values(values: dict[str, Any], new: bool) -> dict[str, Any]:
    renamed = {
        {"add_keys": "new_keys", "add_models": "new_models"}.get(name, name): one for name, one in values.items()
    }
    found = _lines("new_keys", "new_models")(renamed, new)
    return {name: value for name, value in found.items() if not (name == "allow_address" and not value)}


def _key_state(row: ApiKey, page: Page) -> Mapping[str, Any]:
    """Never a part of the secret but its ends, as on the page."""
    state = "auto_disabled" if row.auto_disabled else "enabled" if row.enabled else "disabled"
    if not row.is_for(row.channel):
        state = "given_for_another_address"
    return {"state": state}


def _model_names(row: Model, page: Page) -> Mapping[str, Any]:
    return {"further_names": [alias.name for alias in row.aliases.all()]}


def _user_money(row: Any, page: Page) -> Mapping[str, Any]:
    """The balance, for those who see it on the page."""
    if not page.page._sees_wallet(page.request):
        return {}
    limited = row.wallet_limited is not False
    found: dict[str, Any] = {"unlimited": not limited, "held_usd": money.plain(row.wallet_held or 0)}
    if limited:
        found["balance_usd"] = money.plain(row.wallet_balance or 0)
    if may(page.request.user, AMOUNTS):
        found["used_usd"] = money.plain(row.wallet_used or 0)
    return found


def _user_values(values: dict[str, Any], new: bool) -> dict[str, Any]:
    """A new user without a password cannot sign in with one until it is reset."""
    found = dict(values)
    if new:
        password = found.pop("password", None) or secrets.token_urlsafe(24)
        found |= {"password1": password, "password2": password}
    return found


def _token_money(row: Any, page: Page) -> Mapping[str, Any]:
    limited = bool(row.quota_limited)
    left = (row.quota_granted or 0) - (row.quota_used or 0) if limited else None
    found: dict[str, Any] = {
        "state": row.state(left=left),
        "quota_usd": money.plain(row.quota_granted or 0) if limited else None,
        "last_used_at": row.used_at.isoformat() if row.used_at is not None else None,
    }
    if "used" not in page.hidden():
        found["used_usd"] = money.plain(row.quota_used or 0)
    return found


def _token_values(values: dict[str, Any], new: bool) -> dict[str, Any]:
    found = _lines("allowed_ips")(dict(values), new)
    if "quota_usd" in found:
        found["quota"] = found.pop("quota_usd")
    return found


def _batch_money(row: Any, page: Page) -> Mapping[str, Any]:
    return {"usd": money.plain(row.amount), "redeemed": row.redeemed_count}


def _group_settings(row: Any, page: Page) -> Mapping[str, Any]:
    settings: Any = getattr(row, "settings", None)
    found: dict[str, Any] = {"members": row.member_count}
    for name in SETTINGS:
        value = getattr(settings, name, None)
        found[name] = f"{value.normalize():f}" if name == "price_multiplier" and value is not None else value
    return found


_CHANNEL: Final = (
    "name", "provider", "base_url", "enabled", "tags", "priority", "weight", "pool", "key_strategy",
    "retry_unanswered", "test_model", "test_every", "groups", "groups_limited", "proxy_url", "text_api", "parameters",
    "overrides", "sends_done", "stream_usage", "connect_timeout", "first_byte_timeout", "idle_timeout",
    "total_timeout", "notes", "cost_multiplier", "disconnect_policy", *LIMIT_FIELDS,
)  # fmt: skip
_MODEL: Final = (
    "name", "is_open", "enabled", "display_name", "description", "strategy", "sticky", "keeps_cache", "native_only",
    "owned_by", "context_window", "max_output_tokens", "retires_on", "abilities", "reasoning_levels", *LIMIT_FIELDS,
)  # fmt: skip
_TOKEN: Final = (
    "user", "name", "purpose", "enabled", "expires_at", "models_allowed", "models_limited", "limits_fixed",
    "allowed_ips", "notes", *LIMIT_FIELDS,
)  # fmt: skip
_USER: Final = (
    "username", "email", "first_name", "last_name", "notes", "is_active", "groups", "is_staff", "is_superuser",
    "language", "time_zone", *LIMIT_FIELDS,
)  # fmt: skip
_PRICE: Final = ("model", "purpose", "channel", "valid_from", "above_tokens", *CLASSES, "source")


def _settings() -> Members:
    """The settings of a group: their types, and what they are."""
    found: dict[str, tuple[Any, str]] = {}
    for name in SETTINGS:
        field: Any = GroupSettings._meta.get_field(name)
        kind = str if name in ("description", "price_multiplier") else bool if name == "is_default" else int
        found[name] = (kind | None, str(field.help_text or field.verbose_name))
    return found


_SETTINGS: Final = _settings()
RESOURCES: Final = (
    Resource(
        "channels", Channel, "channels", "channel", "channel",
        reads=(*_CHANNEL, "tested_at", "test_ok", "test_latency_ms", "test_message", "listed_at", "created_at"),
        writes=(*_CHANNEL, "add_keys", "add_models", "allow_address"),
        required=("name",),
        filters=("name", "provider", "enabled", "pool"),
        sent={
            "add_keys": (_LINES, "API keys to add. They are stored encrypted and never shown again."),
            "add_models": (_LINES, "Models to add: names, or “public-name = upstream-name”."),
            "allow_address": (
                Annotated[str, Field(max_length=300)],
                "An address that is not public, to be allowed with this channel, as the error names it: by superusers.",
            ),
        },
        values=_channel_values,
        called={"new_keys": "add_keys", "new_models": "add_models"},
        prepare=_prepare_channel,
    ),
    Resource(
        "keys", ApiKey, "channels", "key", "API key",
        reads=("channel", "label", "hint", "enabled", "weight", "auto_disabled", "auto_disabled_at",
               "auto_disabled_reason", "balance", "balance_currency", "balance_at", "created_at", *LIMIT_FIELDS),
        writes=("channel", "label", "secret", "enabled", "weight", *LIMIT_FIELDS),
        fixed=("channel",),
        required=("channel", "secret"),
        filters=("channel", "enabled", "auto_disabled"),
        shown={"state": (str, "enabled, disabled, auto_disabled or given_for_another_address.")},
        show=_key_state,
        sent={"secret": (Annotated[str, Field(max_length=20_000)], "The key. It is written, never shown.")},
        narrow=lambda rows: rows.select_related("channel"),
    ),
    Resource(
        "channel-models", ChannelModel, "channels", "channel_model", "model of a channel",
        reads=("channel", "model", "upstream_name", "enabled", "missing_since"),
        writes=("channel", "model", "upstream_name", "enabled"),
        fixed=("channel",),
        required=("channel", "model"),
        filters=("channel", "model", "enabled"),
    ),
    Resource(
        "models", Model, "models", "model", "model",
        reads=(*_MODEL, "created_at"),
        writes=(*_MODEL, "further_names"),
        required=("name",),
        filters=("name", "enabled", "is_open"),
        shown={"further_names": (list[str], "Names by which clients may ask for it, too.")},
        show=_model_names,
        sent={
            "further_names": (_LINES, "Names by which clients may ask for it, too: all of them."),
            "abilities": (_LINES, "What it can do."),
            "reasoning_levels": (_LINES, "Values of reasoning_effort that it takes."),
        },
        values=_lines("further_names"),
        narrow=lambda rows: rows.prefetch_related("aliases"),
    ),
    Resource(
        "permissions", ModelPermission, "models", "permission", "model permission",
        reads=("model", "user", "group", "expires_at"),
        writes=("model", "user", "group", "expires_at"),
        required=("model",),
        filters=("model", "user", "group"),
    ),
    Resource(
        "prices", ModelPrice, "prices", "price", "price",
        reads=(*_PRICE, "created_at"),
        writes=_PRICE,
        required=("model", "input", "output"),
        filters=("model", "channel", "purpose"),
    ),
    Resource(
        "users", User, "users", "user", "user",
        reads=(*_USER, "date_joined", "last_login"),
        writes=(*_USER, "password"),
        required=("username",),
        filters=("username", "email", "is_active", "is_staff"),
        does=frozenset(("add", "change")),
        shown={
            "balance_usd": (str | None, "What is left, held amounts included. Left out: unlimited, or not to be seen."),
            "held_usd": (str, "What running requests hold."),
            "used_usd": (str, "What was spent in all."),
            "unlimited": (bool, "Whether the balance limits nothing."),
        },
        show=_user_money,
        sent={"password": (_PASSWORD, "Of a new user. Without one, nobody knows it, and it must be reset.")},
        fixed=("password",),
        values=_user_values,
        called={"password1": "password", "password2": "password"},
    ),
    Resource(
        "groups", Group, "users", "group", "group",
        reads=("name",),
        writes=("name", *SETTINGS),
        required=("name",),
        filters=("name",),
        shown={"members": (int | None, "How many users are in it."), **_SETTINGS},
        show=_group_settings,
        sent=_SETTINGS,
        formsets=settings_formsets,
        narrow=lambda rows: rows.select_related("settings"),
    ),
    Resource(
        "tokens", Token, "tokens", "token", "token",
        reads=(*_TOKEN, "hint", "created_at", "rotated_at", "revoked_at"),
        writes=(*_TOKEN, "quota_usd"),
        fixed=("user",),
        required=("user", "name"),
        filters=("user", "enabled", "purpose"),
        does=frozenset(("add", "change")),
        shown={
            "state": (str, "active, disabled, expired, revoked or used_up."),
            "quota_usd": (str | None, "The most that it may spend in all; null: no limit of its own."),
            "used_usd": (str, "What it has spent."),
            "last_used_at": (str | None, "When its last request began."),
            "key": (str | None, "The token itself. Shown once: when it is made or rotated."),
        },
        show=_token_money,
        sent={
            "quota_usd": (
                Annotated[str, Field(max_length=40)] | float | int | None,
                "The most that it may spend in all, in USD; null: no limit.",
            ),
            "allowed_ips": (_LINES, "Addresses or networks that may use it. Empty: all."),
        },
        values=_token_values,
        called={"quota": "quota_usd"},
    ),
    Resource(
        "budgets", Budget, "money", "budget", "budget",
        reads=("user", "token", "period", "limit"),
        writes=("user", "token", "period", "limit"),
        fixed=("user", "token", "period"),
        required=("period", "limit"),
        filters=("user", "token", "period"),
    ),
    Resource(
        "redemption-batches", RedemptionBatch, "money", "redemption_batch", "batch of redemption codes",
        reads=("name", "count", "expires_at", "created_at", "created_by"),
        writes=("name", "count", "expires_at", "usd"),
        fixed=("count", "usd"),
        required=("name", "count", "usd"),
        filters=("name",),
        does=frozenset(("add", "change")),
        shown={"usd": (str, "What each code is worth."), "redeemed": (int | None, "How many are redeemed.")},
        show=_batch_money,
        sent={"usd": (Annotated[str, Field(max_length=40)] | float | int, "What each code is worth, in USD.")},
    ),
    Resource(
        "cooldowns", Cooldown, "routing", "cooldown", "cooldown",
        reads=("place", "channel", "api_key", "model", "kind", "detail", "opened", "guessed", "since", "until"),
        filters=("channel", "api_key", "model", "kind"),
        does=frozenset(),
    ),
)  # fmt: skip
BY_PATH: Final = {one.path: one for one in RESOURCES}
