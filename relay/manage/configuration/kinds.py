"""What a configuration in text has: kinds of rows by what they are called there, and how values are written.

Rows are known by names, never by numbers. What an entry does not name stays as it is; a list that is named is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from django.contrib.auth.models import Group
from django.db.models import Model as Table
from django.db.models import Prefetch, QuerySet

from accounts.models import LIMIT_FIELDS, GroupSettings
from portal.lib import clock
from relay.manage.resources.groups import SETTINGS
from relay.models import Channel, ChannelModel, Model, ModelPermission, ModelPrice, Pool
from relay.models.price import CLASSES

Entry = dict[str, Any]  # of a document, and of a row written in the same way


@dataclass(frozen=True)
class Kind:
    """A kind of row."""

    section: str
    model: type[Table]
    one: str  # what a row is called
    identity: tuple[str, ...]  # members by which an entry names its row
    fields: tuple[str, ...]  # members that are fields of the row
    references: Mapping[str, str] = field(default_factory=dict)  # members that name rows, by the section of those
    more: tuple[str, ...] = ()  # members that are no fields of the row itself
    narrow: Callable[[QuerySet[Any]], QuerySet[Any]] = lambda rows: rows
    fresh: bool = False  # rows are not changed: another one takes the place of the last

    @property
    def members(self) -> frozenset[str]:
        return frozenset((*self.identity, *self.fields, *self.more))

    def key_of(self, entry: Entry) -> tuple[Any, ...]:
        return tuple(_empty_as_none(entry.get(name)) for name in self.identity)

    def title(self, entry: Entry) -> str:
        """How plans and errors call an entry."""
        said = [f"{entry[name]}" for name in self.identity if entry.get(name) not in (None, "", 0)]
        return f"{self.one} “{', '.join(said)}”"


def _empty_as_none(value: Any) -> Any:
    return None if value in ("", 0) else value


def _in_force(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Of prices those that apply now: the last of each."""
    return rows.filter(valid_from__lte=clock.now()).order_by("valid_from", "pk")


KINDS: Final = (
    Kind("pools", Pool, "pool", ("name",), ("strategy",)),
    Kind(
        "groups",
        Group,
        "group",
        ("name",),
        (),
        more=SETTINGS,
        narrow=lambda rows: rows.filter(role=None).select_related("settings"),
    ),
    Kind(
        "models",
        Model,
        "model",
        ("name",),
        (
            "enabled", "is_open", "display_name", "description", "strategy", "sticky", "keeps_cache", "native_only",
            "owned_by", "context_window", "max_output_tokens", "retires_on", "abilities", "reasoning_levels",
            *LIMIT_FIELDS,
        ),
        more=("further_names",),
        narrow=lambda rows: rows.prefetch_related("aliases"),
    ),
    Kind(
        "channels",
        Channel,
        "channel",
        ("name",),
        (
            "provider", "base_url", "enabled", "priority", "weight", "pool", "groups", "groups_limited", "tags",
            "key_strategy", "retry_unanswered", "proxy_url", "text_api", "sends_done", "stream_usage", "parameters",
            "overrides", "connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "cost_multiplier",
            "disconnect_policy", "test_model", "test_every", "notes", *LIMIT_FIELDS,
        ),
        references={"pool": "pools", "groups": "groups"},
        more=("models", "keys"),
        narrow=lambda rows: rows.filter(chatgpt_account=None)
        .select_related("pool")
        .prefetch_related("groups", "keys", Prefetch("served", ChannelModel.objects.select_related("model"))),
    ),
    Kind(
        "prices",
        ModelPrice,
        "price",
        ("model", "purpose", "channel", "above_tokens"),
        (*CLASSES, "source"),
        references={"model": "models", "channel": "channels"},
        narrow=lambda rows: _in_force(rows).select_related("model", "channel"),
        fresh=True,
    ),
    Kind(
        "permissions",
        ModelPermission,
        "permission",
        ("model", "group", "user"),
        ("expires_at",),
        references={"model": "models", "group": "groups", "user": "users"},
        narrow=lambda rows: rows.select_related("model", "group", "user"),
    ),
)  # fmt: skip
BY_SECTION: Final = {kind.section: kind for kind in KINDS}
KEY_MEMBERS: Final = frozenset(("label", "hint", "secret", "enabled", "weight"))


def written(kind: Kind, row: Any) -> Entry:
    """A row as an entry, with all members of its kind but keys."""
    found: Entry = {}
    for name in (*kind.identity, *kind.fields):
        field_: Any = row._meta.get_field(name)
        value = getattr(row, name)
        if field_.many_to_many:
            found[name] = sorted(one.name for one in value.all())
        elif name in kind.references:
            found[name] = None if value is None else getattr(value, "name", None) or value.get_username()
        else:
            found[name] = plain(value)
    if kind.section == "groups":
        settings = getattr(row, "settings", None)
        found |= {name: plain(getattr(settings or GroupSettings(), name)) for name in SETTINGS}
    if kind.section == "models":
        found["further_names"] = sorted(alias.name for alias in row.aliases.all())
    if kind.section == "channels":
        found["models"] = sorted(line_of(one.model.name, one.upstream_name) for one in row.served.all())
    return found


def line_of(public: str, upstream: str) -> str:
    """A model of a channel, as the channel's page takes it."""
    return f"{public} = {upstream}" if upstream and upstream != public else public


def plain(value: Any) -> Any:
    """A value as a document has it: amounts are texts, which are exact."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return value


def same(before: Any, after: Any) -> bool:
    """Whether a document says of a member what the row has. An empty text is nothing; amounts are in the same form."""
    if isinstance(before, list) and isinstance(after, list):
        return sorted(map(str, before)) == sorted(map(str, after))
    if before in (None, "") and after in (None, ""):
        return True
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    if isinstance(before, (datetime, date)) or isinstance(after, (datetime, date)):
        return str(before) == str(after) or before == after
    if isinstance(before, str) and isinstance(after, (int, float, Decimal)):
        try:
            return Decimal(before) == Decimal(str(after))
        except ArithmeticError:
            return before == after
    return bool(before == after)
