"""The page of a group: what its members may do, in sentences under the pages that they are about."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.admin.rights import permission_name, sections, sentences
from accounts.models import AuditEvent, GroupSettings, User
from relay.models import Model, ModelPermission
from tests.support.portal import People
from tests.support.server import ROOT
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared

ASKED = re.compile(r"\"((?:relay|accounts|auth|socialaccount)\.[a-z]+_[a-z_]+)\"")


def page_of(browser: Client, group: Group) -> str:
    return html.unescape(browser.get(f"/admin/auth/group/{group.pk}/change/").content.decode())


def form_of(group: Group, *rights: Permission) -> dict[str, Any]:
    inline = {f"settings-{name}_FORMS": 0 for name in ("TOTAL", "INITIAL")}
    return {"name": group.name, "permissions": [one.pk for one in rights], **inline}


def test_every_right_that_code_asks_for_is_offered(db: None) -> None:
    offered = sentences(admin.site)
    asked = set()
    for room in ("accounts", "portal", "relay"):
        for path in (ROOT / room).rglob("*.py"):
            if "migrations" not in path.parts:
                asked |= set(ASKED.findall(path.read_text(encoding="utf-8")))
    real = {permission_name(one) for one in Permission.objects.select_related("content_type")}
    assert len(asked & real) > 15 and asked & real <= set(offered)
    assert set(offered) <= real, "and none that does not exist"


def test_rights_that_open_nothing_are_not_offered(db: None) -> None:
    offered = sentences(admin.site)
    nothing = (
        "add_auditevent change_auditevent delete_auditevent add_change view_attempt delete_user change_usagerecord"
    )
    for code in nothing.split():
        assert f"accounts.{code}" not in offered and f"relay.{code}" not in offered, code
    assert not [right for right in offered if right.endswith(("permission", "contenttype")) and "model" not in right]
    assert "relay.view_allowedupstream" not in offered, "whose page is for superusers alone"
    assert {"relay.change_budget", "relay.add_apikey", "accounts.change_groupsettings"} <= set(offered), (
        "edited in place"
    )
    titles = [section.title for section in sections(admin.site)]
    assert len(titles) == len(set(titles)) and "Channels" in titles


def test_the_page_has_sentences_in_the_readers_language(people: People) -> None:
    group = Group.objects.get(name="Operator")
    page = page_of(signed_in(people.staff), group)
    assert "See and end running requests of everyone" in page and "See channels" in page
    assert "Can add" not in page and "Can view" not in page
    people.staff.language = "zh-hans"
    people.staff.save(update_fields=["language"])
    page = page_of(signed_in(people.staff), group)
    rights = page[page.index('class="ar-rights"') :]
    rights = rights[: rights.index("</fieldset>\n\n</div>")]
    texts = re.findall(r"<legend>([^<]+)</legend>|checked>\s*([^<]+?)\s*</label>|\d\">\s*([^<]+?)\s*</label>", rights)
    plain = [text for found in texts for text in found if text and not re.search("[\u4e00-\u9fff]", text)]
    assert len(texts) > 80 and plain == []


def test_saving_the_page_keeps_rights_that_it_would_not_offer(people: People) -> None:
    group = Group.objects.create(name="Old")
    odd, see, change = (
        Permission.objects.get(codename=code) for code in ("add_auditevent", "view_channel", "change_channel")
    )
    group.permissions.set([odd, see])
    browser = signed_in(people.staff)
    page = page_of(browser, group)
    assert "Rights without effect" in page and page.count(f'value="{odd.pk}"') == 1
    boxes = re.findall(r'name="permissions" value="(\d+)"[^>]*checked', page)
    assert {int(pk) for pk in boxes} == {odd.pk, see.pk}
    path = f"/admin/auth/group/{group.pk}/change/"
    assert browser.post(path, form_of(group, odd, see, change)).status_code == 302
    assert set(group.permissions.all()) == {odd, see, change}
    assert browser.post(path, form_of(group, see)).status_code == 302
    assert set(group.permissions.all()) == {see}, "it can be taken away"
    refused = browser.post(path, form_of(group, see, odd))
    assert refused.status_code == 200 and set(group.permissions.all()) == {see}
    assert "Rights without effect" not in page_of(browser, Group.objects.create(name="New"))


def test_every_right_of_the_roles_stands_on_their_pages(people: People) -> None:
    browser = signed_in(people.staff)
    for group in Group.objects.all():
        page = page_of(browser, group)
        boxes = {int(pk) for pk in re.findall(r'name="permissions" value="(\d+)"[^>]*checked', page)}
        assert boxes == set(group.permissions.values_list("pk", flat=True)), group


@pytest.mark.parametrize("role", ["Operator", "Accountant", "Support"])
def test_who_may_only_look_at_groups_reads_sentences(people: People, role: str) -> None:
    user = User.objects.create_user("dora", is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    group = Group.objects.get(name="Operator")
    page = page_of(signed_in(user), group)
    assert "<li>See channels</li>" in page and "Can view" not in page and 'name="permissions"' not in page
    answer = signed_in(user).post(f"/admin/auth/group/{group.pk}/change/", form_of(group))
    assert answer.status_code == 403 and group.permissions.count() > 10


def test_the_log_names_rights_that_were_given_and_taken(people: People) -> None:
    group = Group.objects.create(name="Shift")
    see, change, add = (
        Permission.objects.get(codename=code) for code in ("view_channel", "change_channel", "add_channel")
    )
    group.permissions.set([see, change])
    browser = signed_in(people.staff)
    assert browser.post(f"/admin/auth/group/{group.pk}/change/", form_of(group, see, add)).status_code == 302
    event = AuditEvent.objects.get(action="group.change")
    assert event.detail["changes"]["permissions"][1] == ["relay.add_channel", "relay.view_channel"]
    for path in ("/admin/accounts/auditevent/", f"/admin/accounts/auditevent/{event.pk}/change/"):
        page = html.unescape(browser.get(path).content.decode())
        assert "Change channels" in page and "Add channels" in page and "See channels" not in page


def test_what_a_group_is_for_comes_before_its_rights(people: People) -> None:
    browser = signed_in(people.staff)
    page = browser.get("/admin/auth/group/add/").content.decode()
    fields = ("description", "price_multiplier", "member_rpm", "max_rpm")
    parts = ('name="name"', *(f'name="settings-0-{field}"' for field in fields), 'name="permissions"')
    places = [page.index(part) for part in parts]
    assert places == sorted(places) and page.count('name="permissions"') > 50
    details = page[page.rindex("<details", 0, places[-1]) :]
    assert details.startswith("<details>"), "closed"
    opened = page_of(browser, Group.objects.get(name="Support"))
    assert "<details open>" in opened
    wrong = browser.post("/admin/auth/group/add/", {**form_of(Group(name="")), "permissions": ["0"]}).content.decode()
    assert "<details open>" in wrong, "an error within is not hidden"


def test_the_list_says_what_roles_are_for(people: People) -> None:
    browser = signed_in(people.staff)
    page = browser.get("/admin/auth/group/").content.decode()
    assert page.count("Role of staff:") == 4
    GroupSettings.objects.update_or_create(group=Group.objects.get(name="Support"), defaults={"description": "Night"})
    page = browser.get("/admin/auth/group/").content.decode()
    assert page.count("Role of staff:") == 3 and "Night" in page


def test_who_deletes_a_group_reads_what_its_members_lose(people: People) -> None:
    group = Group.objects.create(name="Partners")
    GroupSettings.objects.create(group=group, price_multiplier="0.5", member_rpm=3)
    ModelPermission.objects.create(model=Model.objects.create(name="m"), group=group)
    browser, path = signed_in(people.staff), f"/admin/auth/group/{group.pk}/delete/"
    assert "lose with it" not in browser.get(path).content.decode(), "it has no members"
    group.user_set.add(people.owner)
    many = {"action": "delete_selected", "_selected_action": [group.pk]}
    for page in (browser.get(path), browser.post("/admin/auth/group/", many)):
        text = html.unescape(page.content.decode())
        assert "1 member(s) of “Partners” lose with it: the price × 0.5; its limits of requests and tokens; " in text
        assert "permission for 1 model(s)." in text
    for person in (people.owner, people.other):
        assert signed_in(person).get(path).status_code in {302, 403}
    gone = browser.post(path, {"post": "yes"}, follow=True).content.decode()
    assert "lose with it" not in gone and not Group.objects.filter(name="Partners").exists()
