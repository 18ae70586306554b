"""The page of files."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.storage.files import path_of
from tests.support.portal import People, stored_for

pytestmark = pytest.mark.shared


def test_the_page_of_files_is_ones_own(people: People, client: Any) -> None:
    mine, theirs = stored_for(people.owner), stored_for(people.other, "theirs.txt")
    assert client.get("/storage/").status_code == 302
    client.force_login(people.owner)
    page = client.get("/storage/").content.decode()
    assert mine.file_id in page and theirs.file_id not in page
    assert (
        client.post(f"/storage/{theirs.file_id}/delete/").status_code == 404
        and client.get(f"/storage/{mine.file_id}/delete/").status_code == 405
    )
    client.force_login(people.staff)
    assert client.post(f"/storage/{mine.file_id}/delete/").status_code == 404
    client.force_login(people.owner)
    assert client.post(f"/storage/{mine.file_id}/delete/").status_code == 302
    assert mine.file_id not in client.get("/storage/").content.decode()


async def _read(answer: Any) -> bytes:
    return b"".join([block async for block in answer.streaming_content])


def test_a_file_is_downloaded_by_its_owner_alone(people: People, client: Any) -> None:
    mine = stored_for(people.owner, 'a "b"\r\n<c>.html')
    path = f"/storage/{mine.file_id}/content/"
    assert client.post(path).status_code == 302  # to sign in
    for stranger in (people.other, people.staff):
        client.force_login(stranger)
        assert client.post(path).status_code == 404
    client.force_login(people.owner)
    assert client.get(path).status_code == 405
    answer = client.post(path)
    assert answer.status_code == 200 and answer["content-type"] == "application/octet-stream"
    assert answer["content-disposition"].startswith("attachment;") and answer["x-content-type-options"] == "nosniff"
    assert asyncio.run(_read(answer)) == b"abc" and answer["content-length"] == "3"
    path_of(mine.storage_name).unlink()
    gone = client.post(path, follow=True)
    assert gone.redirect_chain == [("/storage/", 302)] and "cannot be read" in gone.content.decode()


@pytest.mark.parametrize(
    ("limit", "said"),
    [("max_total_upload_bytes", "files of all users"), ("max_user_stored_bytes", "take up room as well")],
)
def test_the_page_says_what_is_really_left(people: People, client: Any, settings: Any, limit: str, said: str) -> None:
    from relay.storage import files

    stored_for(people.owner)
    stored_for(people.other, "theirs.txt")
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_upload_bytes": 1 << 20, limit: 2048 + 512 + 6})
    left = files.free_room(people.owner.pk).least
    assert 2048 <= left < 2600
    client.force_login(people.owner)
    page = client.get("/storage/")
    assert page.context["left"] == page.context["largest"] == left and page.context["room"] == left + 3
    assert said in page.content.decode()
    settings.CONFIG = settings.CONFIG.model_copy(update={limit: 1})
    page = client.get("/storage/")
    assert page.context["left"] == 0 and page.context["share"] == 100


def test_the_page_says_how_far_a_batch_is_and_what_it_waits_for(people: People, client: Any) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import Batch
    from relay.storage import batches
    from relay.tokens.lifecycle import create_token

    mine, theirs = (
        batches.create_batch(user.pk, create_token(user, "b", actor=user)[0].pk, "/v1/embeddings", "file-1", None, None)
        for user in (people.owner, people.other)
    )
    later = clock.now() + timedelta(hours=2)
    Batch.objects.all().update(
        status="in_progress", total=5000, succeeded=1234, failed=5, waits_for="budget", waits_until=later
    )
    client.force_login(people.owner)
    page = client.get("/storage/").content.decode()
    assert mine.batch_id in page and theirs.batch_id not in page and "1,234" in page and "5,000" in page
    assert "Waits for the renewal of a budget." in page and "Expected at" in page and "at the latest" in page
    assert "正在等待：预算的更新。" in client.get("/storage/", headers={"accept-language": "zh-hans"}).content.decode()
    Batch.objects.all().update(waits_for="", waits_until=None, ends_about=later)
    page = client.get("/storage/").content.decode()
    assert "Probably done at" in page and "Waits for" not in page
    client.force_login(people.staff)
    assert mine.batch_id not in client.get("/storage/").content.decode()
    Batch.objects.all().update(waits_for="operator")
    page = client.get("/admin/relay/batch/").content.decode()
    assert "a channel that can serve its model" in page and "≈" in page and "1234 + 5" in page
    Batch.objects.all().update(status="completed", ends_about=None)
    assert "a channel that can serve its model;" not in client.get("/admin/relay/batch/").content.decode()
    Batch.objects.all().delete()
