"""The OpenAPI document, and what Schemathesis finds with it: no 500, no answer that is not documented."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from django.core.cache import cache
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from relay.manage.urls import document
from tests.manage.scripts import make_key, world
from tests.support.portal import People
from tests.support.sessions import with_config

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = 12  # of each operation
SCHEMA: Any = schemathesis.openapi.from_dict(document())
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]


def send(case: Any, key: str, ids: dict[str, int]) -> Response:
    """What the portal answers to a request that was made up; its numbers are mostly those of rows that there are."""
    for where in (case.path_parameters, case.query, case.body):
        if isinstance(where, dict):
            for name, value in where.items():
                kind = KINDS.get(name) or (case.path.split("/")[3] if name == "pk" else "")
                if kind and isinstance(value, int) and value % 4:
                    where[name] = ids.get(kind, value)
    sent = case.as_transport_kwargs(base_url="http://testserver")
    request = httpx.Request(
        sent["method"], sent["url"], params=sent.get("params"), json=sent.get("json"), data=sent.get("data")
    )
    names = {str(name): str(value) for name, value in dict(sent.get("headers") or {}).items()}
    answer = Client(raise_request_exception=False).generic(
        request.method,
        request.url.raw_path.decode(),
        request.read(),
        content_type="application/json",
        headers={**names, "Authorization": f"Bearer {key}"},
    )
    found = httpx.Response(answer.status_code, headers=dict(answer.items()), content=answer.content, request=request)
    found.elapsed = TIME
    return Response.from_any(found)


TIME = timedelta(0)
KINDS = {
    "user": "users",
    "model": "models",
    "channel": "channels",
    "group": "groups",
    "token": "tokens",
    "batch": "redemption-batches",
    "api_key": "keys",
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method.upper()} {one.path}")
def test_whatever_is_sent_the_answer_is_documented(
    operation: Any, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.clear()
    monkeypatch.setattr("relay.manage.resources.routes._look_up_prices", lambda *_: None)
    monkeypatch.setattr("relay.manage.actions.health_checks.test_channel", lambda *_: Tested())
    ids, key = world(people.staff), make_key(people.staff)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def attack(case: Any) -> None:
        case.validate_response(send(case, key, ids), checks=CHECKS)

    attack()


class Tested:
    ok, message, latency_ms = True, "well", 5


def test_the_document_is_for_whom_the_settings_say(people: People, settings: Any) -> None:
    key = {"Authorization": f"Bearer {make_key(people.staff)}"}
    for openapi, anybody, staff in (("public", 200, 200), ("tokens", 401, 200), ("off", 404, 404)):
        with_config(settings, openapi=openapi)
        assert Client().get("/api/v1/openapi.json").status_code == anybody
        assert Client().get("/api/v1/openapi.json", headers=key).status_code == staff
