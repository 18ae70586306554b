"""Tokens: their keys keep working, with their quotas, limits and expiry. Stored as digests, like all others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from portal.lib import money, net
from relay.billing.ledger import movements
from relay.importers.description import Item, Level, SourceToken
from relay.importers.mapping import Known, NewRow, changed, digest
from relay.importers.run import Run, batched
from relay.importers.writing.balances import follow_balance
from relay.importers.writing.naming import limits_of, numbered, rates
from relay.models import Budget, LedgerAccount, Token
from relay.models.token import digest_of, digest_of_sha256

_LONGEST: Final = 60  # characters of a name
_SHORTEST_KEY: Final = 16  # characters: shorter ones can be guessed
_LONGEST_KEY: Final = 512  # as requests may have them
_NOTES: Final = 200
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def carry(run: Run) -> None:
    models = {known.seen["name"]: known.object_id for known in run.rows.of("model").values() if "name" in known.seen}
    planned = {model.name for model in run.source.models() if run.rows.here("model", model.id) is not None}
    met: set[str] = set()
    for batch in batched(run.source.tokens()):
        new: list[SourceToken] = []
        taken = set(
            Token.objects.filter(digest__in=[_digest(token) for token in batch]).values_list("digest", flat=True)
        )
        for one in batch:
            token = replace(one, enabled=one.enabled and one.user not in run.stopped)
            run.report.remarks("token", token, token.remarks)
            known = run.rows.find("token", token.id)
            why = token.left_out or _refused(run, token) or ("" if known else _clash(token, taken))
            met.add(token.id)
            if why:
                run.report.leave_out("token", token, why)
                if known is not None:
                    _works_on(run, token, known)
                continue
            _tell(run, token, planned)
            if known is None:
                taken.add(_digest(token))
                new.append(token)
            else:
                _follow(run, token, known, models)
        _create(run, new, models)
    if met:  # otherwise the source has no tokens at all, such as a file of models
        for source_id, known in run.rows.of("token").items():
            if source_id not in met:
                _works_on(run, Item(id=source_id, name=""), known)


def _works_on(run: Run, token: Item, known: Known) -> None:
    """Tell of a token that is gone there. It may be deleted there because its client has moved here."""
    row = Token.objects.filter(pk=known.object_id, enabled=True, revoked_at__isnull=True).first()
    if row is not None:
        text = "It is no longer there, and works on here: revoke it if nobody should use it."
        run.report.tell("token", token if token.name else Item(id=token.id, name=row.name), text)


def _digest(token: SourceToken) -> str:
    if token.secret or _SHA256.fullmatch(token.sha256) is None:  # one without a key is refused
        return digest_of(token.secret)
    return digest_of_sha256(bytes.fromhex(token.sha256))


def _set_key(token: SourceToken, row: Token) -> None:
    if token.secret:
        row.set_secret(token.secret)
    else:
        row.set_sha256(bytes.fromhex(token.sha256), token.hint or "…")


def _refused(run: Run, token: SourceToken) -> str:
    if run.rows.here("user", token.user) is None:
        return "Its owner is not carried over."
    if not token.secret:
        return "" if _SHA256.fullmatch(token.sha256) else "Its key is missing."
    if not token.secret.isascii() or not token.secret.isprintable() or " " in token.secret:
        return "Its key has characters that no client can send."
    if not _SHORTEST_KEY <= len(token.secret) <= _LONGEST_KEY:
        return (
            f"Its key is shorter than {_SHORTEST_KEY} characters, which can be guessed, or longer than requests take."
        )
    return ""


def _clash(token: SourceToken, taken: set[str]) -> str:
    return "A token with the same key is here already, or came before it." if _digest(token) in taken else ""


def _tell(run: Run, token: SourceToken, planned: set[str]) -> None:
    lacking = [name for name in token.models or () if name not in planned]
    if lacking:
        shown = ", ".join(lacking[:5]) + (" …" if len(lacking) > 5 else "")
        run.report.tell("token", token, f"It may use models that no channel here serves: {shown}.", Level.NOTE)


def _networks(run: Run, token: SourceToken) -> tuple[list[str], bool]:
    """Its networks as they are stored, and whether it may come from somewhere. Those that are none are left out."""
    found = []
    for line in token.networks or ():
        try:
            found += [str(network) for network in net.parse_networks([line])]
        except net.BadAddress:
            run.report.tell("token", token, f"“{line[:60]}” is no address or network, and lets nobody in.")
    return found, token.networks is None or bool(found)


def _create(run: Run, tokens: Sequence[SourceToken], models: dict[str, int]) -> None:
    made: list[tuple[SourceToken, Token]] = []
    for token in tokens:
        run.report.counts["token"].new += 1
        run.report.quotas += max(0, token.quota or 0)
        row = Token(user_id=run.rows.here("user", token.user) or 0, **rates(token.rates))
        _set_key(token, row)
        _fill(run, token, row)
        made.append((token, row))
    if not run.applies:
        for token in tokens:
            run.rows.plan("token", token.id)
        return
    if not made:
        return
    with run.batch():
        rows = [row for _token, row in made]
        Token.objects.bulk_create(rows)
        numbered(rows, "digest")
        _limit([(row, token) for token, row in made], models)
        movements.open_quotas([(row.pk, row.user_id, _quota(token)) for token, row in made])
        for token, row in made:
            for budget in token.budgets:
                Budget.objects.create(token=row, period=budget.period, limit=money.in_usd(budget.limit))
        run.rows.add("token", [NewRow(one.id, row.pk, seen=_seen(one), amount=_quota(one) or 0) for one, row in made])
        run.audit("import.create", [(row, token.id) for token, row in made])


def _fill(run: Run, token: SourceToken, row: Token) -> None:
    networks, comes_from_somewhere = _networks(run, token)
    row.name = (" ".join(token.name.split()) or "Imported")[:_LONGEST]
    row.enabled = token.enabled and comes_from_somewhere
    if not comes_from_somewhere:
        run.report.tell("token", token, "None of its networks can be used: it is disabled until you set them.")
    row.expires_at = token.expires_at
    row.models_limited = token.models is not None
    row.allowed_ips = networks
    row.notes = token.notes[:_NOTES]


def _limit(pairs: Sequence[tuple[Token, SourceToken]], models: dict[str, int]) -> None:
    through: Any = Token.models_allowed.through
    through.objects.bulk_create(
        [
            through(token_id=row.pk, model_id=models[name])
            for row, token in pairs
            for name in dict.fromkeys(token.models or ())
            if name in models
        ],
        batch_size=1000,
    )


def _quota(token: SourceToken) -> int | None:
    return None if token.quota is None else min(max(0, token.quota), money.LARGEST)


def _seen(token: SourceToken) -> dict[str, Any]:
    return {
        "key": digest(token.secret or token.sha256),
        "enabled": token.enabled,
        "expires_at": _moment(token.expires_at),
        "models": None if token.models is None else sorted(token.models),
        "networks": None if token.networks is None else sorted(token.networks),
        "limited": token.quota is not None,
        "limits": limits_of(token),
    }


def _moment(found: datetime | None) -> str | None:
    return found.isoformat() if found is not None else None


def _follow(run: Run, token: SourceToken, known: Known, models: dict[str, int]) -> None:
    now = _seen(token)
    row = Token.objects.filter(pk=known.object_id).first()
    if row is None:
        run.report.leave_out("token", token, "It was carried over before and was deleted here.")
        return
    fields = changed(known, now)
    if row.revoked_at is not None and not known.undone:
        run.report.counts["token"].unchanged += 1
        if fields:
            run.report.tell("token", token, "It was changed there; here it was revoked, and stays so.")
        return
    apply = set(now) if known.undone else _changes(token, known, row, fields)
    if "limits" in fields and "limits" in known.seen:
        run.report.tell("token", token, "Its rate limits or budgets have changed there; here they stay: set them.")
    for name in sorted(fields.keys() - apply - {"limits"}):
        words = {"key": "key", "limited": "quota"}.get(name, name.replace("_", " "))
        run.report.tell("token", token, f"Its {words} was changed there and here: what it is here stays.")
    moved = follow_balance(run, "token", token, known, _quota(token) or 0)
    if not apply and not moved:
        run.report.counts["token"].unchanged += 1
        if fields and run.applies:
            with run.batch():
                run.rows.update(known, now)
        return
    run.report.counts["token"].changed += 1
    if not run.applies:
        return
    with run.batch():
        _write(run, token, row, apply, models)
        amount = known.amount
        if "limited" in apply:
            movements.set_quota(row, _with_used(row, _quota(token)))
            amount = _quota(token) or 0
        elif moved:
            amount = moved.post_quota(row)
        run.rows.update(known, now, amount)
        run.audit("import.change", [(row, token.id)])


def _with_used(row: Token, quota: int | None) -> int | None:
    """What a token may spend in all, so that so much is left of it."""
    used = LedgerAccount.objects.filter(token=row, kind="quota").values_list("used", flat=True).first() or 0
    return None if quota is None else min(quota + used, money.LARGEST)


def _changes(token: SourceToken, known: Known, row: Token, fields: dict[str, Any]) -> set[str]:
    """The fields that were changed there alone."""
    seen, found = known.seen, set()
    if "key" in fields and row.rotated_at is None and not Token.objects.filter(digest=_digest(token)).exists():
        found.add("key")
    if "enabled" in fields and row.enabled == seen.get("enabled"):
        found.add("enabled")
    if "expires_at" in fields and _moment(row.expires_at) in (seen.get("expires_at"), _moment_of(seen)):
        found.add("expires_at")
    if "models" in fields and row.models_limited == (seen.get("models") is not None):
        names = set(row.models_allowed.values_list("name", flat=True))
        if names <= set(seen.get("models") or ()):
            found.add("models")
    if "networks" in fields and len(row.allowed_ips) == len(seen.get("networks") or ()):
        found.add("networks")
    if "limited" in fields:
        account = LedgerAccount.objects.filter(token=row, kind="quota").first()
        if account is not None and account.limited == seen.get("limited"):
            found.add("limited")
    return found


def _moment_of(seen: dict[str, Any]) -> str | None:
    """The same moment as the databases give it back."""
    text = seen.get("expires_at")
    return datetime.fromisoformat(text).isoformat() if text else None


def _write(run: Run, token: SourceToken, row: Token, apply: set[str], models: dict[str, int]) -> None:
    wanted = Token(user_id=row.user_id)
    _fill(run, token, wanted)
    if "key" in apply:
        _set_key(token, row)
        row.revoked_at = None
    for name, columns in {
        "enabled": ("enabled",),
        "expires_at": ("expires_at",),
        "networks": ("allowed_ips",),
        "models": ("models_limited",),
    }.items():
        if name in apply:
            for column in columns:
                setattr(row, column, getattr(wanted, column))
    row.save()
    if "models" in apply:
        row.models_allowed.clear()
        _limit([(row, token)], models)
