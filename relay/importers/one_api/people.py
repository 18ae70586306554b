"""Users and groups, tokens and redemption codes of both programs: rows as they are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from portal.lib import clock
from relay.importers.description import (
    CodeState,
    Level,
    Remark,
    Role,
    SourceCode,
    SourceGroup,
    SourceToken,
    SourceUser,
)
from relay.importers.one_api.settings import ProgramOptions
from relay.importers.reading.database import Database
from relay.importers.reading.row import Row, json_of, mapping_of, nano_of, texts_of

_USERS: Final = (
    "id", "username", "password", "display_name", "role", "status", "email", "github_id", "discord_id", "oidc_id",
    "wechat_id", "lark_id", "telegram_id", "linux_do_id", "quota", "group", "aff_quota", "deleted_at", "remark",
    "created_at",
)  # fmt: skip
_TOKENS: Final = (
    "id", "user_id", "key", "status", "name", "expired_time", "remain_quota", "unlimited_quota", "models", "subnet",
    "model_limits_enabled", "model_limits", "allow_ips", "group", "auto_groups", "deleted_at",
)  # fmt: skip
_CODES: Final = (
    "id", "key", "status", "name", "quota", "redeemed_time", "used_user_id", "expired_time", "deleted_at"
)  # fmt: skip
_ENABLED, _DELETED = 1, 3
_EXPIRED, _EXHAUSTED = 3, 4  # of tokens
_NEVER: Final = -1  # as tokens have it; the end of a code is 0
_LONG_AGO, _FOR_EVER = 946_684_800, 32_503_680_000  # the years 2000 and 3000
_ADMIN, _OWNER = 10, 100
_OPEN, _USED = 1, 3
_GONE: Final = "It was deleted there."
_PREFIX: Final = "sk-"
_DEFAULT: Final = "default"
_AUTO: Final = "auto"
_OUTSIDE: Final = {
    "github_id": "GitHub",
    "discord_id": "Discord",
    "oidc_id": "OpenID Connect",
    "wechat_id": "WeChat",
    "lark_id": "Lark",
    "telegram_id": "Telegram",
    "linux_do_id": "LinuxDO",
}


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """What tokens of a group of their own may use: models by group, and the multiples that groups pay."""

    models: Mapping[str, frozenset[str]]
    ratios: Mapping[str, Decimal]
    auto: tuple[str, ...]  # the groups that “auto” tries


class PeopleReader:
    """Reads the people of one installation."""

    def __init__(self, program: str, database: Database, options: ProgramOptions) -> None:
        self._program, self._database, self._options = program, database, options
        self._ratios = options.table("GroupRatio")
        self._special = json_of(options.text("GroupGroupRatio"))

    def groups(self, used: Iterator[str]) -> Iterator[SourceGroup]:
        """All groups with a ratio, and those that users or channels are in without one."""
        special = self._special if isinstance(self._special, dict) else {}
        for name in dict.fromkeys([*self._ratios, *used]):
            remarks = []
            ratio = self._ratios.get(name)
            if ratio is None:
                remarks.append(Remark("It had no ratio there, so that 1 was used: as here.", Level.NOTE))
            if name in special:
                told = ", ".join(f"{group}: {value}" for group, value in mapping_of(special[name]).items())
                remarks.append(Remark(f"What its users paid for tokens of other groups ({told}) is left out."))
            yield SourceGroup(
                id=name, name=name, multiplier=ratio if ratio is not None else Decimal(1), remarks=tuple(remarks)
            )

    def users(self, more: Mapping[str, frozenset[str]]) -> Iterator[SourceUser]:
        """All users. `more`: groups that their tokens use beside their own, by id of the user."""
        for row in self._database.rows("users", _USERS):
            yield self._user(row, more.get(row.text("id"), frozenset()))

    def _user(self, row: Row, more: frozenset[str]) -> SourceUser:
        status, role = row.whole("status", _ENABLED), row.whole("role", 1)
        balance, exact = nano_of(row.get("quota"), self._options.quota_per_usd)
        remarks = [] if exact else [Remark("Its balance is rounded down to a nano-USD.", Level.NOTE)]
        outside = [title for column, title in _OUTSIDE.items() if row.text(column)]
        if outside:
            remarks.append(Remark(f"Its sign-in with {', '.join(outside)} has to be connected again."))
        if row.whole("aff_quota") > 0:
            earned, _exact = nano_of(row.get("aff_quota"), self._options.quota_per_usd)
            remarks.append(Remark(f"What it earned by invitations ({_usd(earned)}) is left out."))
        group = row.text("group") or _DEFAULT
        if more - {group}:
            text = f"It is in the group {', '.join(sorted(more - {group}))}, too, which tokens of its use there."
            remarks.append(Remark(text))
        deleted = row.get("deleted_at") is not None or status == _DELETED
        return SourceUser(
            id=row.text("id"),
            name=row.text("username"),
            left_out=_GONE if deleted else "",
            remarks=() if deleted else tuple(remarks),
            display_name=row.text("display_name"),
            email=row.text("email"),
            role=Role.OWNER if role >= _OWNER else Role.ADMIN if role >= _ADMIN else Role.USER,
            enabled=status == _ENABLED,
            password=row.text("password"),
            groups=(group, *sorted(more - {group})),
            balance=balance,
            joined_at=row.moment("created_at"),
            notes=row.text("remark"),
        )

    def group_of_users(self) -> dict[str, str]:
        """The group of each user that was not deleted."""
        return {
            row.text("id"): row.text("group") or _DEFAULT
            for row in self._database.rows("users", ("id", "group", "deleted_at", "status"))
            if row.get("deleted_at") is None and row.whole("status", _ENABLED) != _DELETED
        }

    def tokens(self, groups: TokenGroups, owners: Mapping[str, str]) -> Iterator[SourceToken]:
        """All tokens. `owners`: the group of each user."""
        for row in self._database.rows("tokens", _TOKENS):
            yield self._token(row, groups, owners.get(row.text("user_id"), ""))

    def _token(self, row: Row, groups: TokenGroups, group: str) -> SourceToken:
        remarks: list[Remark] = []
        quota, exact = nano_of(row.get("remain_quota"), self._options.quota_per_usd)
        unlimited = row.flag("unlimited_quota")
        if not exact and not unlimited:
            remarks.append(Remark("Its quota is rounded down to a nano-USD.", Level.NOTE))
        models = self._models(row)
        wanted = self.groups_of_token(row, groups)
        if wanted and set(wanted) != {group}:
            allowed = {model for one in wanted for model in groups.models.get(one, ())}
            models = tuple(sorted(allowed if models is None else allowed & set(models)))
            told = ", ".join(wanted)
            text = (
                f"Its group ({told}) becomes a list of the models of that group; its owner's multiple of prices holds."
            )
            remarks.append(Remark(text))
        ends_at = _end_of(row.whole("expired_time", _NEVER), _NEVER)
        enabled = _works(row.whole("status", _ENABLED), ends_at, None if unlimited else quota)
        if enabled is None:
            text = "It was not enabled again there after it had been given time or money: it is disabled here."
            remarks.append(Remark(text))
        networks = self._networks(row)
        key = row.text("key")
        return SourceToken(
            id=row.text("id"),
            name=row.text("name"),
            left_out=_GONE if row.get("deleted_at") is not None else "",
            remarks=tuple(remarks),
            user=row.text("user_id"),
            secret=f"{_PREFIX}{key.removeprefix(_PREFIX)}" if key else "",
            enabled=bool(enabled),
            expires_at=ends_at,
            quota=None if unlimited else quota,
            models=models,
            networks=tuple(networks) if networks else None,
        )

    def groups_of_token(self, row: Row, groups: TokenGroups) -> tuple[str, ...]:
        """The groups that a token uses in the place of its owner's; none: its owner's."""
        group = row.text("group")
        if group != _AUTO:
            return (group,) if group else ()
        own = json_of(row.get("auto_groups"))
        chosen = [str(one) for one in own] if isinstance(own, list) else texts_of(row.get("auto_groups"))
        return tuple(chosen) or groups.auto

    def _models(self, row: Row) -> tuple[str, ...] | None:
        """The models that it is limited to. An empty list limits nothing there; here it would allow nothing."""
        if self._program == "new-api":
            return tuple(texts_of(row.get("model_limits"))) if row.flag("model_limits_enabled") else None
        return tuple(texts_of(row.get("models"))) or None

    def _networks(self, row: Row) -> list[str]:
        column = "allow_ips" if self._program == "new-api" else "subnet"
        return texts_of(row.get(column), ",\n\r; ")

    def groups_by_user(self, groups: TokenGroups, owners: Mapping[str, str]) -> dict[str, frozenset[str]]:
        """The groups that users need beside their own for their tokens, where they pay no less through them."""
        found: dict[str, set[str]] = {}
        for row in self._database.rows("tokens", _TOKENS):
            user = row.text("user_id")
            own = owners.get(user)
            if own is None or row.get("deleted_at") is not None:
                continue
            for group in self.groups_of_token(row, groups):
                if group != own and groups.ratios.get(group, Decimal(1)) >= groups.ratios.get(own, Decimal(1)):
                    found.setdefault(user, set()).add(group)
        return {user: frozenset(names) for user, names in found.items()}

    def codes(self) -> Iterator[SourceCode]:
        for row in self._database.rows("redemptions", _CODES):
            amount, exact = nano_of(row.get("quota"), self._options.quota_per_usd)
            status = row.whole("status", _OPEN)
            states = {_OPEN: CodeState.OPEN, _USED: CodeState.REDEEMED}
            yield SourceCode(
                id=row.text("id"),
                name=row.text("name"),
                left_out=_GONE if row.get("deleted_at") is not None else "",
                remarks=() if exact else (Remark("Its amount is rounded down to a nano-USD.", Level.NOTE),),
                code=row.text("key"),
                amount=amount,
                state=states.get(status, CodeState.DISABLED),
                expires_at=_end_of(row.whole("expired_time"), 0),
                redeemed_by=row.text("used_user_id") if row.whole("used_user_id") else "",
                redeemed_at=row.moment("redeemed_time"),
            )


def _end_of(seconds: int, never: int) -> datetime | None:
    """When something ends; None: never. Times before the year 2000 have passed as well; there are no milliseconds."""
    if seconds == never or seconds >= _FOR_EVER:
        return None
    return datetime.fromtimestamp(max(seconds, _LONG_AGO), UTC)


def _works(status: int, ends_at: datetime | None, quota: int | None) -> bool | None:
    """Whether a token is enabled. None: it was to be enabled again there by hand.

    Expired and exhausted ones say so themselves, and work again when somebody gives them time or money here.
    """
    if status == _EXPIRED and (ends_at is None or ends_at > clock.now()):
        return None
    if status == _EXHAUSTED and (quota is None or quota > 0):
        return None
    return status in (_ENABLED, _EXPIRED, _EXHAUSTED)


def _usd(amount: int) -> str:
    from portal.lib import money

    return money.exact(amount)


def about(database: Database, options: ProgramOptions) -> Iterator[Remark]:
    """What is left out of the whole installation."""
    counted: tuple[tuple[str, str], ...] = (
        ("two_fas", "second factors: users set theirs up again"),
        ("passkey_credentials", "passkeys: users add theirs again"),
        ("user_oauth_bindings", "sign-ins with other providers: users connect them again"),
        ("top_ups", "orders of payments, whose amounts are in the balances"),
        ("user_subscriptions", "subscriptions: what is left of them is not in the balances"),
        ("midjourneys", "Midjourney tasks"),
        ("tasks", "tasks"),
    )
    for table, what in counted:
        number = database.count(table)
        if number:
            yield Remark(f"Not carried over are {number:,} {what}.", Level.LEFT_OUT)
    settings: Any = [
        name for name in ("SMTPServer", "StripeApiSecret", "EpayKey", "GitHubClientSecret") if options.text(name)
    ]
    if settings:
        text = f"Settings of mail, payment and sign-in ({', '.join(settings)} …) are not carried over: set them here."
        yield Remark(text, Level.LEFT_OUT)
    yield Remark("A number behind a token (sk-…-3) names a channel by the id that it has here.", Level.NOTE)
    yield Remark("Access tokens of the management API there do not work here.", Level.NOTE)
