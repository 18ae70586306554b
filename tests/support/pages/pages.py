"""The list of the portal's pages, for the tour, for measurements and for accessibility tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class PortalPage:
    """One page of the portal."""

    name: str
    path: str  # `ids` fills in its `{…}`
    role: str  # of its visitors: "user", "staff" or "" (not signed in)
    title: str
    about: str = ""


USER: Final = (
    PortalPage(
        "home", "/", "user", "Overview", "Balance, budgets, limits, what it went on: by day, by model, by token."
    ),
    PortalPage(
        "playground",
        "/playground/",
        "user",
        "Playground",
        "Ask any model with one of your tokens; see cost, and the same request as code.",
    ),
    PortalPage("models", "/catalog/", "user", "Models", "What you may use, what it costs, what it can. Searchable."),
    PortalPage(
        "connect", "/connect/", "user", "Connect an app", "Exact settings for editors, agents, chat apps and SDKs."
    ),
    PortalPage("tokens", "/tokens/", "user", "Tokens", "Each with its purpose, quota, limits and last use."),
    PortalPage("token-new", "/tokens/new/", "user", "A new token"),
    PortalPage("token", "/tokens/{token}/", "user", "A token"),
    PortalPage("usage", "/usage/", "user", "Usage", "Sums, and every request as it happens."),
    PortalPage("receipt", "/usage/{request}/", "user", "A receipt", "What one request cost, and why."),
    PortalPage("sessions", "/usage/sessions/", "user", "Sessions", "Conversations with agents and chat apps."),
    PortalPage(
        "session", "/usage/sessions/{session}/", "user", "A session", "What it cost, its models and sub-agents."
    ),
    PortalPage("balance", "/balance/", "user", "Balance", "What is left, codes, movements."),
    PortalPage("notices", "/balance/notices/", "user", "Notices"),
    PortalPage("files", "/storage/", "user", "Files"),
    PortalPage("errors", "/errors/", "user", "Errors", "What every code means and what to do."),
    PortalPage("status", "/status/", "user", "Status", "Models up, times to the first token, incidents."),
    PortalPage("docs", "/docs/", "user", "API reference"),
    PortalPage(
        "account", "/accounts/", "user", "My account", "Language, time zone, password, second factor, other accounts."
    ),
    PortalPage("second-factor", "/accounts/2fa/", "user", "Second factor"),
    PortalPage("email", "/accounts/email/", "user", "E-mail addresses"),
)
SIGN_IN: Final = (
    PortalPage("sign-in", "/accounts/login/", "", "Sign in"),
    PortalPage("sign-up", "/accounts/signup/", "", "Sign up"),
)
STAFF: Final = (
    PortalPage(
        "admin",
        "/admin/",
        "staff",
        "Front page of the administration",
        "Figures, channels live, errors by class, what needs a person.",
    ),
    PortalPage("setup", "/admin/setup/channel/", "staff", "First-run guide", "Eight steps to an answered request."),
    PortalPage("channels", "/admin/relay/channel/", "staff", "Channels"),
    PortalPage("channel", "/admin/relay/channel/{channel}/change/", "staff", "A channel"),
    PortalPage(
        "channel-keys", "/admin/relay/apikey/?channel__id__exact={channel}", "staff", "The keys of a channel, in a list"
    ),
    PortalPage(
        "channel-models",
        "/admin/relay/channelmodel/?channel__id__exact={channel}",
        "staff",
        "The models of a channel, in a list",
    ),
    PortalPage("channel-history", "/admin/relay/channel/{channel}/events/", "staff", "A channel's history"),
    PortalPage("admin-models", "/admin/relay/model/", "staff", "Models"),
    PortalPage("gpts", "/admin/relay/model/gpt/", "staff", "Add GPTs"),
    PortalPage("model", "/admin/relay/model/{model}/change/", "staff", "A model"),
    PortalPage("users", "/admin/accounts/user/", "staff", "Users"),
    PortalPage("user", "/admin/accounts/user/{user}/change/", "staff", "A user"),
    PortalPage("admin-tokens", "/admin/relay/token/", "staff", "Tokens"),
    PortalPage("admin-usage", "/admin/relay/usagerecord/", "staff", "Usage", "Filters, keyset paging, receipts, CSV."),
    PortalPage("report", "/admin/relay/usagerecord/report/", "staff", "Cost and margin"),
    PortalPage("admin-sessions", "/admin/sessions/", "staff", "Sessions"),
    PortalPage("admin-session", "/admin/sessions/{user}/{session}/", "staff", "A session for staff"),
    PortalPage("admin-receipt", "/admin/relay/usagerecord/{record}/change/", "staff", "A receipt for staff"),
    PortalPage("caches", "/admin/caches/", "staff", "Caches"),
    PortalPage("explain", "/admin/explain/?user={name}&model={model_name}", "staff", "Explain"),
    PortalPage("running", "/admin/running/", "staff", "Running requests"),
    PortalPage("catalogue", "/admin/relay/errortext/", "staff", "Error catalogue"),
    PortalPage("incidents", "/admin/relay/incident/", "staff", "Incidents"),
    PortalPage("groups", "/admin/auth/group/", "staff", "Groups and roles"),
    PortalPage("invitations", "/admin/accounts/invitation/", "staff", "Invitations"),
    PortalPage("providers", "/admin/socialaccount/socialapp/", "staff", "Sign-in providers"),
    PortalPage("audit", "/admin/accounts/auditevent/", "staff", "Audit log"),
    PortalPage("prices", "/admin/relay/modelprice/", "staff", "Prices"),
    PortalPage("accounts", "/admin/relay/ledgeraccount/", "staff", "Accounts of the ledger"),
    PortalPage(
        "books",
        "/admin/relay/ledgeraccount/verify/",
        "staff",
        "The books",
        "Proofs that every figure is the sum of its entries.",
    ),
    PortalPage("budgets", "/admin/relay/budget/", "staff", "Budgets"),
    PortalPage("ledger", "/admin/relay/ledgerentry/", "staff", "Ledger"),
    PortalPage("codes", "/admin/relay/redemptionbatch/", "staff", "Redemption codes"),
    PortalPage("staff-keys", "/admin/accounts/staffkey/", "staff", "Staff keys"),
    PortalPage("bills", "/admin/relay/upstreambill/", "staff", "Upstream bills"),
    PortalPage("billing-keys", "/admin/relay/billingkey/", "staff", "Billing keys"),
    PortalPage("permissions", "/admin/relay/modelpermission/", "staff", "Model permissions"),
    PortalPage("installation", "/admin/installation/", "staff", "Installation", "What the portal's own checks find."),
    PortalPage("channel-new", "/admin/relay/channel/add/", "staff", "A new channel"),
    PortalPage("user-new", "/admin/accounts/user/add/", "staff", "A new user"),
    PortalPage("token-for", "/admin/relay/token/add/", "staff", "A token for somebody"),
    PortalPage("price-new", "/admin/relay/modelprice/add/", "staff", "A new price"),
    PortalPage("incident-new", "/admin/relay/incident/add/", "staff", "A new incident"),
    PortalPage("invitation-new", "/admin/accounts/invitation/add/", "staff", "A new invitation"),
    PortalPage("provider-new", "/admin/socialaccount/socialapp/add/", "staff", "A new sign-in provider"),
    PortalPage("group", "/admin/auth/group/{group}/change/", "staff", "A role"),
    PortalPage("top-up", "/admin/accounts/user/{user}/top-up/", "staff", "Top up"),
    PortalPage("look", "/admin/accounts/user/{user}/look/", "staff", "Look as a user"),
    PortalPage("setup-prices", "/admin/setup/prices/?channel={channel}", "staff", "First-run guide: prices"),
    PortalPage("setup-token", "/admin/setup/token/?channel={channel}", "staff", "First-run guide: token"),
    PortalPage("cooldowns", "/admin/relay/cooldown/", "staff", "Cooldowns"),
    PortalPage("doctor", "/admin/doctor/", "staff", "Doctor"),
    PortalPage("plans", "/admin/relay/chatgptaccount/", "staff", "Sign-ins with ChatGPT"),
    PortalPage("own-plan", "/chatgpt/", "staff", "One's own ChatGPT plan"),
)
ALL_PAGES: Final = (*SIGN_IN, *USER, *STAFF)

BIG_CHANNEL: Final = "Aggregator"  # of which `make pages` makes one
FILTERED_PAGES: Final = (
    PortalPage("big-channel", "/admin/relay/channel/{big}/change/", "staff", "A channel with thousands of rows"),
    PortalPage("big-channel-page", "/admin/relay/channel/{big}/change/?served-page=9", "staff", "Models, page 9"),
    PortalPage("big-models", "/admin/relay/channelmodel/?channel__id__exact={big}", "staff", "Its models"),
    PortalPage("big-search", "/admin/relay/channelmodel/?channel__id__exact={big}&q=4321", "staff", "One of them"),
    PortalPage("big-keys", "/admin/relay/apikey/?channel__id__exact={big}", "staff", "Its keys"),
    PortalPage("big-open", "/admin/setup/open/?channel={big}", "staff", "The guide: open its models"),
    PortalPage("big-prices", "/admin/setup/prices/?channel={big}", "staff", "The guide: prices of its models"),
    PortalPage("usage-failed", "/usage/?failed=1", "user", "My failed requests"),
    PortalPage("usage-model", "/usage/?model=mistral-large", "user", "My requests for a model"),
    PortalPage("admin-30", "/admin/?days=30", "staff", "Front page, 30 days"),
    PortalPage("usage-user", "/admin/relay/usagerecord/?user={user}", "staff", "Requests of a user"),
    PortalPage(
        "usage-code", "/admin/relay/usagerecord/?code=upstream_truncated", "staff", "Requests with a rare error"
    ),
    PortalPage(
        "usage-channel", "/admin/relay/usagerecord/?channel={channel}&outcome=timeout", "staff", "Timeouts of a channel"
    ),
    PortalPage("report-user", "/admin/relay/usagerecord/report/?by=user&days=30", "staff", "Cost by user, 30 days"),
    PortalPage("report-token", "/admin/relay/usagerecord/report/?by=token&days=30", "staff", "Cost by token, 30 days"),
    PortalPage("report-model", "/admin/relay/usagerecord/report/?by=model&days=365", "staff", "Cost by model, a year"),
    PortalPage("tokens-search", "/admin/relay/token/?q=laptop+4321", "staff", "Tokens, searched"),
    PortalPage("users-search", "/admin/accounts/user/?q=seeded-04321", "staff", "Users, searched"),
    PortalPage("users-empty", "/admin/accounts/user/?balance=empty", "staff", "Users without money"),
    PortalPage("tokens-page", "/admin/relay/token/?p=40", "staff", "Tokens, page 41"),
)


def ids() -> dict[str, Any]:
    """The ids for paths: of the first seeded user, and of the portal. Reads the database."""
    from django.contrib.auth.models import Group

    from accounts.models import User
    from relay.models import Channel, Model, Token, UsageRecord
    from relay.usage.demo_data import USER_PREFIX

    user = User.objects.filter(username__startswith=USER_PREFIX).order_by("pk").first()
    assert user is not None  # a seeded portal
    talk = UsageRecord.objects.filter(user=user, agent__isnull=False, parent_agent__isnull=False)
    session = talk.order_by("-started_at").first()
    assert session is not None
    record = UsageRecord.objects.filter(user=user, status=200).order_by("-started_at").first()
    assert record is not None
    channels = dict(Channel.objects.filter(name__in=("OpenAI main", BIG_CHANNEL)).values_list("name", "pk"))
    return {
        "user": user.pk,
        "name": user.username,
        "token": Token.objects.filter(user=user).order_by("pk").values_list("pk", flat=True)[0],
        "request": record.request_id,
        "record": record.pk,
        "session": session.session_code,
        "channel": channels["OpenAI main"],
        "big": channels.get(BIG_CHANNEL, channels["OpenAI main"]),
        "model": Model.objects.get(name="gpt-5").pk,
        "model_name": "gpt-5",
        "group": Group.objects.get(name="Operator").pk,
    }
