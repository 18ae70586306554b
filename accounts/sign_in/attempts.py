"""Counts attempts to guess a password or a code, under the account that is attacked, over all workers.

Whatever its spelling, a name or an address counts as the account that it stands for. From anywhere, an account takes a
few wrong attempts per window, then one from each address that has not tried yet, up to a number per hour. So nobody can
lock another out: a browser in which the account has signed in before has a count of its own, and a stranger uses up
only the share of strangers.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from allauth.account.internal.userkit import filter_users_by_email, get_user_by_username
from django.conf import settings
from django.core import signing
from django.db import IntegrityError, transaction
from django.db.models import F
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.models import Attempt
from portal.lib import clock, net

_HOUR: Final = 3600
_COOKIE: Final = "airelays_browser"
_COOKIE_SECONDS: Final = 180 * 86_400
_COOKIE_ACCOUNTS: Final = 5  # that one browser is remembered for
_SALT: Final = "accounts.sign_in.attempts"
_BROWSER: Final = "browser:"  # beginning of the origin of attempts in a browser that the account is known in


@dataclass(frozen=True, slots=True)
class Limit:
    """How often an account may be tried from browsers that it is not known to use."""

    tries: int  # per window, from anywhere
    seconds: int  # of a window
    most: int  # per hour, from anywhere; those beyond `tries` come from an address each


PASSWORDS: Final = Limit(8, 300, 100)
CODES: Final = Limit(5, 300, 20)
MAILS: Final = Limit(5, 900, 20)
# By what is tried.
LIMITS: Final = {"password": PASSWORDS, "code": CODES, "login-code": CODES, "reset": MAILS, "code-mail": MAILS}


def window_end(seconds: int) -> int:
    """When the current window of this length ends, in seconds since 1970."""
    now = int(clock.now().timestamp())
    return now - now % seconds + seconds


def accounts_of(login: str) -> list[str]:
    """The accounts that a typed name or address stands for, as allauth finds them. Unknown names count as well."""
    typed = login.strip()[:254]
    found = {user.pk for user in filter_users_by_email(typed)} if typed else set()
    user = get_user_by_username(typed) if typed else None
    if user is not None:
        found.add(user.pk)
    return [f"user:{pk}" for pk in sorted(found)] or [f"name:{typed.casefold()}"]


def account_of(user: Any) -> str:
    return f"user:{user.pk}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _of_browser(name: str) -> str:
    return _BROWSER + _digest(name)[: 64 - len(_BROWSER)]


def _add(subject: str, origin: str, seconds: int, step: int = 1) -> int:
    """Change a count, and return it. Adding is one statement, so that attempts at the same time all count."""
    ends_at = window_end(seconds)
    rows = Attempt.objects.filter(subject=subject, origin=origin, ends_at=ends_at)
    with transaction.atomic():
        if not rows.update(count=F("count") + step) and step > 0:
            try:
                with transaction.atomic():
                    Attempt.objects.create(subject=subject, origin=origin, ends_at=ends_at, count=step)
            except IntegrityError:  # another worker was faster
                rows.update(count=F("count") + step)
        return rows.values_list("count", flat=True).first() or 0


@dataclass(slots=True)
class Guess:
    """One counted attempt."""

    allowed: bool
    first_refusal: bool = False  # the first of its window, which is worth an entry in the audit log
    _counted: list[tuple[str, str, int]] = field(default_factory=list)

    def count(self, subject: str, origin: str, seconds: int) -> int:
        self._counted.append((subject, origin, seconds))
        return _add(subject, origin, seconds)

    def take_back(self) -> None:
        """Do not count it after all: it was right, or was not looked at."""
        for subject, origin, seconds in self._counted:
            _add(subject, origin, seconds, -1)
        self._counted.clear()


def begin(kind: str, accounts: Iterable[str], request: HttpRequest) -> Guess:
    """Count an attempt at accounts before it is looked at. `kind`: what is guessed, a key of `LIMITS`."""
    guess, limit = Guess(True), LIMITS[kind]
    known = known_browser(request)
    here = f"from {net.block_key(request.META.get('REMOTE_ADDR', ''))}"
    for account in accounts:
        subject = _digest(kind, account)
        if account in known:
            guess.allowed &= guess.count(subject, _of_browser(known[account]), limit.seconds) <= limit.tries
            continue
        mine = _add(subject, _digest(here), limit.seconds)  # also counts what is refused, which touches nobody else
        anywhere = guess.count(subject, "", limit.seconds)
        hour = guess.count(subject, "hour", _HOUR)
        guess.allowed &= hour <= limit.most and (anywhere <= limit.tries or mine == 1)
    if not guess.allowed:
        guess.take_back()
        refusals = [_add(_digest("refused", kind, account), "", limit.seconds) for account in accounts]
        guess.first_refusal = min(refusals, default=1) == 1
    return guess


def forget(user: Any, kind: str) -> None:
    """Drop the counts of an account: its owner has just proved to have its mailbox, or staff lifts the limit."""
    account = account_of(user)
    Attempt.objects.filter(subject__in=[_digest(kind, account), _digest("refused", kind, account)]).delete()


def limited_until(user: Any, kind: str) -> datetime | None:
    """Return until when attempts at an account are refused, from everywhere or from one of its browsers; None: not."""
    limit, now = LIMITS[kind], clock.now()
    rows = Attempt.objects.filter(subject=_digest(kind, account_of(user)), ends_at__gt=int(now.timestamp()))
    ends = [
        ends_at
        for origin, count, ends_at in rows.values_list("origin", "count", "ends_at")
        if (origin == "hour" and count >= limit.most)
        or ((origin == "" or origin.startswith(_BROWSER)) and count >= limit.tries)
    ]
    return datetime.fromtimestamp(max(ends), now.tzinfo) if ends else None


def failed(user: Any, kind: str) -> int:
    """Return how many wrong attempts at an account are counted now: those of this hour, and of its own browsers."""
    now = int(clock.now().timestamp())
    rows = Attempt.objects.filter(subject=_digest(kind, account_of(user)), ends_at__gt=now)
    counts = rows.values_list("origin", "count")
    return sum(count for origin, count in counts if origin == "hour" or origin.startswith(_BROWSER))


def delete_expired() -> None:
    """Delete the counts of windows that have ended. Called now and then."""
    Attempt.objects.filter(ends_at__lt=int(clock.now().timestamp())).delete()


# -- known browsers --------------------------------------------------------------------------------------------------


def known_browser(request: HttpRequest) -> dict[str, str]:
    """The accounts that have signed in in this browser before, each with a random id of the browser."""
    try:
        found = signing.loads(request.COOKIES.get(_COOKIE, ""), salt=_SALT, max_age=_COOKIE_SECONDS)
    except signing.BadSignature:
        return {}
    return found if isinstance(found, dict) else {}


def remember_browser(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set a cookie by which the account that has just signed in is known in this browser. It opens nothing."""
    account, known = account_of(request.user), known_browser(request)
    if account in known:
        return
    known = dict([*known.items()][1 - _COOKIE_ACCOUNTS :]) | {account: secrets.token_urlsafe(12)}
    response.set_cookie(
        _COOKIE,
        signing.dumps(known, salt=_SALT),
        max_age=_COOKIE_SECONDS,
        path="/accounts/",
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
