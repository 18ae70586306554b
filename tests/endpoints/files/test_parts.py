"""Files that come in parts."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_a_file_that_comes_in_parts(sdk: OpenAI, live: Portal) -> None:
    from relay.models import Upload
    from relay.storage import files

    made = sdk.uploads.create(bytes=10, filename="b.txt", mime_type="text/plain", purpose="user_data")
    assert made.status == "pending" and made.expires_at > time.time() + 3000
    one, two = sdk.uploads.parts.create(made.id, data=b"56789"), sdk.uploads.parts.create(made.id, data=b"01234")
    assert sdk.files.list().data == []  # parts are nobody's files
    parts = [
        files.path_of(name)
        for name in Upload.objects.filter(session__upload_id=made.id).values_list("storage_name", flat=True)
    ]
    assert len(parts) == 2 and all(path.exists() for path in parts)
    done = sdk.uploads.complete(made.id, part_ids=[two.id, one.id], md5=hashlib.md5(b"0123456789").hexdigest())
    assert (
        done.status == "completed" and done.file is not None and sdk.files.content(done.file.id).read() == b"0123456789"
    )
    assert not Upload.objects.filter(session__upload_id=made.id).exists() and not any(path.exists() for path in parts)
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.parts.create(made.id, data=b"x")
    assert (
        sdk.uploads.upload_file_chunked(
            file=b"x" * 3000, filename="c.txt", bytes=3000, mime_type="text/plain", purpose="user_data", part_size=1000
        ).status
        == "completed"
    )


def test_parts_that_do_not_make_up_the_file(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Upload

    made = sdk.uploads.create(bytes=6, filename="b.txt", mime_type="text/plain", purpose="user_data")
    part = sdk.uploads.parts.create(made.id, data=b"012")
    body: Any
    for body in (
        {"part_ids": [part.id]},
        {"part_ids": ["part_x"]},
        {"part_ids": [part.id, part.id]},
        {"part_ids": []},
        {},
    ):
        assert server.post(sdk.api_key, body, path=f"/v1/uploads/{made.id}/complete").status_code == 400
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.parts.create(made.id, data=b"3456")
    rest = sdk.uploads.parts.create(made.id, data=b"345")
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.complete(made.id, part_ids=[part.id, rest.id], md5="0" * 32)
    assert server.post(live.token(), {"part_ids": [part.id]}, path=f"/v1/uploads/{made.id}/complete").status_code == 404
    assert sdk.uploads.cancel(made.id).status == "cancelled"
    assert not Upload.objects.filter(session__upload_id=made.id).exists()
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.complete(made.id, part_ids=[part.id])


def test_an_upload_that_is_forgotten_expires(sdk: OpenAI) -> None:
    from portal.lib import clock
    from relay.models import Upload, UploadSession
    from relay.storage import files_check

    made = sdk.uploads.create(bytes=6, filename="b.txt", mime_type="text/plain", purpose="user_data")
    sdk.uploads.parts.create(made.id, data=b"012")
    UploadSession.objects.filter(upload_id=made.id).update(expires_at=clock.now())
    files_check.sweep()
    assert not Upload.objects.filter(session__upload_id=made.id).exists()
    assert UploadSession.objects.get(upload_id=made.id).status == "expired"
