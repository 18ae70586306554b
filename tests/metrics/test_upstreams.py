"""What the metrics say of channels and their keys."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.lib import clock
from portal.metrics.upstreams import _open_circuits, _read
from relay.gateway.routing.circuit_breaker import Circuit, CircuitBreaker
from relay.models import ApiKey, Channel


def test_channels_keys_and_balances(db: None) -> None:
    one = Channel.objects.create(name="One", provider="openai", base_url="https://one.example.com")
    two = Channel.objects.create(name="Two", provider="openai", base_url="https://two.example.com", enabled=False)
    given: list[tuple[Channel, dict[str, Any]]] = [
        (one, {"balance": Decimal("2.50"), "balance_currency": "USD"}),
        (one, {"balance": Decimal("1.25"), "balance_currency": "USD", "auto_disabled_at": clock.now()}),
        (one, {"balance": Decimal(7), "balance_currency": "CNY", "enabled": False}),
        (two, {"enabled": False, "auto_disabled_at": clock.now()}),
    ]
    for number, (channel, values) in enumerate(given):
        key = ApiKey(channel=channel)
        key.set_secret(f"sk-of-a-test-that-counts-keys-{number}")
        key.save()
        ApiKey.objects.filter(pk=key.pk).update(**values)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        found = _read()
    assert len(asked) == 3, "however many keys there are"
    assert found.names == {one.pk: "One", two.pk: "Two"}
    assert sorted(found.balances) == [(one.pk, "CNY", 7.0), (one.pk, "USD", 3.75)]
    assert found.channels == {"enabled": 1, "disabled": 1}
    assert found.keys == {"enabled": 1, "out_of_service": 1, "disabled": 2}


def test_circuits_that_are_open() -> None:
    breaker = CircuitBreaker()
    breaker.circuits = {
        (1, 2, 3): Circuit(until=200.0, kind="rate"),
        (1, 2, 4): Circuit(until=200.0, kind="rate"),
        (1, 0, 3): Circuit(until=200.0, kind="overload"),
        (5, 6, 0): Circuit(until=50.0, kind="rate"),
        (5, 7, 0): Circuit(kind="rate"),
    }
    assert _open_circuits(breaker, 100.0) == ({"rate": 2, "overload": 1}, 1)
