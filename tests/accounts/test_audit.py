"""The audit log."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from django.contrib import admin
from django.utils import translation

from accounts import audit_words
from accounts.models import AuditEvent
from accounts.models.audit import Unchangeable
from accounts.signals import _AUDITED
from relay.models import ApiKey, Channel, Model
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_changes_are_in_the_audit_log_with_before_and_after_and_no_secret(people: People) -> None:
    staff = signed_in(people.staff)
    channel = Channel.objects.create(name="main", provider="openai", weight=2)
    key = ApiKey(channel=channel)
    key.set_secret("sk-the-old-secret-0123456789")
    key.save()
    page = staff.get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    form = {
        name: value
        for name, value in re.findall(r'name="([^"]+)"[^>]*value="([^"]*)"', page)
        if not name.startswith("_")
    }
    form |= {
        "name": "main",
        "provider": "openai",
        "weight": "7",
        "enabled": "on",
        "keys-0-secret": "sk-the-new-secret-9876543210",
        "parameters": "{}",
        "disconnect_policy": "delivered",
        "key_strategy": "random",
        "retry_unanswered": "broken",
        "keys-0-enabled": "on",
        "text_api": "",
    }
    answer = staff.post(f"/admin/relay/channel/{channel.pk}/change/", form)
    assert answer.status_code == 302, re.findall(r"errorlist.*?</ul>", answer.content.decode(), re.S)
    event = AuditEvent.objects.filter(action="channel.change").latest("pk")
    assert event.actor == people.staff and event.detail["changes"]["weight"] == [2, 7]
    row = event.detail["rows"][0]
    assert row["did"] == "change" and row["changes"]["sealed"] == ["••••••", "••••••"]
    assert "secret-0123" not in json.dumps(event.detail) and "secret-9876" not in json.dumps(event.detail)
    shown = staff.get(f"/admin/accounts/auditevent/{event.pk}/change/").content.decode()
    assert "weight" in shown and "Before" in shown and "••••••" in shown
    for method in ("post", "delete"):
        getattr(staff, method)(f"/admin/accounts/auditevent/{event.pk}/change/", {"action": "x"})
    assert AuditEvent.objects.get(pk=event.pk).action == "channel.change"
    with pytest.raises(Unchangeable):
        event.save()
    with pytest.raises(Unchangeable):
        AuditEvent.objects.filter(pk=event.pk).delete()


def test_the_audit_log_is_said_in_words(people: People) -> None:
    """Every action that the code writes, in both languages, and fields by the names that forms give them."""
    written = {str(action) for action in _AUDITED.values()} | {
        f"{group}.limited"
        for group in re.findall(r'(?:throttled|guarded)\(\s*[\w.]+, "([a-z-]+)"', Path("accounts/urls.py").read_text())
    }
    written |= {
        f"{model._meta.model_name}.{did}" for model in admin.site._registry for did in ("add", "change", "delete")
    }
    for path in [path for folder in ("accounts", "relay", "portal") for path in Path(folder).rglob("*.py")]:
        for call in (
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ):
            if ast.unparse(call.func) == "AuditEvent.write":
                written |= {
                    part.value
                    for part in ast.walk(call.args[0])
                    if isinstance(part, ast.Constant)
                    and isinstance(part.value, str)
                    and re.fullmatch("[a-z.-]+", part.value)
                }
            elif ast.unparse(call.func) == "self.switch":
                written |= {
                    part.value
                    for part in ast.walk(call.args[-1])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    written = {action for action in written if action == action.strip(".")} | {
        "sign-in-provider.add",
        "sign-in-provider.change",
    }
    assert {
        "token.reveal",
        "setup",
        "sign-in.limited",
        "channel.disable",
        "price.create",
        "second-factor.add",
    } <= written and len(written) > 100
    assert not [action for action in written if audit_words.action_label(action) == action]
    with translation.override("zh-hans"):
        assert not [
            action
            for action in written
            if not re.search("[\u4e00-\u9fff]", audit_words.action_label(action))
            or re.search("[a-z]{4}", audit_words.action_label(action))
        ]
        assert (
            audit_words.field_label("channel", "priority") == "优先级"
            and audit_words.field_label("", "reason") == "原因"
        )
    AuditEvent.write("wallet.top-up", people.staff, people.owner, "203.0.113.9", usd="40", reason="Welcome")
    AuditEvent.write(
        "channel.change",
        people.staff,
        None,
        None,
        changes={"priority": [1, 2], "sealed": ["••••••", "••••••"]},
        rows=[{"kind": "apikey", "row": "k1", "did": "delete"}],
    )
    page = signed_in(people.staff).get("/admin/accounts/auditevent/").content.decode()
    assert (
        "Balance: topped up" in page
        and "US dollars: 40, reason: Welcome" in page
        and "API key k1: deleted" in page
        and "203.0.113.9" in page
    )


def test_lists_that_are_edited_in_place_and_deletions_are_audited(people: People) -> None:
    staff = signed_in(people.staff)
    model = Model.objects.create(name="m")
    form = {
        "form-TOTAL_FORMS": 1,
        "form-INITIAL_FORMS": 1,
        "form-MIN_NUM_FORMS": 0,
        "form-MAX_NUM_FORMS": 1000,
        "form-0-id": model.pk,
        "form-0-is_open": "on",
        "form-0-enabled": "on",
        "_save": "Save",
    }
    staff.post("/admin/relay/model/?q=m", form)
    assert AuditEvent.objects.filter(action="model.change").latest("pk").detail["changes"] == {"is_open": [False, True]}
    staff.post(f"/admin/relay/model/{model.pk}/delete/", {"post": "yes"})
    assert AuditEvent.objects.filter(action="model.delete", target_name="m").exists()
