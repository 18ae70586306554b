"""Changes come into force on every worker, and at once in the process that made them."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import httpx
import pytest
from django.db import OperationalError

from relay.billing.ledger.writer import writer
from relay.gateway.snapshot.change_feed import FeedPoller
from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import NO_CERTIFICATES, Server, serving
from tests.support.sessions import csrf_of, sign_in

pytestmark = pytest.mark.shared


def processes_of(server: Server) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return sum(1 for child in children if b"workers/worker.py" in Path(f"/proc/{child}/cmdline").read_bytes())


def statuses(server: Server, token: str, body: dict[str, object]) -> set[int]:
    """One request on each of many new connections, so that every worker answers some."""

    def one(_: int) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.post(
            f"{server.v1}/chat/completions",
            json=body,
            headers=headers,
            timeout=20,
            trust_env=False,
            verify=NO_CERTIFICATES,
        ).status_code

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return set(pool.map(one, range(48)))


def test_every_worker_follows(live: Portal, tmp_path: Path) -> None:
    from relay.models import Channel, Model, Token
    from relay.tokens.lifecycle import revoke_token

    channel = live.channel()
    model, user = live.model(channels=[channel]), live.user()
    token = live.token(user)
    with serving(tmp_path / "log", "--workers", "2") as server:
        until(lambda: processes_of(server) == 2 and statuses(server, token, ask(model)) == {200})
        Model.objects.filter(name=model).update(is_open=False)
        until(lambda: statuses(server, token, ask(model)) == {403})
        row = Model.objects.get(name=model)
        row.is_open = True
        row.save()
        until(lambda: statuses(server, token, ask(model)) == {200})
        Channel.objects.filter(pk=channel.pk).update(enabled=False)
        until(lambda: statuses(server, token, ask(model)) == {503})
        Channel.objects.filter(pk=channel.pk).update(enabled=True)
        until(lambda: statuses(server, token, ask(model)) == {200})
        revoke_token(Token.objects.get(user=user), actor=None)
        until(lambda: statuses(server, token, ask(model)) <= {401, 429})  # 429: so many bad tokens block the address
        from relay.models import BlockedAddress

        BlockedAddress.objects.all().delete()


def test_change_in_the_admin_is_in_force_at_once_in_the_same_process(live: Portal, tmp_path: Path) -> None:
    """The poller of this server looks once a second, so that the immediate way comes first."""
    from relay.models import Model

    staff = live.user(is_staff=True, is_superuser=True)
    model, token = live.model(), live.token()
    row = Model.objects.get(name=model)
    with (
        serving(tmp_path / "log", env={"AIRELAYS_FEED_POLL_SECONDS": "1"}) as server,
        httpx.Client(trust_env=False, verify=NO_CERTIFICATES, timeout=20) as client,
    ):
        headers = {"authorization": f"Bearer {token}"}
        assert (
            httpx.post(
                f"{server.v1}/chat/completions",
                json=ask(model),
                headers=headers,
                trust_env=False,
                verify=NO_CERTIFICATES,
                timeout=60,
            ).status_code
            == 200
        )
        sign_in(client, server, staff.username)
        url = f"{server.url}/admin/relay/model/"
        for action, expected in (
            ("close_models", 403),
            ("open_models", 200),
            ("close_models", 403),
            ("open_models", 200),
        ):
            form = {"action": action, "_selected_action": str(row.pk), "csrfmiddlewaretoken": csrf_of(client, url)}
            assert client.post(url, data=form).status_code == 302
            assert (
                httpx.post(
                    f"{server.v1}/chat/completions",
                    json=ask(model),
                    headers=headers,
                    trust_env=False,
                    verify=NO_CERTIFICATES,
                    timeout=60,
                ).status_code
                == expected
            )


def test_feed_row_that_becomes_visible_late_is_not_missed() -> None:
    """On databases where a lower id may commit after a higher one, the gap is asked for again."""
    from relay.gateway.snapshot.cache import SnapshotCache

    applied: list[tuple[str, str]] = []

    class Recording(SnapshotCache):
        def apply(self, topic: str, key: str) -> None:
            applied.append((topic, key))

    poller = FeedPoller(Recording(), 1)
    visible: dict[int, tuple[str, str]] = {1: ("token", "a"), 3: ("token", "c")}
    poller.rows_after = lambda high: [(pk, *row) for pk, row in sorted(visible.items()) if pk > high]  # type: ignore[method-assign]
    poller.rows_of = lambda ids: [(pk, *visible[pk]) for pk in ids if pk in visible]  # type: ignore[method-assign]
    poller.poll()
    assert applied == [("token", "a"), ("token", "c")]
    poller.poll()
    assert len(applied) == 2
    visible[2] = ("token", "b")
    poller.poll()
    assert applied[2:] == [("token", "b")]
    poller.poll()
    assert len(applied) == 3


def test_callers_are_kept_while_the_feed_cannot_be_read_and_paid_requests_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What needs no database goes on. Who was changed meanwhile is read anew as soon as it can be."""
    steps: list[str] = []
    rounds = iter(["away", "away", "back", "stop"])
    state = {"now": ""}

    class Cache:
        def forget(self) -> None:
            steps.append("forget")

    poller = FeedPoller(Cache(), 0.0)  # type: ignore[arg-type]

    def wait(_: float) -> bool:
        state["now"] = next(rounds)
        return state["now"] == "stop"

    def read() -> None:
        if state["now"] == "away":
            raise OperationalError("the server did not answer within 10 seconds")
        steps.append("read")

    monkeypatch.setattr(poller._stop, "wait", wait)
    monkeypatch.setattr(poller, "_begin", read)
    monkeypatch.setattr(poller, "poll", read)
    monkeypatch.setattr(writer, "probe", lambda: steps.append("probe"))
    poller._run()
    assert steps == ["probe", "probe", "read", "forget", "read"]
