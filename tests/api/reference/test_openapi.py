"""The OpenAPI document is true, and shown to whom the setting says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from relay.api.reference.openapi import operations
from relay.api.reference.schemas import SHAPES
from relay.api.urls import api, reference
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.upstream import hello


def test_every_operation_is_described_and_no_other() -> None:
    names = [operation.name for operation in operations(api)]
    assert sorted(names) == sorted(SHAPES) and len(names) == len(set(names))
    document = reference()
    assert document["openapi"].startswith("3.1") and len(document["paths"]) > 30
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert {"401", "429", "503"} <= set(operation["responses"]) and operation["summary"], path
            worked = "201" if operation["operationId"] == "create_call" else "200"
            for content in operation["responses"][worked]["content"].values():
                Draft202012Validator.check_schema(content["schema"])


def validator(path: str, method: str) -> Any:
    schema = reference()["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
    return Draft202012Validator(schema)


def test_answers_are_as_the_document_says(live: Portal, server: Server) -> None:
    model, token = live.model(hello, text_api="chat"), live.token()
    validator("/v1/models", "get").validate(server.get(token, "/v1/models").json())
    validator("/v1/models/{name}", "get").validate(server.get(token, f"/v1/models/{model}").json())
    validator("/v1/chat/completions", "post").validate(server.post(token, ask(model)).json())
    made = server.post(token, {"model": model, "input": "x"}, path="/v1/responses").json()
    validator("/v1/responses", "post").validate(made)
    validator("/v1/responses/{response_id}", "get").validate(server.get(token, f"/v1/responses/{made['id']}").json())
    validator("/v1/responses/{response_id}/input_items", "get").validate(
        server.get(token, f"/v1/responses/{made['id']}/input_items").json()
    )
    validator("/v1/files", "get").validate(server.get(token, "/v1/files").json())
    validator("/v1/batches", "get").validate(server.get(token, "/v1/batches").json())
    validator("/v1/conversations", "post").validate(server.post(token, {}, path="/v1/conversations").json())
    validator("/v1/realtime/client_secrets", "post").validate(
        server.post(token, {}, path="/v1/realtime/client_secrets").json()
    )


def test_only_with_a_token_unless_the_setting_says_otherwise(live: Portal, server: Server, tmp_path: Path) -> None:
    assert server.get(live.token(), "/v1/openapi.json").json() == reference()
    assert server.get("sk-wrong", "/v1/openapi.json").status_code == 401
    for setting, status in (("public", 200), ("off", 404)):
        with serving(tmp_path / setting, env={"AIRELAYS_OPENAPI": setting}) as running:
            assert running.get("none", "/v1/openapi.json").status_code == status
            assert running.get("none", "/docs/").status_code == status
