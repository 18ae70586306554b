"""A user's room, which everything that is stored for the user shares, and the limits of requests for such objects."""

from __future__ import annotations

import httpx
import pytest

from relay.models import Upload
from tests.support.asserts import check
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


def test_every_path_that_stores_asks_for_room(live: Portal, server: Server) -> None:
    user = live.user()
    token, model = live.token(user), live.model(hello, text_api="chat")
    headers = {"authorization": f"Bearer {token}"}
    talk = server.post(token, {}, path="/v1/conversations").json()["id"]
    whole = Upload.objects.create(
        file_id=f"file-{user.pk}", user=user, filename="a", purpose="batch", content_type="", size=1 << 30, sha256="",
        storage_name=f"full{user.pk}", state="stored",
    )  # fmt: skip

    def full(answer: httpx.Response) -> None:
        check(answer, 413, "invalid_request_error", "storage_quota_exceeded")

    item = {"items": [{"role": "user", "content": "hello"}]}
    full(server.post(token, item, path="/v1/conversations"))
    full(server.post(token, {"metadata": {"a": "b"}}, path="/v1/conversations"))
    full(server.post(token, item, path=f"/v1/conversations/{talk}/items"))
    full(server.post(token, {"metadata": {"a": "b" * 500}}, path=f"/v1/conversations/{talk}"))
    for more in ({"store": True}, {"background": True}, {"conversation": talk}):
        full(server.post(token, {"model": model, "input": "hi", **more}, path="/v1/responses"))
    assert live.upstream.count(model) == 0
    batch = {"endpoint": "/v1/embeddings", "input_file_id": f"file-{user.pk}", "completion_window": "24h"}
    full(server.post(token, batch, path="/v1/batches"))
    upload = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
    full(server.post(token, upload, path="/v1/uploads"))
    full(
        server.request(
            "POST", token, "/v1/files", files={"file": ("a.txt", b"a", "text/plain")}, data={"purpose": "user_data"}
        )
    )
    # What nobody has asked to be stored is answered, and said not to be stored.
    answer = httpx.post(f"{server.v1}/responses", json={"model": model, "input": "hi"}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-airelays-ignored-parameters"] == "store"
    found = server.get(token, f"/v1/responses/{answer.json()['id']}")
    check(found, 404, "invalid_request_error", "not_found", "response_id")
    whole.delete()  # it would fill the room that all users share
    other = live.token()
    assert server.post(other, {"model": model, "input": "hi"}, path="/v1/responses").status_code == 200
    assert server.post(other, item, path="/v1/conversations").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/none"),
        ("GET", "/v1/responses/none"),
        ("GET", "/v1/files"),
        ("POST", "/v1/uploads"),
        ("GET", "/v1/batches"),
    ],
)
def test_requests_for_stored_objects_count_against_the_limits(
    live: Portal, server: Server, method: str, path: str
) -> None:
    token = live.token(live.user(max_rpm=1))
    first = server.request(method, token, path)
    assert first.status_code != 429 and first.headers["x-ratelimit-remaining-requests"] == "0"
    check(server.request(method, token, path), 429, "rate_limit_error", "rate_limit_exceeded")
