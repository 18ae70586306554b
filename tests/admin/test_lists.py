"""Every list and page of the admin: who may open it, and how many queries it makes."""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.contrib import admin
from django.db.models.constraints import BaseConstraint
from django.forms import DateTimeField, SplitDateTimeField
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts.models import User
from accounts.models.fields import SplitMomentField
from portal.lib import clock
from relay.models import ApiKey, Budget, Channel, ChannelModel, Model, ModelPermission, UsageRecord
from relay.tokens.lifecycle import create_token
from tests.support.portal import People
from tests.support.sessions import clerk as clerk_with
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared

LISTS = [
    "relay/channel",
    "relay/apikey",
    "relay/model",
    "relay/modelpermission",
    "relay/token",
    "relay/usagerecord",
    "relay/upload",
    "relay/blockedaddress",
    "relay/allowedupstream",
    "relay/pool",
    "relay/failurerule",
    "relay/cooldown",
    "accounts/user",
    "accounts/auditevent",
    "auth/group",
]


@pytest.mark.parametrize("path", LISTS)
def test_lists_and_add_pages_open_for_superusers_and_not_for_others(staff: Client, people: People, path: str) -> None:
    create_token(people.owner, "t", actor=None)
    assert staff.get(f"/admin/{path}/").status_code == 200
    assert staff.get(f"/admin/{path}/?q=x").status_code == 200
    for user in (people.owner, people.other):
        client = Client()
        client.force_login(user)
        assert client.get(f"/admin/{path}/").status_code == 302


def test_api_keys_are_found_in_the_menu_by_those_who_may_see_them(staff: Client, people: People) -> None:
    link = 'href="/admin/relay/apikey/"'
    front = staff.get("/admin/").content.decode()
    assert link in front and "API keys" in front
    assert link not in clerk_with("view_channel").get("/admin/").content.decode()
    ApiKey.objects.create(channel=Channel.objects.create(name="one", provider="openai"), hint="sk-…abc")
    assert "sk-…abc" in staff.get("/admin/relay/apikey/").content.decode(), "those of all channels"


def test_clerk_sees_what_the_permissions_say(clerk: Client, people: People) -> None:
    front = clerk.get("/admin/").content.decode()
    assert (
        "/admin/accounts/user/" in front
        and "/admin/relay/channel/" not in front
        and "/admin/relay/allowedupstream/" not in front
    )
    assert clerk.get("/admin/relay/channel/").status_code == 403
    assert clerk.get("/admin/relay/allowedupstream/").status_code == 403
    assert clerk.get("/admin/relay/usagerecord/").status_code == 403


def test_lists_make_a_fixed_number_of_queries(
    staff: Client, people: People, django_assert_max_num_queries: Any
) -> None:
    for number in range(15):
        channel = Channel.objects.create(name=f"c{number}", provider="demo")
        ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=f"m{number}"))
        create_token(people.owner, f"t{number}", actor=None)
        UsageRecord.objects.create(
            request_id=f"req_{number}",
            started_at=clock.now(),
            user=people.owner,
            channel=channel,
            model="m",
            endpoint="chat.completions",
            streamed=False,
            status=200,
            end_reason="completed",
            usage_source="reported",
            latency_ms=5,
        )
    staff.get("/admin/")  # adds the requests up
    with django_assert_max_num_queries(28):
        staff.get("/admin/")
    for path in (f"{name}/" for name in LISTS):
        with django_assert_max_num_queries(15):
            assert staff.get(f"/admin/{path}").status_code == 200


@pytest.mark.parametrize("page", [model._meta.label_lower for model in admin.site._registry])
def test_lists_and_searches_of_the_admin_need_their_right(people: People, owned: dict[str, Any], page: str) -> None:
    """A user is sent away, staff without the right is refused, staff with it sees the list and may search it."""
    app, model = page.split(".")
    path = reverse(f"admin:{app}_{model}_changelist")
    assert Client().get(path).status_code == 302 and signed_in(people.owner).get(path).status_code == 302
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    for address in (path, f"{path}?q=x", reverse(f"admin:{app}_{model}_add")):
        assert signed_in(staff).get(address).status_code == 403, address
    for address in (path, f"{path}?q=x"):
        assert signed_in(people.staff).get(address, follow=True).status_code == 200, address


OTHER = (
    "/admin/explain/",
    "/admin/running/",
    "/admin/setup/",
    "/admin/setup/keys/",
    "/admin/now/channels/",
    "/admin/now/running/",
    "/admin/installation/",
    "/admin/relay/usagerecord/report/",
    "/admin/relay/usagerecord/export/",
    "/admin/autocomplete/?app_label=relay&model_name=modelpermission&field_name=user",
)


@pytest.mark.parametrize("path", OTHER)
def test_other_pages_of_the_admin_need_their_right(people: People, path: str) -> None:
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    assert signed_in(people.owner).get(path).status_code == 302
    assert signed_in(staff).get(path).status_code == 403


def test_no_list_can_be_filtered_by_a_secret(staff: Client) -> None:
    """A filter on the beginning of a hash or of a sealed text would tell it piece by piece."""
    words = ("digest", "sealed", "secret", "password", "session_data")
    request = RequestFactory().get("/")
    found = []
    for kind, page in admin.site._registry.items():
        for field in kind._meta.fields:
            if any(word in field.name for word in words) and not field.is_relation:
                found.append(f"{kind._meta.label}.{field.name}")
                assert not page.lookup_allowed(f"{field.name}__startswith", "a", request), found[-1]
    assert {"relay.Token.digest", "relay.Token.sealed", "accounts.User.password"} <= set(found)
    assert staff.get("/admin/relay/token/?digest__startswith=a").status_code == 400


