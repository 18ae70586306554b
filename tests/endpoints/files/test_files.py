"""The life of a file: stored, listed, read, deleted, seen by its user alone."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_stored_listed_read_and_deleted(sdk: OpenAI, server: Server) -> None:
    made = sdk.files.create(file=("données é.jsonl", b'{"a":1}\n'), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status, made.object) == (
        8,
        "données é.jsonl",
        "batch",
        "processed",
        "file",
    )
    assert sdk.files.retrieve(made.id).bytes == 8
    answer = httpx.get(
        f"{server.url}/v1/files/{made.id}/content",
        headers={"authorization": f"Bearer {sdk.api_key}"},
        trust_env=False,
        timeout=60,
    )
    assert (
        answer.content == b'{"a":1}\n'
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["content-length"] == "8"
    )
    assert (
        answer.headers["content-disposition"].startswith("attachment")
        and "donn%C3%A9es" in answer.headers["content-disposition"]
    )
    assert sdk.files.delete(made.id).deleted
    for call in (
        lambda: sdk.files.retrieve(made.id),
        lambda: sdk.files.content(made.id),
        lambda: sdk.files.delete(made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()


@pytest.mark.parametrize("purpose", ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"])
def test_every_purpose(sdk: OpenAI, purpose: Any) -> None:
    assert sdk.files.create(file=io.BytesIO(b"abc"), purpose=purpose).purpose == purpose


def test_html_is_never_shown_as_a_page(sdk: OpenAI, server: Server) -> None:
    made = sdk.files.create(file=("a.html", b"<script>alert(1)</script>", "text/html"), purpose="user_data")
    answer = httpx.get(
        f"{server.url}/v1/files/{made.id}/content",
        headers={"authorization": f"Bearer {sdk.api_key}"},
        trust_env=False,
        timeout=60,
    )
    assert (
        answer.headers["content-type"] == "text/html"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.headers["x-content-type-options"] == "nosniff"
    )


def test_pages_of_a_list(sdk: OpenAI) -> None:
    ids = [
        sdk.files.create(file=(f"{number}", b"x"), purpose="user_data" if number % 2 else "vision").id
        for number in range(5)
    ]
    first = sdk.files.list(limit=2)
    assert [entry.id for entry in first.data] == ids[:2:-1] and first.has_more is True
    assert [entry.id for entry in sdk.files.list(limit=2)] == ids[::-1]  # the SDK follows the cursor
    assert [entry.id for entry in sdk.files.list(order="asc", after=ids[1])] == ids[2:]
    assert [entry.id for entry in sdk.files.list(purpose="vision")] == ids[::-2]
    sdk.files.delete(ids[2])
    assert [entry.id for entry in sdk.files.list(after=ids[2])] == [
        ids[1],
        ids[0],
    ]  # a deleted file is still a place in the list
    for query in ({"limit": 0}, {"limit": 10001}, {"order": "x"}, {"after": "nonsense"}):
        with pytest.raises(openai.BadRequestError):
            sdk.files.list(**query)


def test_a_file_expires(sdk: OpenAI, live: Portal) -> None:
    from portal.lib import clock
    from relay.models import Upload
    from relay.storage import files, files_check

    made = sdk.files.create(
        file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    row = Upload.objects.get(file_id=made.id)
    assert row.expires_at is not None and abs(row.expires_at - clock.now() - timedelta(hours=1)) < timedelta(minutes=1)
    Upload.objects.filter(pk=row.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(made.id)
    files_check.sweep()
    assert not files.path_of(row.storage_name).exists() and not Upload.objects.filter(pk=row.pk).exists()
    with pytest.raises(openai.BadRequestError):
        sdk.files.create(file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 10})


def test_nobody_else_sees_a_file(sdk: OpenAI, live: Portal, server: Server) -> None:
    made = sdk.files.create(file=("a", b"secret"), purpose="user_data")
    for stranger in (live.token(), live.token(live.user(is_staff=True, is_superuser=True))):
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            assert server.request(method, stranger, f"/v1/files/{made.id}{path}").status_code == 404
        assert made.id not in server.get(stranger, "/v1/files").text
    assert sdk.files.content(made.id).read() == b"secret"


def test_a_name_that_no_header_can_carry(sdk: OpenAI, server: Server) -> None:
    made = sdk.uploads.create(
        bytes=1, filename="a\r\nx-evil: 1\u0000\u202e.txt", mime_type="text/plain", purpose="user_data"
    )
    done = sdk.uploads.complete(made.id, part_ids=[sdk.uploads.parts.create(made.id, data=b"x").id])
    assert done.file is not None and done.file.filename == "ax-evil: 1.txt"
    answer = server.get(sdk.api_key, f"/v1/files/{done.file.id}/content")
    assert answer.status_code == 200 and "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/%00",
        "/v1/responses/a%00b",
        "/v1/batches/%00",
        "/v1/conversations/%00",
        "/v1/files?after=file-%00",
        "/v1/files?purpose=%00",
        "/v1/files/" + "x" * 4000,
    ],
)
def test_ids_that_no_database_can_hold(sdk: OpenAI, server: Server, path: str) -> None:
    assert server.get(sdk.api_key, path).status_code in {200, 400, 404}
