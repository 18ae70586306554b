"""Files and batches in the admin."""

from __future__ import annotations

from typing import Any

import pytest

from portal.lib import clock
from relay.models import Conversation, ConversationItem, StoredResponse
from tests.support.portal import People, Portal, stored_for

pytestmark = pytest.mark.shared


def test_the_admin_cancels_batches(live: Portal, client: Any) -> None:
    from accounts.models import AuditEvent
    from relay.models import Batch
    from relay.storage import batches

    staff, user = live.user(is_staff=True, is_superuser=True), live.user()
    batch = batches.create_batch(user.pk, _token_of(live, user), "/v1/chat/completions", "file-x", None, None)
    Batch.objects.filter(pk=batch.pk).update(owner="elsewhere:1:1:x", lease_until=batch.expires_at)
    client.force_login(user)
    assert client.get("/admin/relay/batch/").status_code in {302, 403}
    client.force_login(staff)
    assert batch.batch_id in client.get("/admin/relay/batch/").content.decode()
    client.post("/admin/relay/batch/", {"action": "cancel_batches", "_selected_action": [batch.pk]})
    batch.refresh_from_db()
    assert batch.status == "cancelling" and AuditEvent.objects.filter(action="batch.cancel").exists()
    batch.delete()


def _token_of(live: Portal, user: Any) -> int:
    from relay.models import Token
    from relay.models.token import digest_of

    return Token.objects.get(digest=digest_of(live.token(user))).pk


def test_the_admin_lists_files_and_deletes_them_with_their_bytes(people: People, client: Any) -> None:
    from accounts.models import AuditEvent
    from relay.models import Upload
    from relay.storage import files

    mine = stored_for(people.owner)
    client.force_login(people.owner)
    assert client.get("/admin/relay/upload/").status_code in {302, 403}
    client.force_login(people.staff)
    assert "mine.txt" in client.get("/admin/relay/upload/").content.decode()
    answer = client.post(
        "/admin/relay/upload/", {"action": "delete_selected", "_selected_action": [mine.pk], "post": "yes"}
    )
    assert (
        answer.status_code == 302
        and not Upload.objects.filter(pk=mine.pk).exists()
        and not files.path_of(mine.storage_name).exists()
    )
    assert AuditEvent.objects.filter(action="upload.delete").exists()


def test_lists_of_what_is_kept_say_how_large_it_is(people: People, client: Any) -> None:
    now = clock.now()
    StoredResponse.objects.create(
        response_id="resp_1",
        user=people.owner,
        model="m",
        status="completed",
        input="x" * 200_000,
        created_at=now,
        expires_at=now,
    )
    conversation = Conversation.objects.create(
        conversation_id="conv_1", user=people.owner, created_at=now, expires_at=now
    )
    for number in range(3):
        ConversationItem.objects.create(conversation=conversation, item_id=f"msg_{number}", body="y" * 100_000)
    client.force_login(people.staff)
    assert "0.2 MiB" in client.get("/admin/relay/storedresponse/").content.decode()
    page = client.get("/admin/relay/conversation/").content.decode()
    assert "0.3 MiB" in page and ">3<" in page
