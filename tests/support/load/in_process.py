"""The portal's ASGI application on an event loop of the test."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any, Final

from relay.billing.ledger import requests
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import writer
from tests.support.portal import Portal, ask
from tests.support.upstream import Call, Script, chunk, hello


async def dead(call: Call) -> None:
    await call.error(500)


async def cut(call: Call) -> None:
    """Fails after the first byte."""
    if not call.json.get("stream"):
        call.cut()
        return
    await call.open_stream()
    await call.event(chunk("Some text that"))
    call.cut()


async def endless(call: Call) -> None:
    if not call.json.get("stream"):
        await asyncio.sleep(5)
    await call.open_stream()
    for _ in range(500):
        await call.event(chunk("word " * 20))
        await asyncio.sleep(0.005)


SCRIPTS: Final[dict[str, Script]] = {"hello": hello, "dead": dead, "cut": cut, "endless": endless}
PRICE: Final = {"input": Decimal("2.5"), "cached_input": Decimal("1.25"), "output": 10}


class World:
    """A portal inside this process: its ASGI application on an event loop of the test's."""

    def __init__(self, live: Portal) -> None:
        self.live = live
        self.loop = asyncio.new_event_loop()
        self.users = [live.user(balance=0), live.user(balance=0), live.user()]
        self.tokens = [live.token(user) for user in self.users]
        self.models = {name: live.model(script, price=PRICE) for name, script in SCRIPTS.items()}
        from django.contrib.auth.models import Group

        from accounts.models import GroupSettings

        self.group = GroupSettings.objects.create(group=Group.objects.create(name=live.name("group")))
        for user in self.users:
            user.groups.add(self.group.group)

    def request(
        self, person: int, model: str, stream: bool, limit: int | None, leave: bool = False
    ) -> tuple[int, bytes]:
        return self.loop.run_until_complete(self._request(person, model, stream, limit, leave))

    async def _request(
        self, person: int, model: str, stream: bool, limit: int | None, leave: bool
    ) -> tuple[int, bytes]:
        from portal.asgi import relay
        from relay.gateway.exchange.interrupts import Interrupt
        from relay.gateway.routing.suspicions import Suspicions
        from relay.gateway.runtime import runtime

        run = await runtime()
        # This is about money: every channel is asked, whatever it did before.
        run.health.live.breaker.circuits.clear()
        run.health.live.suspicions = Suspicions()
        body = json.dumps(ask(self.models[model], stream=stream, **({"max_tokens": limit} if limit else {}))).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "headers": [(b"authorization", b"Bearer " + self.tokens[person].encode())],
            "http_version": "1.1",
            "extensions": {},
        }
        sent: list[Any] = []
        given = False

        async def receive() -> Any:
            nonlocal given
            if given:
                await asyncio.sleep(60)
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        def go_away() -> None:
            for exchange in list(run.watchdog.running):
                exchange.interrupt(Interrupt.CLIENT_GONE)

        async def send(message: Any) -> None:
            sent.append(message)
            if leave and message["type"] == "http.response.body":
                asyncio.get_running_loop().call_soon(go_away)

        leaving = asyncio.get_running_loop().call_later(0.02 if leave and not stream else 60, go_away)
        await asyncio.wait((asyncio.ensure_future(relay(scope, receive, send)),))
        leaving.cancel()
        status = sent[0]["status"] if sent else 499
        return status, b"".join(message.get("body", b"") for message in sent[1:])

    def replace_model(self, name: str) -> None:
        """Go on with a new model on the same channel. Receipts keep the prices of the old one, and whenever the
        configuration changes, those of all enabled models are read again.
        """
        from relay.models import Channel, Model

        old = Model.objects.get(name=self.models[name])
        channels = list(Channel.objects.filter(served__model=old))
        old.enabled = False
        old.save()
        self.models[name] = self.live.model(SCRIPTS[name], channels=channels, price=PRICE)

    def crash(self) -> None:
        """The worker dies: what it had not written is lost, nobody gives back what it held; another one takes its
        place.
        """
        from relay.gateway.charging.reservations import Reservations
        from relay.gateway.runtime import runtime

        run = self.loop.run_until_complete(runtime())
        abandoned = run.reservations.owner
        run.reservations = Reservations("UTC")
        self.settle()
        assert verify().clean, "after the crash, before the sweep"
        requests.release_expired(time.time(), lambda owner: owner == abandoned)

    def settle(self) -> None:
        """Let the writer finish what is queued."""
        while writer._pending:
            self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        """Stop serving, and leave nothing to the tests that follow in this process."""
        from relay.gateway import runtime
        from relay.gateway.snapshot.cache import snapshot_cache

        run = self.loop.run_until_complete(runtime.runtime())
        self.loop.run_until_complete(run.stop())
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()
        runtime._runtime = snapshot_cache._snapshot = None
