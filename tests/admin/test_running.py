"""Running requests in the admin: seen and ended."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from django.test import Client

from tests.support.asserts import until
from tests.support.portal import People, Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in
from tests.support.streams import running
from tests.support.upstream import Call, endless

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("stream", [True, False])
def test_a_running_request_is_seen_and_ended_on_another_worker(live: Portal, server: Server, stream: bool) -> None:
    """This process is not the one that serves: like another worker it knows only the database."""
    from accounts.models import AuditEvent

    async def slow(call: Call) -> None:
        await call.closed_event()

    model = live.model(endless if stream else slow)
    owner = live.user()
    token = live.token(owner)
    boss = signed_in(live.user(is_staff=True, is_superuser=True))
    server.catch_up()
    answer: dict[str, Any] = {}

    def plain() -> None:
        answer["response"] = httpx.post(
            server.url + "/v1/chat/completions",
            json=ask(model),
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def end_it() -> str:
        boss.get("/admin/running/")
        row = until(lambda: next((row for row in _rows(boss) if row["model"] == model), None))
        assert row["user"] == owner.username and row["streamed"] is stream and row["channel"].startswith("channel-")
        page = boss.get(f"/admin/running/{row['id']}/end/")
        assert page.status_code == 200 and row["id"] in page.content.decode()
        assert boss.post(f"/admin/running/{row['id']}/end/").status_code == 302
        return str(row["id"])

    if stream:
        with running(server, token, model) as found:
            until(
                lambda: (
                    next((row for row in _rows(boss) if row["model"] == model and row["output"] > 0), None)
                    or (boss.get("/admin/running/") and None)
                )
            )
            request_id = end_it()
        last = json.loads(found["text"].strip().rsplit("data: ", 1)[1])
        assert (
            last["error"]["code"] == "request_ended"
            and "administrator" in last["error"]["message"]
            and "[DONE]" not in found["text"]
        )
    else:
        thread = threading.Thread(target=plain)
        thread.start()
        until(lambda: live.upstream.count(model))
        request_id = end_it()
        thread.join()
        assert answer["response"].status_code == 403 and answer["response"].json()["error"]["code"] == "request_ended"
    live.upstream.wait_closed(model)
    assert live.record(request_id).end_reason == "ended"
    assert AuditEvent.objects.get(action="request.end", detail__request_id=request_id).actor is not None


def _rows(client: Client) -> list[dict[str, Any]]:
    from relay.usage.running import running_requests

    client.get("/admin/running/")
    return running_requests().rows


def test_what_waits_at_a_worker_and_what_it_refused_is_shown(people: People) -> None:
    from portal.lib import clock
    from relay.models import Worker

    state = {"running": 3, "rss_mib": 100, "stopping": True, "database": {"waiting": 7, "refused": 12}}
    state |= {"upstream_waiting": 4, "upstream_refused": 5}
    name, now = "w" * 32, clock.now()
    Worker.objects.create(name=name, host="a", pid=1, started_at=now, seen_at=now, state=state)
    page = signed_in(people.staff).get("/admin/running/").content.decode()
    said = " ".join(page.split())
    assert (
        "3 running, 100 MiB, waiting for an upstream connection: 4, refused for lack of an upstream connection: 5, "
        "waiting for the database: 7, refused because the database did not answer: 12, stopping"
    ) in said


def test_running_requests_are_for_those_who_may_end_them(people: People) -> None:
    from accounts.models import User
    from relay.models import UsageRecord

    clerk = User.objects.create_user("clerk", password="a long password", is_staff=True)
    for path in ("/admin/running/", "/admin/running/req_" + "0" * 32 + "/end/"):
        assert signed_in(people.owner).get(path).status_code == 302, "to the sign-in of staff"
        assert signed_in(clerk).get(path).status_code == 403
        assert signed_in(people.staff).get(path).status_code == 200
    assert signed_in(people.staff).get("/admin/running/req_x/end/").status_code == 404
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType

    clerk.user_permissions.add(
        Permission.objects.get(codename="end_request", content_type=ContentType.objects.get_for_model(UsageRecord))
    )
    assert signed_in(clerk).get("/admin/running/").status_code == 200
