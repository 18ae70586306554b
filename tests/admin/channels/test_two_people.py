"""Two people on one page: nobody undoes what the other did, and who would is told."""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent
from relay.models import Channel, ChannelEvent, ChannelModel, Model
from relay.tokens.lifecycle import create_token
from tests.support.pages.filled import filled
from tests.support.portal import People

pytestmark = pytest.mark.shared


def form_of(client: Client, path: str) -> str:
    return client.get(path).content.decode()


def changed(page: str, **values: Any) -> dict[str, Any]:
    return filled(page, form_key=None, **values)


@pytest.fixture
def two(db: None) -> tuple[Channel, Channel]:
    return Channel.objects.create(name="one", provider="openai"), Channel.objects.create(name="two", provider="openai")


def row_of(page: str, pk: int) -> str:
    """The prefix of a row in a list."""
    fields = filled(page)
    return next(name.removesuffix("-id") for name, value in fields.items() if value == [str(pk)] and "-id" in name)


def test_list_saves_only_what_its_reader_changed(staff: Client, two: tuple[Channel, Channel]) -> None:
    one, other = two
    page = form_of(staff, "/admin/relay/channel/")
    Channel.objects.filter(pk=other.pk).update(enabled=False, priority=4)
    values = {f"{row_of(page, one.pk)}-weight": "7", "_save": "Save"}
    assert staff.post("/admin/relay/channel/", changed(page, **values)).status_code == 302
    one.refresh_from_db()
    other.refresh_from_db()
    assert one.weight == 7 and (other.enabled, other.priority) == (False, 4)
    assert list(AuditEvent.objects.filter(action="channel.change").values_list("target_name", flat=True)) == ["one"]
    assert not ChannelEvent.objects.filter(channel=other).exists()
    values = {f"{row_of(page, other.pk)}-weight": "9", "_save": "Save"}
    assert staff.post("/admin/relay/channel/", changed(page, **values)).status_code == 302
    other.refresh_from_db()
    assert (other.weight, other.enabled, other.priority) == (9, False, 4), "one cell of a row that somebody changed"


def test_list_tells_of_a_cell_that_both_changed(staff: Client, two: tuple[Channel, Channel]) -> None:
    one, _other = two
    page = form_of(staff, "/admin/relay/channel/")
    Channel.objects.filter(pk=one.pk).update(weight=5)
    values = {f"{row_of(page, one.pk)}-weight": "7", "_save": "Save"}
    answer = staff.post("/admin/relay/channel/", changed(page, **values))
    text = html.unescape(answer.content.decode())
    assert answer.status_code == 200 and "changed this to “5” since" in text and "you changed it to “7”" in text
    one.refresh_from_db()
    assert one.weight == 5
    assert staff.post("/admin/relay/channel/", changed(text, _save="Save")).status_code == 302
    one.refresh_from_db()
    assert one.weight == 7, "saving again keeps the reader's"


def test_closed_model_is_not_opened_by_an_older_list(staff: Client) -> None:
    secret, other = Model.objects.create(name="secret", is_open=True), Model.objects.create(name="other", is_open=True)
    page = form_of(staff, "/admin/relay/model/")
    action = {"action": "close_models", "_selected_action": [secret.pk]}
    assert staff.post("/admin/relay/model/", action).status_code == 302
    values = {f"{row_of(page, other.pk)}-enabled": None, "_save": "Save"}
    assert staff.post("/admin/relay/model/", changed(page, **values)).status_code == 302
    secret.refresh_from_db()
    other.refresh_from_db()
    assert not secret.is_open and not other.enabled and other.is_open


def test_form_saves_only_what_its_reader_changed_and_tells_of_the_rest(
    staff: Client, two: tuple[Channel, Channel]
) -> None:
    one, _other = two
    path = f"/admin/relay/channel/{one.pk}/change/"
    page = form_of(staff, path)
    assert staff.post(path, changed(page, priority="7", notes="mine", enabled=None)).status_code == 302
    assert staff.post(path, changed(page, weight="5")).status_code == 302
    one.refresh_from_db()
    assert (one.priority, one.notes, one.enabled, one.weight) == (7, "mine", False, 5)
    assert ChannelEvent.objects.filter(channel=one, what="enabled").count() == 0
    answer = staff.post(path, changed(page, notes="yours", weight="6"))
    text = html.unescape(answer.content.decode())
    assert answer.status_code == 200 and "changed this to “mine” since" in text and "changed this to “5” since" in text
    assert staff.post(path, changed(text)).status_code == 302
    one.refresh_from_db()
    assert (one.priority, one.notes, one.enabled, one.weight) == (7, "yours", False, 6)


def test_rows_on_a_page_and_lists_of_choices_are_merged_too(
    staff: Client, people: People, two: tuple[Channel, Channel]
) -> None:
    one, _other = two
    model = Model.objects.create(name="m")
    link = ChannelModel.objects.create(channel=one, model=model)
    path = f"/admin/relay/channel/{one.pk}/change/"
    page = form_of(staff, path)
    ChannelModel.objects.filter(pk=link.pk).update(enabled=False)
    assert staff.post(path, changed(page, **{"served-0-upstream_name": "vendor/m"})).status_code == 302
    link.refresh_from_db()
    assert (link.enabled, link.upstream_name) == (False, "vendor/m")
    token, _secret = create_token(people.owner, "t", actor=None)
    path = f"/admin/relay/token/{token.pk}/change/"
    page = form_of(staff, path)
    token.models_allowed.add(model)
    assert staff.post(path, changed(page, notes="x", quota="5")).status_code == 302
    token.refresh_from_db()
    assert token.notes == "x" and list(token.models_allowed.all()) == [model] and token.models_limited
    again = form_of(staff, path)
    assert staff.post(path, changed(again, quota="6")).status_code == 302
    answer = staff.post(path, changed(again, quota="7"))
    assert "changed this to “6” since" in html.unescape(answer.content.decode())


def test_pages_that_say_nothing_of_what_they_showed_are_taken_as_before(
    staff: Client, two: tuple[Channel, Channel]
) -> None:
    path = f"/admin/relay/channel/{two[0].pk}/change/"
    page = form_of(staff, path)
    for seen in (None, "", "x:y", filled(page)["seen"][0] + "x"):
        assert staff.post(path, changed(page, priority="3", seen=seen)).status_code == 302
