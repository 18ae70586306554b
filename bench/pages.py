"""Every page of the portal, for the tour, for measuring and for tests of accessibility: its name, its address, what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Place:
    """`who`: "user", "staff" or "" (nobody). `{…}` in the address is filled in by `ids`."""

    name: str
    path: str
    who: str
    title: str
    about: str = ""


USER: Final = (
    Place("home", "/", "user", "Overview", "Balance, budgets, limits, what it went on: by day, by model, by token."),
    Place("playground", "/playground/", "user", "Playground", "Ask any model with one of your tokens; see cost, and the same request as code."),
    Place("models", "/catalog/", "user", "Models", "What you may use, what it costs, what it can. Searchable."),
    Place("connect", "/connect/", "user", "Connect an app", "Exact settings for editors, agents, chat apps and SDKs."),
    Place("tokens", "/tokens/", "user", "Tokens", "Each with its purpose, quota, limits and last use."),
    Place("token-new", "/tokens/new/", "user", "A new token"),
    Place("token", "/tokens/{token}/", "user", "A token"),
    Place("usage", "/usage/", "user", "Usage", "Sums, and every request as it happens."),
    Place("receipt", "/usage/{request}/", "user", "A receipt", "What one request cost, and why."),
    Place("balance", "/balance/", "user", "Balance", "What is left, codes, movements."),
    Place("notices", "/balance/notices/", "user", "Notices"),
    Place("files", "/storage/", "user", "Files"),
    Place("errors", "/errors/", "user", "Errors", "What every code means and what to do."),
    Place("status", "/status/", "user", "Status", "Models up, times to the first token, incidents."),
    Place("docs", "/docs/", "user", "API reference"),
    Place("account", "/accounts/", "user", "My account", "Language, time zone, password, second factor, other accounts."),
    Place("second-factor", "/accounts/2fa/", "user", "Second factor"),
    Place("email", "/accounts/email/", "user", "E-mail addresses"),
)
DOORS: Final = (Place("sign-in", "/accounts/login/", "", "Sign in"), Place("sign-up", "/accounts/signup/", "", "Sign up"))
STAFF: Final = (
    Place("admin", "/admin/", "staff", "Front page of the administration", "Figures, channels live, errors by class, what needs a person."),
    Place("setup", "/admin/setup/channel/", "staff", "First-run guide", "Eight steps to an answered request."),
    Place("channels", "/admin/relay/channel/", "staff", "Channels"),
    Place("channel", "/admin/relay/channel/{channel}/change/", "staff", "A channel"),
    Place("channel-history", "/admin/relay/channel/{channel}/events/", "staff", "A channel's history"),
    Place("admin-models", "/admin/relay/model/", "staff", "Models"),
    Place("gpts", "/admin/relay/model/gpt/", "staff", "Add GPTs"),
    Place("model", "/admin/relay/model/{model}/change/", "staff", "A model"),
    Place("users", "/admin/accounts/user/", "staff", "Users"),
    Place("user", "/admin/accounts/user/{user}/change/", "staff", "A user"),
    Place("admin-tokens", "/admin/relay/token/", "staff", "Tokens"),
    Place("admin-usage", "/admin/relay/usagerecord/", "staff", "Usage", "Filters, keyset paging, receipts, CSV."),
    Place("report", "/admin/relay/usagerecord/report/", "staff", "Cost and margin"),
    Place("admin-receipt", "/admin/relay/usagerecord/{record}/change/", "staff", "A receipt for staff"),
    Place("explain", "/admin/explain/?user={name}&model={model_name}", "staff", "Explain"),
    Place("running", "/admin/running/", "staff", "Running requests"),
    Place("catalogue", "/admin/relay/errortext/", "staff", "Error catalogue"),
    Place("incidents", "/admin/relay/incident/", "staff", "Incidents"),
    Place("groups", "/admin/auth/group/", "staff", "Groups and roles"),
    Place("invitations", "/admin/accounts/invitation/", "staff", "Invitations"),
    Place("providers", "/admin/socialaccount/socialapp/", "staff", "Sign-in providers"),
    Place("audit", "/admin/accounts/auditevent/", "staff", "Audit log"),
    Place("prices", "/admin/relay/modelprice/", "staff", "Prices"),
    Place("accounts", "/admin/relay/ledgeraccount/", "staff", "Accounts of the ledger"),
    Place("books", "/admin/relay/ledgeraccount/verify/", "staff", "The books", "Proofs that every figure is the sum of its entries."),
    Place("ledger", "/admin/relay/ledgerentry/", "staff", "Ledger"),
    Place("codes", "/admin/relay/redemptionbatch/", "staff", "Redemption codes"),
    Place("permissions", "/admin/relay/modelpermission/", "staff", "Model permissions"),
    Place("installation", "/admin/installation/", "staff", "Installation", "What the portal's own checks find."),
    Place("channel-new", "/admin/relay/channel/add/", "staff", "A new channel"),
    Place("user-new", "/admin/accounts/user/add/", "staff", "A new user"),
    Place("token-for", "/admin/relay/token/add/", "staff", "A token for somebody"),
    Place("price-new", "/admin/relay/modelprice/add/", "staff", "A new price"),
    Place("incident-new", "/admin/relay/incident/add/", "staff", "A new incident"),
    Place("invitation-new", "/admin/accounts/invitation/add/", "staff", "A new invitation"),
    Place("provider-new", "/admin/socialaccount/socialapp/add/", "staff", "A new sign-in provider"),
    Place("group", "/admin/auth/group/{group}/change/", "staff", "A role"),
    Place("top-up", "/admin/accounts/user/{user}/top-up/", "staff", "Top up"),
    Place("look", "/admin/accounts/user/{user}/look/", "staff", "Look as a user"),
    Place("setup-prices", "/admin/setup/prices/?channel={channel}", "staff", "First-run guide: prices"),
    Place("setup-token", "/admin/setup/token/?channel={channel}", "staff", "First-run guide: token"),
    Place("cooldowns", "/admin/relay/cooldown/", "staff", "Cooldowns"),
)
EVERY: Final = (*DOORS, *USER, *STAFF)


def ids() -> dict[str, Any]:
    """Things to look at: of the first made-up user, and of the portal. Reads the database."""
    from django.contrib.auth.models import Group

    from accounts.models import User
    from relay.models import Channel, Model, Token, UsageRecord
    from relay.usage.demo_data import MARK

    user = User.objects.filter(username__startswith=MARK).order_by("pk").first()
    assert user is not None  # noqa: S101  # a seeded portal
    record = UsageRecord.objects.filter(user=user, status=200).order_by("-started_at").first()
    assert record is not None  # noqa: S101
    return {
        "user": user.pk, "name": user.username, "token": Token.objects.filter(user=user).order_by("pk").values_list("pk", flat=True)[0], "request": record.request_id, "record": record.pk,
        "channel": Channel.objects.filter(name="OpenAI main").values_list("pk", flat=True)[0], "model": Model.objects.get(name="gpt-5").pk, "model_name": "gpt-5", "group": Group.objects.get(name="Operator").pk,
    }  # fmt: skip
