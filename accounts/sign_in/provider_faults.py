"""What is shown when a sign-in provider cannot be reached or answers nonsense: a page that says what, and whom to ask.

Their answers are foreign data, which allauth's views read as if it were well formed.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

import requests
from allauth.socialaccount import providers
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.base import AuthError, ProviderException
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_ratelimit.core import is_ratelimited

from accounts.models import AuditEvent
from portal import limits

logger: Final = logging.getLogger(__name__)
# What reading foreign data in a wrong form raises, or storing it.
_MISREAD: Final = (
    ValueError, LookupError, TypeError, AttributeError, AssertionError, ImproperlyConfigured, DataError,
)  # fmt: skip


# Errors of OAuth 2.0 (RFC 6749, 5.2) and GitHub's, which allauth quotes, and what they mean here.
_REFUSALS: Final = (
    (
        ("invalid_client", "unauthorized_client", "incorrect_client_credentials"),
        gettext_lazy(
            "It does not accept the portal's client ID or secret. The administrator has to paste them anew in the form "
            "of the sign-in provider."
        ),
    ),
    (
        ("redirect_uri",),
        gettext_lazy(
            "It does not know the portal's redirect URL. The administrator has to register the one that the form of "
            "the sign-in provider shows."
        ),
    ),
    (
        ("invalid_grant", "bad_verification_code"),
        gettext_lazy("It says that the sign-in was begun too long ago, or was finished already. Begin again."),
    ),
)


class ProviderFault(ProviderException):  # type: ignore[misc]  # allauth has no types
    """A sign-in provider answered what cannot be trusted or read. The message goes on with “it” or “its”."""


def fault_page(
    request: HttpRequest, name: str, error: Any, exception: BaseException | None, app: SocialApp | None = None
) -> HttpResponse:
    """Return the page of a failed sign-in: 401 when it was begun elsewhere or refused there, otherwise 502.

    What a provider does wrong is in the audit log, for who has set it up: once in five minutes.
    """
    if exception is None:
        why = (
            _("It refused the sign-in.")
            if request.GET.get("error")
            else _("The sign-in was begun in another window or too long ago. Begin again.")
        )
        logger.info("sign-in at the provider %s was refused: %s", name, str(request.GET.get("error", "state"))[:100])
        status = 401
    else:
        why = _said(exception)
        logger.warning("sign-in at the provider %s failed: %s", name, _in_a_line(exception))
        status = 502
        if app is not None and not is_ratelimited(
            request, group="provider-fault", key=lambda *_: str(app.pk), rate="1/5m", increment=True
        ):
            AuditEvent.write("sign-in-provider.fail", None, app, request.META.get("REMOTE_ADDR"), reason=why)
    context = {"provider": name, "why": why, "ours": status == 502, "error": error}
    return render(request, "socialaccount/provider_fault.html", context, status=status)


def _said(exception: BaseException) -> str:
    if isinstance(exception, ProviderFault):
        text = str(exception)
        return _("%(why)s.") % {"why": text[0].upper() + text[1:]} if text else _("It cannot be used.")
    refused = next((text for codes, text in _REFUSALS if any(code in str(exception) for code in codes)), None)
    if isinstance(exception, OAuth2Error) and refused is not None:
        return str(refused)
    if isinstance(exception, requests.Timeout):
        text = _("it did not answer within %(n)d seconds") % {"n": limits.PROVIDER_SECONDS}
        return _("%(why)s.") % {"why": text[0].upper() + text[1:]}
    if isinstance(exception, requests.RequestException) and not isinstance(exception, ValueError):
        return _("It cannot be reached.")
    return _("Its answer cannot be read.")


def _in_a_line(exception: BaseException) -> str:
    frames = traceback.extract_tb(exception.__traceback__)
    place = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(exception).__name__}: {' '.join(str(exception).split())[:300]}{place}"


class ProviderFaultMiddleware(MiddlewareMixin):
    """Answers with a page, not with 500, when reading what a sign-in provider said fails."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        match = request.resolver_match
        name = match.url_name if match is not None else None
        known = [one.id for one in providers.registry.get_class_list()]
        provider = next((one for one in known if (name or "").startswith(f"{one}_")), None)
        if provider is None:
            return None
        if isinstance(exception, SocialApp.DoesNotExist):
            raise Http404 from None
        if not isinstance(exception, (*_MISREAD, requests.RequestException, ProviderException)):
            return None
        title = match.kwargs.get("provider_id", provider) if match is not None else provider
        app = SocialApp.objects.filter(provider=provider, provider_id=match.kwargs.get("provider_id", "")).first()  # type: ignore[union-attr]
        return fault_page(request, app.name if app is not None else str(title), AuthError.UNKNOWN, exception, app)
