"""Limits how often forms such as sign-in may be sent: by account over all workers, by address by each worker.

With Redis, addresses are counted over all workers as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from allauth.account.internal.stagekit import unstash_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django_ratelimit.core import get_usage, is_ratelimited

from accounts.models import AuditEvent, User
from accounts.sign_in import attempts

View = Callable[..., HttpResponseBase]
Accounts = Callable[[HttpRequest], list[str]]
PASSWORD: Final = "password"  # noqa: S105  # what is guessed
CODE: Final = "code"
LOGIN_CODE: Final = "login-code"


def too_many_attempts(request: HttpRequest) -> HttpResponse:
    """Return the page for a visitor who tried too often, with status 429."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "300"
    return response


def typed(field: str) -> Accounts:
    """The accounts that a field of the form stands for."""

    def accounts(request: HttpRequest) -> list[str]:
        text = request.POST.get(field, "")
        return attempts.accounts_of(text) if text.strip() else []

    return accounts


def half_signed_in(request: HttpRequest) -> list[str]:
    """The account whose password was right, and whose second factor or code is asked for now."""
    login = unstash_login(request, peek=True)
    return [attempts.account_of(login.user)] if login is not None and login.user is not None else []


def signed_in(request: HttpRequest) -> list[str]:
    return [attempts.account_of(request.user)] if request.user.is_authenticated else []


def throttled(view: View, group: str, ip: str, forgives: bool = False) -> View:
    """Wrap a view so that one address cannot send its form too often.

    `ip`: a limit of django-ratelimit such as "20/5m". `group` names the counter. `forgives`: who is signed in
    afterwards does not count.
    """

    def limited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "POST" and _address_limited(request, group, ip):
            return too_many_attempts(request)
        response = view(request, *args, **kwargs)
        if forgives and request.method == "POST" and request.user.is_authenticated:
            _forgive_address(request, group, ip)
        return response

    return limited_view


def guarded(view: View, group: str, ip: str, kind: str, accounts: Accounts, forgives: bool = True) -> View:
    """Wrap a view that takes guesses, so that neither an address nor an account can be tried too often.

    `kind`: what is tried, a key of `attempts.LIMITS`. `forgives`: a redirect means that a guess at an account was
    right, so that it does not count. A browser in which the account has signed in before is counted alone, whatever
    others do from its address.
    """

    def guarded_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        tried = accounts(request)
        known = attempts.known_browser(request)
        counted = not (tried and all(account in known for account in tried))
        if counted and _address_limited(request, group, ip):
            return too_many_attempts(request)
        guess = attempts.begin(kind, tried, request)
        if not guess.allowed:
            if guess.first_refusal:
                _audit(request, group, tried)
            return too_many_attempts(request)
        before = request.user.is_authenticated
        response = view(request, *args, **kwargs)
        right = bool(tried) and forgives and response.status_code in {302, 303}
        if right:
            guess.take_back()
        if counted and (right or (request.user.is_authenticated and not before)):
            _forgive_address(request, group, ip)
        if request.user.is_authenticated:
            attempts.remember_browser(request, response)
        return response

    return guarded_view


def _address_limited(request: HttpRequest, group: str, rate: str) -> bool:
    """Count an attempt of an address before it is looked at, so that those at the same time all count."""
    tried = get_usage(request, group=f"{group}:ip", key="ip", rate=rate, method="POST", increment=True)
    if tried is None:  # limits are off
        return False
    limited = bool(tried["should_limit"])
    if limited and tried["limit"]:
        # An office may have one address: what was right does not count. Both counters have the same windows.
        right = get_usage(request, group=f"{group}:right", key="ip", rate=rate, method="POST")
        limited = right is None or tried["count"] - right["count"] > tried["limit"]
    # One entry in a while: a stranger must not be able to fill the audit log.
    if limited and not is_ratelimited(request, group=f"{group}:told", key="ip", rate="1/5m", increment=True):
        _audit(request, group)
    return limited


def _forgive_address(request: HttpRequest, group: str, rate: str) -> None:
    get_usage(request, group=f"{group}:right", key="ip", rate=rate, method="POST", increment=True)


def _audit(request: HttpRequest, group: str, accounts: Collection[str] = ()) -> None:
    """Write that attempts are refused, under the account that they were about where that is one."""
    number = next(iter(accounts)).removeprefix("user:") if len(accounts) == 1 else ""
    user = User.objects.filter(pk=int(number)).first() if number.isdecimal() else None
    name = request.POST.get("login", "")[:150]
    AuditEvent.write(f"{group}.limited", None, user, request.META.get("REMOTE_ADDR"), name=name)
