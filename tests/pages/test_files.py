"""The page of files."""

from __future__ import annotations

from typing import Any

import pytest

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
