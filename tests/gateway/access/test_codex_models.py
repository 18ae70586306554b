"""Which catalogue of models Codex is told of, in the headers of answers."""

from __future__ import annotations

from relay.models import Model
from tests.support.money import PRICE
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

CODEX = {"originator": "codex_exec", "user-agent": "codex_exec/0.171.0"}
CATALOGUE = "/v1/models?client_version=0.171.0"


def told(server: Server, token: str, model: str, **headers: str) -> str | None:
    """The tag on the answer to one request."""
    body = {"model": model, "input": "x", "max_output_tokens": 7}
    answer = server.post(token, body, path="/v1/responses", headers=headers)
    assert answer.status_code == 200, answer.text
    found: str | None = answer.headers.get("x-models-etag")
    return found


def test_answers_name_the_tag_of_the_catalogue(live: Portal, server: Server) -> None:
    user = live.user()
    model, other = (live.model(hello, price=PRICE, text_api="chat") for _ in range(2))
    token = live.token(user)
    narrow = live.token(user, models_allowed=[Model.objects.get(name=model)])
    server.catch_up()
    tag = server.get(token, CATALOGUE).headers["etag"]
    assert told(server, token, model, **CODEX) == tag == told(server, token, other, **CODEX)
    assert told(server, token, model) is None, "only Codex reads it"
    seen = told(server, narrow, model, **CODEX)
    assert seen == server.get(narrow, CATALOGUE).headers["etag"] != tag
    Model.objects.filter(name=other).update(context_window=64_000)
    Model.objects.get(name=other).save()
    server.catch_up()
    changed = told(server, token, model, **CODEX)
    assert changed == server.get(token, CATALOGUE).headers["etag"] != tag
    assert told(server, narrow, model, **CODEX) == seen, "it cannot call the other one"