def test_no_list_joins_two_kinds_of_rows_at_once(staff: Client) -> None:
    """Counts by joins multiply: 5,000 keys by 5,000 models are 25 million rows for one channel."""
    request = RequestFactory().get("/")
    request.user = User.objects.get(is_superuser=True)
    for kind, page in admin.site._registry.items():
        query = page.get_queryset(request).query
        several = [
            join for join in query.alias_map.values() if getattr(getattr(join, "join_field", 0), "multiple", False)
        ]
        assert len(several) <= 1, (kind, [join.table_name for join in several])


def test_no_form_speaks_of_constraints(staff: Client, people: People) -> None:
    """Each constraint on rows that people type says in a sentence of its own what is wrong."""
    request = RequestFactory().get("/")
    request.user = people.staff
    pages = [*admin.site._registry.values()]
    typed = {page.model for page in pages if page.has_add_permission(request) or page.has_change_permission(request)}
    typed |= {inline.model for page in pages for inline in page.inlines}
    seen = 0
    for table in typed:
        for constraint in table._meta.constraints:
            own = constraint.violation_error_message != BaseConstraint.default_violation_error_message
            assert own, f"{constraint.name} needs a violation_error_message"
            seen += 1
    assert seen >= 8

    model = Model.objects.create(name="m")
    token = create_token(people.owner, "laptop", actor=None)[0]
    user = {"user": people.owner.pk}
    ModelPermission.objects.create(model=model, user=people.owner)
    Budget.objects.create(user=people.owner, period="day", limit=1)
    permission, budget = {"model": model.pk}, {"period": "day", "limit": "2"}
    for path, form, said in (
        ("modelpermission", permission, "Choose a user or a group, one of the two."),
        ("modelpermission", permission | user, "This user has such a permission already: change it."),
        ("budget", budget, "Choose a user or a token, one of the two."),
        ("budget", budget | user | {"token": token.pk}, "Choose a user or a token, one of the two."),
        ("budget", budget | {"limit": "much"}, "Choose a user or a token, one of the two."),
        ("budget", budget | user, "There is such a budget already: change its limit."),
    ):
        page = html.unescape(staff.post(f"/admin/relay/{path}/add/", form).content.decode())
        assert page.count(said) == 1, (path, form, "once, and once only")
        assert "onstraint" not in page and "already exists" not in page, (path, form)


def test_the_search_of_the_menu_offers_what_its_reader_may_open(people: People) -> None:
    support, operator = clerk_with("view_user", "view_channel"), signed_in(people.staff)
    assert "/admin/relay/channel/" in support.get("/admin/search/", {"s": "channel"}).content.decode()
    page = support.get("/admin/search/", {"s": "<anna&x>"}).content.decode()
    assert "No page is called that." in page and "/admin/accounts/user/?q=%3Canna%26x%3E" in page
    assert "usagerecord" not in page and "<anna" not in page
    assert "/admin/relay/usagerecord/?q=req_1" in operator.get("/admin/search/", {"s": "req_1"}).content.decode()
    assert support.get("/admin/search/", {"s": ""}).content == b""
    assert signed_in(people.other).get("/admin/search/", {"s": "anna"}).status_code in {302, 403}


def test_every_day_and_time_that_staff_type_may_be_a_day_alone(people: People) -> None:
    request = RequestFactory().get("/")
    request.user = people.staff
    seen = 0
    for page in admin.site._registry.values():
        forms = [page.get_form(request)] if page.has_add_permission(request) else []
        forms += [inline(page.model, admin.site).get_formset(request).form for inline in page.inlines]
        for name, field in [pair for form in forms for pair in form.base_fields.items()]:
            if isinstance(field, (DateTimeField, SplitDateTimeField)):
                assert isinstance(field, SplitMomentField), (page, name)
                seen += 1
    assert seen >= 7


def badges_on_pages() -> list[str]:
    """Columns that give a pair, for a badge, among the fields of a row's page, where such a pair is no text."""
    found = []
    for model, page in admin.site._registry.items():
        groups: Any = page.fieldsets or ()
        shown = {*page.readonly_fields, *(page.fields or ())}
        shown |= {name for _title, options in groups for name in options["fields"] if isinstance(name, str)}
        found += [f"{model.__name__}.{name}" for name in shown if getattr(getattr(page, name, None), "label", None)]
    return sorted(found)


def test_no_badge_is_a_field_of_a_page() -> None:
    assert badges_on_pages() == []


@pytest.mark.parametrize(
    ("path", "word"),
    [("accounts/staffkey", "/api/v1"), ("relay/billingkey", "OpenRouter"), ("relay/upstreambill", "billing key")],
)
def test_a_list_without_rows_says_how_one_comes_and_one_without_matches_shows_all(
    staff: Client, path: str, word: str
) -> None:
    empty = staff.get(f"/admin/{path}/").content.decode()
    assert word in empty and "No results found" not in empty and "Show all" not in empty
    matches = staff.get(f"/admin/{path}/?q=nothing-like-it").content.decode()
    assert "Nothing matches" in matches and "Show all" in matches
