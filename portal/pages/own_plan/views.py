"""The user's own ChatGPT plan: sign in, turn it on, allow its use under /v1, sign out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST
from django_ratelimit.core import is_ratelimited

from accounts.models import User
from portal.installation import command
from portal.lib.crypto import Undecryptable
from portal.pages.shared.scope import signed_in_user
from relay.channels.chatgpt_accounts import sign_in, store
from relay.channels.chatgpt_accounts.places import may_have, moved
from relay.channels.chatgpt_accounts.sign_in import Begun
from relay.models import ChatGPTAccount
from relay.models.fields import box
from relay.providers.plans.login import LoginFailed

CALLS: Final = "30/h"  # of the issuer, by one user
_KEPT: Final = "plan_sign_in"  # in the session
_PURPOSE: Final = "plan-sign-in"
LINKS: Final = {
    "terms": "https://openai.com/policies/sign-in-with-chatgpt-terms/",
    "help": "https://help.openai.com/en/articles/20001410",
    "usage": "https://chatgpt.com/settings/usage",
}


@login_required
@never_cache
def plan(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    account = store.account_of(user)
    if not may_have(user) and (account is None or account.state == "signed_out"):
        raise Http404
    return _page(request, user, account)


def _page(
    request: HttpRequest, user: User, account: ChatGPTAccount | None, wrong: str = "", status: int = 200
) -> HttpResponse:
    begun = _begun(request)
    shown = account if account is not None and account.state != "signed_out" else None
    context = {
        "account": shown,
        "waiting": shown is None and account is not None and account.is_on,
        "moved": shown is not None and moved(shown),
        "windows": _windows(shown),
        "address": begun.address if begun is not None else "",
        "allowed": may_have(user),
        "links": LINKS,
        "concurrency": settings.CONFIG.plan_concurrency,
        "command": command.anywhere("login", data_dir=settings.DATA_DIR),
        "wrong": wrong,
        "here": "my-plan",
    }
    return render(request, "portal/plan.html", context, status=status)


def _windows(account: ChatGPTAccount | None) -> list[dict[str, Any]]:
    found = account.windows if account is not None and isinstance(account.windows, dict) else {}
    return [
        {
            "label": window.get("label") or gettext("Usage window"),
            "used": window["used_percent"],
            "resets_at": datetime.fromtimestamp(window["resets_at"], UTC) if window.get("resets_at") else None,
        }
        for name in ("primary", "secondary")
        if isinstance(window := found.get(name), dict)
    ]


def _begun(request: HttpRequest) -> Begun | None:
    kept = request.session.get(_KEPT)
    try:
        return Begun.of(json.loads(box(_PURPOSE).open(kept))) if kept else None
    except (Undecryptable, ValueError):
        return None


def _limited(request: HttpRequest) -> bool:
    return bool(is_ratelimited(request, group="plan", key="user", rate=CALLS, increment=True))


def _too_many(request: HttpRequest) -> HttpResponse:
    messages.error(request, _("Too many attempts. Wait a few minutes."))
    return redirect("my-plan")


@login_required
@require_POST
@never_cache
def plan_sign_in(request: HttpRequest) -> HttpResponse:
    """Begin a sign-in, which the page goes on with."""
    user = signed_in_user(request)
    if _limited(request):
        return _too_many(request)
    try:
        begun = sign_in.begin(user)
    except LoginFailed as failed:
        messages.error(request, failed.translated(gettext))
        return redirect("my-plan")
    request.session[_KEPT] = box(_PURPOSE).seal(json.dumps(begun.as_dict()))
    return redirect("my-plan")


@login_required
@require_POST
@never_cache
@sensitive_post_parameters("address")
def plan_finish(request: HttpRequest) -> HttpResponse:
    """End a sign-in with the address that the browser ended at."""
    user, begun = signed_in_user(request), _begun(request)
    if request.POST.get("cancel"):
        request.session.pop(_KEPT, None)
        return redirect("my-plan")
    if _limited(request):
        return _too_many(request)
    if begun is None:
        messages.error(request, _("This sign-in has taken too long. Begin again."))
        return redirect("my-plan")
    try:
        account = sign_in.finish(user, begun, request.POST.get("address", ""), user, request.META.get("REMOTE_ADDR"))
    except LoginFailed as failed:
        return _page(request, user, store.account_of(user), failed.translated(gettext), 422)
    request.session.pop(_KEPT, None)
    messages.success(request, _("You are signed in as %(email)s.") % {"email": account.email or account.subject})
    return redirect("my-plan")


def _account(request: HttpRequest) -> ChatGPTAccount:
    account = store.account_of(signed_in_user(request))
    if account is None:
        raise Http404
    return account


@login_required
@require_POST
@never_cache
def plan_switch(request: HttpRequest) -> HttpResponse:
    """Turn the plan, or its use under /v1, on or off. Each needs a tick beside its notice to be turned on."""
    user, account = signed_in_user(request), _account(request)
    what, on, ip = request.POST.get("what"), request.POST.get("on") == "1", request.META.get("REMOTE_ADDR")
    if what not in {"plan", "api"}:
        raise Http404
    if on and account.state == "signed_out":
        raise Http404
    if on and (request.POST.get("read") != "1" or not may_have(user)):
        return _page(request, user, account, _("Tick that you have read the notice."), 422)
    if what == "plan":
        store.set_on(account, on, user, ip)
    else:
        store.set_api(account, on, user, ip)
    if on and what == "api" and not account.api_enabled:
        messages.error(request, _("Your plan is off as a whole. Turn it on first."))
    else:
        messages.success(request, _now(account, what))
    if on and (account.state != "signed_in" or moved(account)):
        messages.warning(request, _("It answers nothing yet: sign in again first."))
    return redirect("my-plan")


def _now(account: ChatGPTAccount, what: str) -> str:
    """What a switch has changed, and what to do next."""
    if what == "plan" and not account.is_on:
        return _("Your plan is off: nothing is sent to it. Models of this portal with the same names answer you again.")
    if what == "plan":
        return _(
            "Your plan is on: its models answer you in the playground. Your own apps reach them once you allow that "
            "below."
        )
    if not account.api_enabled:
        return _("Your apps do not reach your plan any more. In the playground it still answers you.")
    named = next((str(model["name"]) for model in account.listed), "")
    if not named:
        return _("Your apps reach your plan with your tokens. Its models are not known yet: fetch them above.")
    return _("Your apps reach your plan with your tokens: name one of its models there, such as %(model)s.") % {
        "model": named
    }


@login_required
@require_POST
@never_cache
def plan_models(request: HttpRequest) -> HttpResponse:
    """Fetch the models of the plan again."""
    account = _account(request)
    if _limited(request):
        return _too_many(request)
    if sign_in.refresh_models(account):
        messages.success(request, _("The models of your plan were fetched."))
    else:
        messages.error(request, _("The models of your plan could not be fetched. Try again later, or sign in again."))
    return redirect("my-plan")


@login_required
@require_POST
@never_cache
def plan_sign_out(request: HttpRequest) -> HttpResponse:
    user, account = signed_in_user(request), _account(request)
    told = sign_in.sign_out(account, user, request.META.get("REMOTE_ADDR"))
    if told:
        messages.success(request, _("You are signed out, and the issuer has ended the sign-in."))
    else:
        messages.warning(
            request,
            _("You are signed out here. The issuer could not be told: end the sign-in in ChatGPT's settings as well."),
        )
    return redirect("my-plan")
