"""Failure rules that no form would save, such as one whose class a later version no longer has."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from relay.gateway.snapshot.load import load_snapshot
from relay.models import FailureRule
from relay.models import failure_rule as module
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call

WRONG = [({"failure_class": "nonsense"}, "no class “nonsense”"), ({"text": "(", "failure_class": "rate"}, "regular")]


@pytest.mark.parametrize(("members", "why"), WRONG)
def test_a_rule_that_cannot_be_used_is_left_out_and_logged_once(
    db: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, members: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(module, "_logged", set())
    wrong = FailureRule.objects.create(**{"word": "odd", **members})
    FailureRule.objects.create(word="nap_time", failure_class="overload")
    FailureRule.objects.create(word="off", failure_class="nonsense", enabled=False)
    with caplog.at_level(logging.ERROR):
        for _time in range(2):
            assert [rule.kind.word for rule in load_snapshot().rules] == ["overload"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and f"failure rule {wrong.pk} is not used" in told[0] and why in told[0]
    assert "Failure rules" in told[0], "what to do"


def test_the_front_page_of_the_administration_names_it(db: None, staff: Client) -> None:
    wrong = FailureRule.objects.create(word="odd", failure_class="nonsense")
    page = staff.get(reverse("admin:index")).content.decode()
    assert "odd" in page and "is not used" in page
    assert reverse("admin:relay_failurerule_change", args=[wrong.pk]) in page
    assert staff.get(reverse("admin:relay_failurerule_change", args=[wrong.pk])).status_code == 200
    assert staff.get(reverse("admin:relay_failurerule_changelist")).status_code == 200


def test_requests_are_served_and_the_other_rules_hold(live: Portal, server: Server) -> None:
    async def odd(call: Call) -> None:
        await call.error(400, "Our cluster naps until tomorrow", "nap_time")

    wrong = FailureRule.objects.create(word="odd", failure_class="nonsense")
    ordered = FailureRule.objects.create(status=400, word="nap_time", failure_class="overload")
    try:
        assert server.post(live.token(), ask(live.model(odd))).status_code == 503
        assert server.post(live.token(), ask(live.model())).status_code == 200
    finally:
        wrong.delete()
        ordered.delete()
