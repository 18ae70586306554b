"""Users, their groups, passwords and balances.

Somebody who has an account here already is never taken over by a name alone: who is the same person is said by an
option. Administrators there are users here, unless an option makes them staff.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.models import Role as StaffRole
from accounts.models import User
from accounts.passwords import litellm
from portal.lib import clock, money
from relay.billing.ledger import movements
from relay.importers.description import Level, Role, SourceUser
from relay.importers.mapping import ImportRefused, Known, NewRow, changed, digest
from relay.importers.run import Run, batched
from relay.importers.writing.balances import add, follow_balance
from relay.importers.writing.naming import Names, limits_of, numbered, rates
from relay.models import Budget, LedgerAccount

LONGEST: Final = 150
_LONGEST_EMAIL: Final = 254
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
_DEAREST: Final = 14  # the cost of a hash: one more takes twice as long, and a sign-in has to compute it
_PARTED: Final = (
    "It was the same person as somebody here until that was undone, who has spent some of its balance. If that was "
    "right, name them with --merge again."
)
_PREFIX: Final = "bcrypt$"  # of Django's, before such a hash


@dataclass(slots=True)
class _Memory:
    names: Names
    addresses: set[str]  # e-mail addresses that somebody here has, in lower case


def carry(run: Run) -> None:
    people = list(User.objects.values_list("username", "email"))
    addresses = {email.lower() for _name, email in people if email}
    addresses |= {email.lower() for email in EmailAddress.objects.values_list("email", flat=True)}
    names = Names([name for name, _email in people], LONGEST)
    memory = _Memory(names, addresses)
    unknown = run.options.merge - {name for name, _email in people}
    if unknown:
        raise ImportRefused(f"There is no user “{sorted(unknown)[0]}” here, who could be the same person.")
    for batch in batched(run.source.users()):
        new: list[SourceUser] = []
        for user in batch:
            run.report.remarks("user", user, user.remarks)
            why = user.left_out or _unusable(user.name)
            known = run.rows.find("user", user.id)
            if not why and known is not None and known.undone and not known.made:
                why = "" if user.name in run.options.merge else _PARTED
                if why:
                    run.rows.leave("user", user.id)
                    known = None
            if not why and not user.enabled and _is_merged(run, user, known):
                text = "It is disabled there, and the same person as somebody here: its tokens come disabled."
                run.report.tell("user", user, text)
                run.stopped.add(user.id)
            if why:
                run.report.leave_out("user", user, why)
                if known is not None and not known.undone:
                    text = "It was carried over before, and stays as it is here."
                    run.report.tell("user", user, text, Level.NOTE)
            elif known is None:
                new.append(user)
            else:
                _follow(run, user, known)
        _create(run, new, memory)


def _is_merged(run: Run, user: SourceUser, known: Known | None) -> bool:
    return user.name in run.options.merge if known is None else not known.made


def _unusable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        return "The name is empty, or has characters that cannot be typed."
    return "" if len(name) <= LONGEST else f"The name is longer than {LONGEST} characters."


def _create(run: Run, users: Sequence[SourceUser], memory: _Memory) -> None:
    made: list[tuple[SourceUser, User]] = []
    same: list[tuple[SourceUser, User]] = []
    people = {user.username: user for user in User.objects.filter(username__in=run.options.merge)}
    for user in users:
        run.report.counts["user"].new += 1
        _tell(run, user)
        if (person := people.get(user.name)) is not None:
            run.report.tell("user", user, "It becomes the user of the same name here, who keeps the password.")
            same.append((user, person))
        else:
            made.append((user, _row(run, user, memory)))
        run.report.balances += max(0, user.balance or 0)
    if not run.applies:
        for user in users:
            run.rows.plan("user", user.id)
        return
    if not users:
        return
    with run.batch():
        rows = [row for _user, row in made]
        User.objects.bulk_create(rows)
        numbered(rows, "username")
        _join(run, [*made, *same])
        EmailAddress.objects.bulk_create(
            [EmailAddress(user=row, email=row.email.lower(), verified=True, primary=True) for row in rows if _new(row)]
        )
        reason = f"Balance from {run.report.installation}"
        movements.open_wallets([(row.pk, _opening(user)) for user, row in made], reason)
        added = {user.id: add(run, user, person, amount, reason) for user, person in same if (amount := _opening(user))}
        for user, row in [*made, *same]:
            for budget in user.budgets:
                limit = money.in_usd(budget.limit)
                Budget.objects.get_or_create(user=row, period=budget.period, defaults={"limit": limit})
        run.rows.add("user", [_note(user, row, True, _opening(user) or 0) for user, row in made])
        run.rows.add("user", [_note(user, row, False, added.get(user.id, 0)) for user, row in same])
        run.audit("import.create", [(row, user.id) for user, row in made])
        run.audit("import.change", [(row, user.id) for user, row in same])


def _tell(run: Run, user: SourceUser) -> None:
    if user.role != Role.USER and not run.options.staff:
        text = f"It is {user.role} there and an ordinary user here. With --staff administrators become staff."
        run.report.tell("user", user, text)
    if user.balance is not None and user.balance < 0:
        text = f"It owes {money.exact(-user.balance)}: balances here are not negative, so that it begins with nothing."
        run.report.tell("user", user, text)
    if (user.balance or 0) > money.LARGEST:
        run.report.tell("user", user, "Its balance is more than a wallet can hold, and becomes unlimited.")
    if user.signs_in and not litellm.is_plain(user.password) and password_of(user) is None:
        run.report.tell("user", user, "It has no password that can be used here: give it one.")


def _row(run: Run, user: SourceUser, memory: _Memory) -> User:
    name = user.name
    if name in memory.names or name.lower() in memory.addresses:
        name = memory.names.take(f"{name}-{run.report.installation}"[:LONGEST], run.report.installation)
        text = (
            f"It signs in as “{name}”, since somebody here has the name already. If that is the same person, name them "
            f"with --merge."
        )
        run.report.tell("user", user, text)
    else:
        memory.names.take(name, run.report.installation)
    row = User(username=name, is_active=user.enabled, notes=user.notes, **rates(user.rates))
    row.date_joined = user.joined_at or clock.now()
    row.password = password_of(user) or make_password(None)
    row.first_name = user.display_name[:150] if user.display_name != user.name else ""
    row.email = _address(run, user)
    if run.options.staff and user.role != Role.USER:
        row.is_staff = True
        row.is_superuser = user.role == Role.OWNER
    if row.email and row.email.lower() not in memory.addresses:
        memory.addresses.add(row.email.lower())
        row._is_confirmed = True  # type: ignore[attr-defined]  # until the batch is written
    elif row.email:
        text = "Somebody else has its e-mail address, too: it is not confirmed, and cannot be used to sign in."
        run.report.tell("user", user, text)
    return row


def _new(row: User) -> bool:
    return bool(getattr(row, "_is_confirmed", False))


def _address(run: Run, user: SourceUser) -> str:
    if not user.email:
        return ""
    try:
        if len(user.email) > _LONGEST_EMAIL:
            raise ValidationError("too long")
        validate_email(user.email)
    except ValidationError:
        run.report.tell("user", user, "Its e-mail address is none, and is left out.")
        return ""
    return user.email


def password_of(user: SourceUser) -> str | None:
    """A hash as Django stores it. None: it cannot be checked here, or takes too long to be checked at each sign-in."""
    if litellm.is_plain(user.password):
        return litellm.wrapped(user.password)
    found = _BCRYPT.fullmatch(user.password)
    if found is not None:
        return f"{_PREFIX}{user.password}" if 4 <= int(found["cost"]) <= _DEAREST else None
    return user.password if litellm.is_encoded(user.password) else None


def _opening(user: SourceUser) -> int | None:
    """Nano-USD of the first balance; None: unlimited."""
    return None if user.balance is None or user.balance > money.LARGEST else max(0, user.balance)


def _join(run: Run, pairs: Iterable[tuple[SourceUser, User]]) -> None:
    through: Any = User.groups.through
    staff = StaffRole.objects.filter(key="operator").values_list("group_id", flat=True).first()
    members = []
    for user, row in pairs:
        groups = {here for group in user.groups if (here := run.rows.here("group", group))}
        if run.options.staff and user.role == Role.ADMIN and staff is not None and row.is_staff:
            groups.add(staff)
        members += [through(user_id=row.pk, group_id=group) for group in sorted(groups)]
    through.objects.bulk_create(members, ignore_conflicts=True)


def _note(user: SourceUser, row: User, made: bool, amount: int) -> NewRow:
    return NewRow(user.id, row.pk, made, _seen(user), amount)


def _seen(user: SourceUser) -> dict[str, Any]:
    return {
        "name": user.name,
        "display_name": user.display_name,
        "email": user.email,
        "enabled": user.enabled,
        "groups": sorted(user.groups),
        "password": digest(user.password),
        "role": user.role.value,
        "unlimited": _opening(user) is None,
        "limits": limits_of(user),
    }


def _follow(run: Run, user: SourceUser, known: Known) -> None:
    """Carry over what has changed there since, unless the same was changed here."""
    now = _seen(user)
    fields = changed(known, now)
    row = User.objects.filter(pk=known.object_id).first()
    if row is None:
        run.report.leave_out("user", user, "It was carried over before and was deleted here.")
        return
    apply = _changes(run, user, known, row) if known.made else set()
    if "role" in fields and "role" in known.seen:
        run.report.tell("user", user, f"It is {user.role} there now; its rights here stay as they are: check them.")
    if "limits" in fields and "limits" in known.seen:
        run.report.tell("user", user, "Its rate limits or budgets have changed there; here they stay: set them.")
    for name in sorted(fields.keys() - apply - {"role", "unlimited", "limits"}):
        if known.made and name != "name" and not known.undone:
            text = f"Its {name.replace('_', ' ')} was changed there and here: what it is here stays."
            run.report.tell("user", user, text)
    unlimited = _opening(user) is None
    if turned := known.made and unlimited != bool(known.seen.get("unlimited", unlimited)):
        turned = _turn(run, user, row, unlimited)
    # An unlimited balance is no amount: what was carried over before stays, and counts when it is limited again.
    moved = follow_balance(run, "user", user, known, known.amount if unlimited else _opening(user) or 0)
    if not apply and not moved and not turned and not known.undone:
        run.report.counts["user"].unchanged += 1
        if fields and run.applies:
            with run.batch():
                run.rows.update(known, now)
        return
    run.report.counts["user"].changed += 1
    if not run.applies:
        return
    with run.batch():
        if apply:
            row.save()
        if known.undone and not known.made:
            _join(run, [(user, row)])
        if "groups" in apply:
            before = [here for group in known.seen["groups"] if (here := run.rows.here("group", group))]
            row.groups.remove(*Group.objects.filter(pk__in=before))
            _join(run, [(user, row)])
        if turned:
            movements.set_unlimited(row, unlimited)
        amount = moved.post(row) if moved else known.amount
        run.rows.update(known, now, amount)
        run.audit("import.change", [(row, user.id)])


def _turn(run: Run, user: SourceUser, row: User, unlimited: bool) -> bool:
    """Whether a balance becomes unlimited as it did there, or limited, unless that was changed here. Told."""
    word = "unlimited" if unlimited else "limited"
    limited_here = LedgerAccount.objects.filter(user=row, kind="wallet").values_list("limited", flat=True).first()
    if limited_here is not unlimited:
        run.report.tell(
            "user", user, f"Its balance has become {word} there and was changed here: what it is here stays."
        )
        return False
    run.report.tell("user", user, f"Its balance has become {word} there since the last import.", Level.NOTE)
    return True


def _changes(run: Run, user: SourceUser, known: Known, row: User) -> set[str]:
    """Set the fields of a row that were changed there alone. Returns their names."""
    seen, found = known.seen, set()
    if known.undone:
        row.is_active, row.password = user.enabled, password_of(user) or make_password(None)
        return {"enabled", "password", "groups"}
    fields = changed(known, _seen(user))
    if "enabled" in fields and row.is_active == seen["enabled"]:
        row.is_active = user.enabled
        found.add("enabled")
    if "password" in fields and digest(row.password.removeprefix(_PREFIX)) == seen["password"]:
        row.password = password_of(user) or row.password
        found.add("password")
    if "groups" in fields:
        before = {here for group in seen["groups"] if (here := run.rows.here("group", group))}
        if before <= set(row.groups.values_list("pk", flat=True)):
            found.add("groups")
    if "display_name" in fields and row.first_name in {seen["display_name"], ""}:
        row.first_name = user.display_name[:150]
        found.add("display_name")
    if "email" in fields and row.email == seen["email"] and not _taken(user.email, row):
        row.email = _address(run, user)
        found.add("email")
    return found


def _taken(email: str, row: User) -> bool:
    mine = EmailAddress.objects.filter(email__iexact=email).exclude(user=row)
    return bool(email) and (mine.exists() or User.objects.filter(email__iexact=email).exclude(pk=row.pk).exists())
