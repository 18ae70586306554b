from __future__ import annotations

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.webauthn import views as webauthn
from django.urls import include, path
from django.views.generic import RedirectView

from accounts import view_as, views
from accounts.sign_in import oidc, recovery
from accounts.sign_in.throttle import CODE, LOGIN_CODE, PASSWORD, guarded, half_signed_in, signed_in, throttled, typed

# Views that take guesses are rate-limited. They come before allauth's own entries with the same paths and names.
urlpatterns = [
    path("", views.account, name="account"),
    path("password/", RedirectView.as_view(pattern_name="account_change_password")),
    path("view-as/<int:pk>/", view_as.start, name="view-as"),
    path("view-as/leave/", view_as.leave, name="view-as-leave"),
    path(
        "login/",
        guarded(account.login, "sign-in", "20/5m", PASSWORD, typed("login")),
        name="account_login",
    ),
    path(
        "login/code/confirm/",
        guarded(account.confirm_login_code, "sign-in-code", "20/5m", LOGIN_CODE, half_signed_in, False),
        name="account_confirm_login_code",
    ),
    path("confirm-email/", views.confirm_email, name="account_email_verification_sent"),
    path("signup/", throttled(account.signup, "sign-up", ip="10/h"), name="account_signup"),
    path(
        "password/reset/",
        views.mailing(guarded(account.password_reset, "password-reset", "10/h", "reset", typed("email"), False)),
        name="account_reset_password",
    ),
    path(
        "password/reset/confirm/",
        throttled(account.confirm_password_reset_code, "password-code", ip="20/5m"),
        name="account_confirm_password_reset_code",
    ),
    path("password/reset/link/<str:key>/", recovery.open_reset_link, name="password-reset-link"),
    path(
        "reauthenticate/",
        guarded(account.reauthenticate, "reauthenticate", "20/5m", PASSWORD, signed_in),
        name="account_reauthenticate",
    ),
    path(
        "2fa/authenticate/",
        guarded(views.second_factor, "second-factor", "20/5m", CODE, half_signed_in),
        name="mfa_authenticate",
    ),
    path(
        "2fa/reauthenticate/",
        guarded(mfa.reauthenticate, "second-factor", "20/5m", CODE, signed_in),
        name="mfa_reauthenticate",
    ),
    path(
        "2fa/webauthn/login/",
        throttled(webauthn.login_webauthn, "passkey", ip="40/5m", forgives=True),
        name="mfa_login_webauthn",
    ),
    path(
        "login/code/",
        views.mailing(
            guarded(account.request_login_code, "sign-in-code", "10/15m", "code-mail", typed("email"), False)
        ),
        name="account_request_login_code",
    ),
    path("oidc/<slug:provider_id>/login/", oidc.login, name="openid_connect_login"),
    path("oidc/<slug:provider_id>/login/callback/", oidc.callback, name="openid_connect_callback"),
    path("3rdparty/pending/", views.connect_pending, name="connect_pending"),
    path("", include("allauth.urls")),
]
