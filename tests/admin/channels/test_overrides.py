"""Overrides of channels in the administration: written, tried on a request, saved, and by whom."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent
from relay.models import ApiKey, Channel, ChannelModel, Model
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared
RULES: list[dict[str, Any]] = [
    {"do": "remove", "path": "temperature"},
    {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens"},
    {"do": "set_header", "header": "X-Title", "value": "Acme"},
]
SECRET = "sk-upstream-secret-0123456789"


@pytest.fixture
def channel(db: None) -> Channel:
    found = Channel.objects.create(name="one", provider="openai")
    ChannelModel.objects.create(channel=found, model=Model.objects.create(name="public"), upstream_name="vendor/real")
    key = ApiKey(channel=found)
    key.set_secret(SECRET)
    key.save()
    return found


def page(channel: Channel) -> str:
    return f"/admin/relay/channel/{channel.pk}/overrides/"


def shown(client: Client, channel: Channel, **values: Any) -> str:
    """The page after a preview."""
    form = filled(client.get(page(channel)).content.decode(), **{"_preview": "1", **values})
    return html.unescape(client.post(page(channel), form).content.decode())


def lines(text: str, tag: str) -> list[str]:
    return [part.partition(f"</{tag}>")[0].strip() for part in text.split(f"<{tag}>")[1:]]


def test_a_request_is_shown_before_and_after(staff: Client, channel: Channel) -> None:
    body = {"model": "public", "messages": [{"role": "user", "content": "x"}], "temperature": 1, "max_tokens": 5}
    text = shown(
        staff, channel, overrides=json.dumps(RULES), api="chat.completions", model="public", body=json.dumps(body)
    )
    assert '"temperature": 1,' in lines(text, "del") and '"max_tokens": 5' in lines(text, "del")
    assert "x-title: Acme" in lines(text, "ins") and '"max_completion_tokens": 5' in lines(text, "ins")
    assert '"model": "vendor/real"' in text and "POST https://api.openai.com/v1/chat/completions" in text
    assert "authorization: Bearer ••••••" in text and SECRET not in text and SECRET[-6:] not in text
    assert "<code>temperature</code>" in text


def test_a_client_of_another_api_is_shown_converted(staff: Client, channel: Channel) -> None:
    body = {"model": "public", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "temperature": 1}
    text = shown(staff, channel, overrides=json.dumps(RULES), api="messages", model="public", body=json.dumps(body))
    assert "/v1/chat/completions" in text and '"max_completion_tokens": 5' in text and "x-title: Acme" in text
    assert any(line.startswith('"temperature": 1') for line in lines(text, "del"))


@pytest.mark.parametrize("body", ["", "{", "[]", '{"model": "public"}'])
def test_a_request_that_cannot_be_read_is_said(staff: Client, channel: Channel, body: str) -> None:
    text = shown(staff, channel, overrides="[]", api="chat.completions", model="public", body=body)
    assert 'role="alert"' in text and "<ins>" not in text


def test_the_page_opens_with_a_request_of_the_channels_api(staff: Client, channel: Channel) -> None:
    text = html.unescape(staff.get(page(channel)).content.decode())
    assert "Say hello." in text and '"model": "vendor/real"' in text and "<ins>" not in text
    channel.provider = "anthropic"
    channel.save()
    text = html.unescape(staff.get(page(channel)).content.decode())
    assert "https://api.anthropic.com/v1/messages" in text and "x-api-key: ••••••" in text


NO_JSON = {
    "no number": '[{"do": "set", "path": "x", "value": NaN}]',
    "too large": '[{"do": "set", "path": "x", "value": 1e400}]',
    "too many digits": f'[{{"do": "set", "path": "x", "value": {"9" * 5000}}}]',
    "half a character": '[{"do": "remove", "path": "x", "models": ["\\ud800"]}]',
    "no character": '[{"do": "set", "path": "x", "value": {"a\\u0000": 1}}]',
    "too deep": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("bad", NO_JSON.values(), ids=NO_JSON)
def test_what_no_database_or_upstream_can_read_is_refused(staff: Client, channel: Channel, bad: str) -> None:
    form = filled(staff.get(page(channel)).content.decode(), overrides=bad, _save="1")
    answer = staff.post(page(channel), form)
    assert answer.status_code == 200 and "errorlist" in answer.content.decode()
    path = f"/admin/relay/channel/{channel.pk}/change/"
    form = filled(staff.get(path).content.decode(), overrides=bad, parameters=bad, form_key=None)
    answer = staff.post(path, form)
    assert answer.status_code == 200 and "errorlist" in answer.content.decode()
    channel.refresh_from_db()
    assert not channel.overrides and not channel.parameters


def test_a_backslash_before_u0000_is_a_text_like_any_other(staff: Client, channel: Channel) -> None:
    rules = [{"do": "set", "path": "x", "value": "\\u0000"}]
    form = filled(staff.get(page(channel)).content.decode(), overrides=json.dumps(rules), _save="1")
    assert staff.post(page(channel), form).status_code == 302
    channel.refresh_from_db()
    assert channel.overrides == rules


def test_a_long_request_is_compared_in_bounded_time(staff: Client, channel: Channel) -> None:
    """Each message differs, of nine thousand: compared line by line, that would take minutes."""
    said = [{"role": "user", "content": "x", "name": f"n{number}"} for number in range(9000)]
    rules = [{"do": "remove", "path": "messages.*.name"}, {"do": "set", "path": "seed", "value": 1}]
    body = json.dumps({"model": "public", "messages": said})
    text = shown(staff, channel, overrides=json.dumps(rules), api="chat.completions", model="public", body=body)
    assert '"name": "n8999"' in lines(text, "del") and '"seed": 1' in text


def test_overrides_are_saved_from_the_page_and_audited(staff: Client, channel: Channel) -> None:
    form = filled(staff.get(page(channel)).content.decode(), overrides=json.dumps(RULES), _save="1")
    assert staff.post(page(channel), form).status_code == 302
    channel.refresh_from_db()
    assert channel.overrides == RULES
    (event,) = AuditEvent.objects.filter(action="channel.change")
    assert event.target_name == "one" and "overrides" in event.detail["changes"]


def test_what_somebody_else_saved_is_not_overwritten(staff: Client, channel: Channel) -> None:
    form = filled(staff.get(page(channel)).content.decode(), overrides="[]", _save="1")
    Channel.objects.filter(pk=channel.pk).update(overrides=RULES)
    answer = staff.post(page(channel), form, follow=True)
    assert "Somebody else has changed the overrides" in html.unescape(answer.content.decode())
    channel.refresh_from_db()
    assert channel.overrides == RULES


def test_bad_rules_are_refused_by_both_forms_and_named(staff: Client, channel: Channel) -> None:
    bad = json.dumps([RULES[0], {"do": "set_header", "header": "Authorization", "value": "Bearer x"}])
    form = filled(staff.get(page(channel)).content.decode(), overrides=bad, _save="1")
    text = html.unescape(staff.post(page(channel), form).content.decode())
    assert "Rule 2" in text and "Authorization" in text
    path = f"/admin/relay/channel/{channel.pk}/change/"
    answer = staff.post(path, filled(staff.get(path).content.decode(), overrides=bad, form_key=None))
    assert answer.status_code == 200 and "Rule 2" in html.unescape(answer.content.decode())
    channel.refresh_from_db()
    assert not channel.overrides
    add = "/admin/relay/channel/add/"
    key = '[{"do": "remove_header", "header": "x-goog-api-key"}]'
    form = filled(staff.get(add).content.decode(), name="two", provider="gemini", overrides=key, form_key=None)
    assert "Rule 1" in html.unescape(staff.post(add, form).content.decode())
    assert not Channel.objects.filter(name="two").exists()


def test_the_channels_form_keeps_and_changes_them(staff: Client, channel: Channel) -> None:
    path = f"/admin/relay/channel/{channel.pk}/change/"
    saved = staff.post(path, filled(staff.get(path).content.decode(), overrides=json.dumps(RULES), form_key=None))
    assert saved.status_code == 302
    channel.refresh_from_db()
    assert channel.overrides == RULES
    again = staff.get(path).content.decode()
    assert staff.post(path, filled(again, notes="x", form_key=None)).status_code == 302
    channel.refresh_from_db()
    assert channel.overrides == RULES and channel.notes == "x"
    changes = [event.detail.get("changes", {}) for event in AuditEvent.objects.filter(action="channel.change")]
    assert ["overrides" in one for one in changes].count(True) == 1


def test_a_copy_has_them_too(staff: Client, channel: Channel) -> None:
    Channel.objects.filter(pk=channel.pk).update(overrides=RULES)
    assert staff.post(f"/admin/relay/channel/{channel.pk}/copy/").status_code == 302
    assert Channel.objects.get(name="one (2)").overrides == RULES


def test_newest_requests_are_offered_to_those_who_may_see_requests(
    staff: Client, channel: Channel, people: People
) -> None:
    from django.utils import timezone

    from relay.models import UsageRecord

    UsageRecord.objects.create(
        request_id="req_" + "a" * 32,
        user=people.owner,
        channel=channel,
        model="public",
        upstream_model="vendor/real",
        endpoint="responses",
        streamed=True,
        started_at=timezone.now(),
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=5,
    )
    text = html.unescape(staff.get(page(channel)).content.decode())
    assert "responses · public · stream" in text and '"input": "Say hello."' in text
    other = clerk("view_channel", "change_channel").get(page(channel)).content.decode()
    assert "responses · public" not in html.unescape(other)


def test_who_may_open_and_save_it(channel: Channel, people: People) -> None:
    form = {"overrides": json.dumps(RULES), "api": "chat.completions", "model": "m", "body": "", "was": "[]"}
    for client in (signed_in(people.owner), Client(), clerk("view_channel")):
        assert client.get(page(channel)).status_code in {302, 403}
        assert client.post(page(channel), {**form, "_save": "1"}).status_code in {302, 403}
    channel.refresh_from_db()
    assert not channel.overrides
