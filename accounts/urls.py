from __future__ import annotations

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.webauthn import views as webauthn
from django.conf import settings
from django.urls import include, path
from django.views.generic import RedirectView

from accounts import view_as, views
from accounts.sign_in.throttle import throttled

# Views that take guesses are rate-limited. They come before allauth's own entries with the same paths and names.
urlpatterns = [
    path("", views.account, name="account"),
    path("password/", RedirectView.as_view(pattern_name="account_change_password")),
    path("view-as/<int:pk>/", view_as.start, name="view-as"),
    path("view-as/leave/", view_as.leave, name="view-as-leave"),
    path("login/", throttled(account.login, "sign-in", ip="20/5m", login="8/5m"), name="account_login"),
    path(
        "login/code/confirm/",
        throttled(account.confirm_login_code, "sign-in-code", ip="20/5m"),
        name="account_confirm_login_code",
    ),
    path("signup/", throttled(account.signup, "sign-up", ip="10/h"), name="account_signup"),
    path(
        "password/reset/",
        throttled(account.password_reset, "password-reset", ip="10/h", email="5/h")
        if settings.MAILS
        else views.no_mail,
        name="account_reset_password",
    ),
    path(
        "password/reset/confirm/",
        throttled(account.confirm_password_reset_code, "password-code", ip="20/5m"),
        name="account_confirm_password_reset_code",
    ),
    path(
        "reauthenticate/",
        throttled(account.reauthenticate, "reauthenticate", ip="20/5m"),
        name="account_reauthenticate",
    ),
    path("2fa/authenticate/", throttled(mfa.authenticate, "second-factor", ip="20/5m"), name="mfa_authenticate"),
    path("2fa/reauthenticate/", throttled(mfa.reauthenticate, "second-factor", ip="20/5m"), name="mfa_reauthenticate"),
    path("2fa/webauthn/login/", throttled(webauthn.login_webauthn, "passkey", ip="40/5m"), name="mfa_login_webauthn"),
    *(
        [
            path(
                "login/code/",
                throttled(account.request_login_code, "sign-in-code", ip="10/15m", email="5/15m"),
                name="account_request_login_code",
            )
        ]
        if settings.MAILS
        else ()
    ),
    path("", include("allauth.urls")),
]
