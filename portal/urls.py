"""URLs of the pages. Those of /v1 are in relay.api.urls."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from portal.admin import doctor, installation, now
from portal.pages import (
    balance,
    connect,
    docs,
    errors,
    files,
    home,
    models,
    playground,
    sessions,
    status,
    tokens,
    usage,
)
from portal.pages.own_plan import views as own_plan
from portal.serving.probes import health
from relay.admin.channels.explain import explain_view
from relay.admin.channels.guide.views import setup_view
from relay.admin.records.caches import caches_view
from relay.admin.records.refused import refused_view
from relay.admin.records.running import end_view, running_view
from relay.admin.records.sessions import session_view, sessions_view

handler400, handler403, handler404, handler500 = errors.unreadable, errors.refused, errors.not_found, errors.broken
urlpatterns = [
    path("admin/login/", home.admin_login),  # replaces the admin's own, which has no throttling
    # Replaces the admin's own, which counts no guesses and tells nobody.
    path("admin/password_change/", RedirectView.as_view(pattern_name="account_change_password")),
    path("admin/explain/", admin.site.admin_view(explain_view), name="admin-explain"),
    path("admin/running/", admin.site.admin_view(running_view), name="admin-running"),
    path("admin/caches/", admin.site.admin_view(caches_view), name="admin-caches"),
    path("admin/refused/<slug:request_id>/", admin.site.admin_view(refused_view), name="admin-refused"),
    path("admin/sessions/", admin.site.admin_view(sessions_view), name="admin-sessions"),
    path("admin/sessions/<int:user_id>/<slug:code>/", admin.site.admin_view(session_view), name="admin-session"),
    path("admin/setup/", admin.site.admin_view(setup_view), name="admin-setup"),
    path("admin/setup/<slug:step>/", admin.site.admin_view(setup_view), name="admin-setup-step"),
    path("admin/installation/", admin.site.admin_view(installation.installation), name="admin-installation"),
    path("admin/doctor/", admin.site.admin_view(doctor.doctor), name="admin-doctor"),
    path("admin/now/channels/", admin.site.admin_view(now.channels), name="admin-channels-now"),
    path("admin/now/running/", admin.site.admin_view(now.running), name="admin-running-now"),
    path("admin/running/<slug:request_id>/end/", admin.site.admin_view(end_view), name="admin-end-request"),
    path("admin/", admin.site.urls),
    path("accounts/", include("accounts.urls")),
    path("", home.home, name="home"),
    path("tokens/", tokens.token_list, name="tokens"),
    path("tokens/new/", tokens.token_new, name="token-new"),
    path("tokens/<int:pk>/", tokens.token_detail, name="token"),
    path("tokens/<int:pk>/reveal/", tokens.token_reveal, name="token-reveal"),
    path("tokens/<int:pk>/rotate/", tokens.token_rotate, name="token-rotate"),
    path("tokens/<int:pk>/revoke/", tokens.token_revoke, name="token-revoke"),
    path("tokens/<int:pk>/enabled/", tokens.token_enabled, name="token-enabled"),
    path("tokens/<int:pk>/limits/", tokens.token_limits, name="token-limits"),
    path("usage/", usage.usage, name="usage"),
    path("usage/export.csv", usage.export, name="usage-export"),
    path("usage/newest/", usage.newest, name="usage-newest"),
    path("usage/sessions/", sessions.session_list, name="sessions"),
    path("usage/sessions/<slug:code>/", sessions.session_detail, name="session"),
    path("usage/<slug:request_id>/", usage.usage_receipt, name="receipt"),
    path("storage/", files.file_list, name="my-files"),
    path("storage/kept/delete/", files.stored_delete, name="kept-delete"),
    path("storage/<slug:file_id>/content/", files.file_download, name="my-file-download"),
    path("storage/<slug:file_id>/delete/", files.file_delete, name="my-file-delete"),
    path("docs/", docs.docs, name="docs"),
    path("balance/", balance.balance, name="balance"),
    path("balance/notices/", balance.notice_settings, name="notices"),
    path("connect/", connect.connect, name="connect"),
    path("catalog/", models.model_list, name="models"),
    path("playground/", playground.playground, name="playground"),
    path("playground/key/", playground.playground_key, name="playground-key"),
    path("chatgpt/", own_plan.plan, name="my-plan"),
    path("chatgpt/sign-in/", own_plan.plan_sign_in, name="my-plan-sign-in"),
    path("chatgpt/finish/", own_plan.plan_finish, name="my-plan-finish"),
    path("chatgpt/switch/", own_plan.plan_switch, name="my-plan-switch"),
    path("chatgpt/models/", own_plan.plan_models, name="my-plan-models"),
    path("chatgpt/sign-out/", own_plan.plan_sign_out, name="my-plan-sign-out"),
    path("errors/", errors.errors, name="errors"),
    path("status/", status.status, name="status"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("favicon.ico", RedirectView.as_view(url="/static/portal/icon.svg", permanent=True)),
    path("", include("relay.manage.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]
