"""An upstream that counts what it does, and a client that may leave at any byte, lie and repeat; both in one process.

What the upstream counted and what the portal charged are compared: neither knows of the other.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from relay.models import UsageRecord
from tests.support.portal import Portal
from tests.support.upstream import Call, chunk, completion

PRICE = {"input": "2.5", "cached_input": "0.25", "output": "10"}
# Tokens per second: hidden ones of a stream, and all of a plain answer.
THINKS_PER_SECOND = 100_000
OUTPUT_PRICE = 10_000  # nano-USD of a token
MAKES_PER_SECOND = 20_000
# How vendors report what is cached and what was thought; where the total says more, the channel's setting reads it.
DIALECTS = ("openai", "deepseek", "moonshot", "anthropic", "bedrock", "xai", "gemini", "every chunk", "lies")
_WORDS = ("The ", "upstream ", "counts ", "each ", "word ", "as ", "a ", "token. ")
_VENDORS = {"xai": "xai", "gemini": "gemini"}


@dataclass(frozen=True)
class Plan:
    """One request: what the client sends, what the upstream does, and when the client leaves."""

    api: str = "chat"  # chat, responses, completions
    stream: bool = True
    dialect: str = "openai"
    words: int = 5  # a token each, in chunks of three
    thought: int = 0  # tokens that are not shown
    cached: int = 0  # tokens beside the prompt's own
    prompt: str = "Say something."
    limit: object = None  # the client's limit, which nobody keeps to
    piece: int = 0  # bytes that the upstream sends at a time; 0: whole events
    stalls: bool = False  # the upstream never reports
    leaves: int | None = None  # after so many bytes; None: stays
    repeats: int = 1
    seed: int = 0


@dataclass
class Counted:
    """What an upstream has done, in tokens."""

    input: int = 0
    cached: int = 0
    output: int = 0

    @property
    def cost(self) -> int:
        """Nano-USD."""
        return (self.input - self.cached) * 2500 + self.cached * 250 + self.output * OUTPUT_PRICE


class HonestUpstream:
    """Answers by the plan that the request's `user` names."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.counted: dict[str, Counted] = {}

    async def script(self, call: Call) -> None:
        body = call.json
        name = body.get("user") or body.get("safety_identifier") or ""
        plan, done = self.plans[name], self.counted[name]
        done.cached += plan.cached
        done.input += plan.cached + 8 + len(plan.prompt.split())
        before = Counted(
            done.input - plan.cached - 8 - len(plan.prompt.split()), done.cached - plan.cached, done.output
        )
        await self._think(plan, done)
        responses = call.path.endswith("/responses")
        words = [_WORDS[number % 8] for number in range(plan.words)]
        if not plan.stream:
            while plan.stalls:  # it thinks on, until it is hung up on
                await self._make(100, done)
            await self._make(plan.words, done)
            usage = self._usage(plan, done, before, responses)
            await call.reply(200, self._whole(call, "".join(words), usage))
            return
        await call.open_stream()
        sent = 0
        for at in range(0, plan.words, 3):
            text = "".join(words[at : at + 3])
            done.output += len(words[at : at + 3])
            sent += 1
            more: dict[str, Any] = {}
            if plan.dialect == "every chunk" and not responses:
                more = {"usage": self._usage(plan, done, before, responses)}
            await self._send(call, plan, self._delta(call, text, sent, more))
        if plan.stalls:
            await call.closed_event()
        usage = self._usage(plan, done, before, responses)
        for event in self._end(call, plan, "".join(words), usage, sent):
            await self._send(call, plan, event)
        await call.end()

    async def _think(self, plan: Plan, done: Counted) -> None:
        if plan.stream:
            await asyncio.sleep(plan.thought / THINKS_PER_SECOND)
            done.output += plan.thought
        else:
            await self._make(plan.thought, done)

    async def _make(self, tokens: int, done: Counted) -> None:
        """By the clock, since a loaded machine sleeps longer."""
        began, made = time.monotonic(), 0
        while made < tokens:
            await asyncio.sleep(0.002)
            now = min(tokens, int((time.monotonic() - began) * MAKES_PER_SECOND))
            done.output, made = done.output + now - made, now

    async def _send(self, call: Call, plan: Plan, event: bytes) -> None:
        step = plan.piece or len(event)
        for start in range(0, len(event), step):
            await call.send(event[start : start + step])

    # -- the forms ---------------------------------------------------------------------------------------------------

    def _usage(self, plan: Plan, done: Counted, before: Counted, responses: bool) -> dict[str, Any]:
        """Of this answer alone, in the words of a vendor."""
        total_in, cached = done.input - before.input, done.cached - before.cached
        out = done.output - before.output
        if plan.dialect == "lies":
            return {"prompt_tokens": "many", "completion_tokens": -out, "input_tokens": True, "output_tokens": 10**30}
        if responses:
            return {
                "input_tokens": total_in,
                "input_tokens_details": {"cached_tokens": cached},
                "output_tokens": out,
                "output_tokens_details": {"reasoning_tokens": plan.thought},
                "total_tokens": total_in + out,
            }
        usage: dict[str, Any] = {"prompt_tokens": total_in, "completion_tokens": out, "total_tokens": total_in + out}
        details: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": cached}}
        thought = {"completion_tokens_details": {"reasoning_tokens": plan.thought}}
        if plan.dialect == "deepseek":
            details = {"prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": total_in - cached}
        elif plan.dialect == "moonshot":
            details = {"cached_tokens": cached}
        elif plan.dialect == "anthropic" and cached > total_in - cached:
            usage |= {"prompt_tokens": total_in - cached, "total_tokens": total_in - cached + out}
        elif plan.dialect == "bedrock":
            usage |= {"prompt_tokens": total_in - cached}
        elif plan.dialect == "xai":
            usage |= {"completion_tokens": out - plan.thought}
        elif plan.dialect == "gemini":
            usage |= {"completion_tokens": out - plan.thought}
            thought = {}
        return {**usage, **details, **thought}

    def _whole(self, call: Call, text: str, usage: dict[str, Any]) -> dict[str, Any]:
        if call.path.endswith("/responses"):
            return {"id": "resp_x", "object": "response", "status": "completed", "model": "mock", "usage": usage,
                    "output": [self._item(text)]}  # fmt: skip
        if call.path.endswith("/chat/completions"):
            return completion(text, usage=usage)
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        return {"id": "cmpl-x", "object": "text_completion", "created": 1, "model": "mock", "choices": [choice],
                "usage": usage}  # fmt: skip

    def _item(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "id": "msg_x", "role": "assistant", "status": "completed", "content": [part]}

    def _delta(self, call: Call, text: str, number: int, more: dict[str, Any]) -> bytes:
        if call.path.endswith("/responses"):
            event = {"type": "response.output_text.delta", "item_id": "msg_x", "output_index": 0, "content_index": 0,
                     "sequence_number": number, "delta": text, "logprobs": []}  # fmt: skip
            return self._event(event)
        if call.path.endswith("/chat/completions"):
            return self._event({**chunk(text), **more})
        return self._event({**self._whole(call, text, {}), "usage": None, **more} | {
            "choices": [{"index": 0, "text": text, "finish_reason": None, "logprobs": None}]})  # fmt: skip

    def _end(self, call: Call, plan: Plan, text: str, usage: dict[str, Any], number: int) -> list[bytes]:
        if call.path.endswith("/responses"):
            response = self._whole(call, text, usage)
            return [self._event({"type": "response.completed", "sequence_number": number + 1, "response": response})]
        last = {**chunk(None, "stop")}
        if not call.path.endswith("/chat/completions"):
            last["choices"] = [{"index": 0, "text": "", "finish_reason": "stop", "logprobs": None}]
        if plan.dialect == "moonshot":
            last["choices"][0]["usage"] = usage
            return [self._event(last), b"data: [DONE]\n\n"]
        return [self._event(last), self._event({**last, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]

    def _event(self, data: dict[str, Any]) -> bytes:
        name = f"event: {data['type']}\n" if "type" in data else ""
        return f"{name}data: {json.dumps(data)}\n\n".encode()


class Hunt:
    """The portal's ASGI application on an event loop of the test, with a user who has enough."""

    def __init__(self, live: Portal) -> None:
        self.live, self.upstream = live, HonestUpstream()
        self.loop = asyncio.new_event_loop()
        self.user = live.user(balance=10**15)
        self.token = live.token(self.user)
        self.models = {
            dialect: live.model(self.upstream.script, price=PRICE, provider=_VENDORS.get(dialect, "openai"))
            for dialect in DIALECTS
        }
        self._number = 0

    def run(self, plan: Plan) -> tuple[int, list[Any]]:
        """What the upstream counted, in nano-USD, and the records."""
        self._number += 1
        name = f"plan-{self._number}"
        self.upstream.plans[name], self.upstream.counted[name] = plan, Counted()
        records: list[Any] = []
        for _ in range(plan.repeats):
            last = UsageRecord.objects.filter(user=self.user).order_by("-id").values_list("id", flat=True).first() or 0
            before = self.upstream.counted[name].input
            self.loop.run_until_complete(self._ask(plan, name))
            if self.upstream.counted[name].input > before or plan.leaves != 0:
                records += self._records(last, plan)
        counted = self.upstream.counted.pop(name)
        del self.upstream.plans[name]
        return counted.cost, records

    def _records(self, last: int, plan: Plan) -> list[Any]:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = list(UsageRecord.objects.filter(user=self.user, id__gt=last))
            if found:
                return found
            self.loop.run_until_complete(asyncio.sleep(0.002))
        raise AssertionError(f"no record of {plan}")

    def body(self, plan: Plan, name: str) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"model": self.models[plan.dialect], "stream": plan.stream, "user": name}
        if plan.api == "responses":
            return "/v1/responses", {**body, "input": plan.prompt, "store": False}
        if plan.api == "completions":
            more = {} if plan.limit is None else {"max_tokens": plan.limit}
            return "/v1/completions", {**body, "prompt": plan.prompt, **more}
        more = {"max_tokens": plan.limit} if isinstance(plan.limit, int) and plan.limit > 0 else {}
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": plan.prompt}], **more}

    async def _ask(self, plan: Plan, name: str) -> None:
        from portal.asgi import relay
        from relay.gateway.routing.suspicions import Suspicions
        from relay.gateway.runtime import runtime

        run = await runtime()
        run.health.live.breaker.circuits.clear()
        run.health.live.suspicions = Suspicions()
        seconds = 0.05 if plan.stalls else 10.0
        if run.config.disconnect_read_seconds != seconds:
            run.config = run.config.model_copy(update={"disconnect_read_seconds": seconds})
        path, body = self.body(plan, name)
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "headers": [(b"authorization", b"Bearer " + self.token.encode())],
            "http_version": "1.1",
            "extensions": {},
        }
        got, given = 0, False

        async def receive() -> Any:
            nonlocal given
            if given:
                await asyncio.Event().wait()
            given = True
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        def leave() -> None:
            for exchange in list(run.watchdog.running):
                run.watchdog.on_leave(exchange)

        async def send(message: Any) -> None:
            nonlocal got
            got += len(message.get("body", b""))
            if plan.leaves is not None and got >= plan.leaves and message["type"] == "http.response.body":
                asyncio.get_running_loop().call_soon(leave)

        handle = None
        if plan.leaves == 0 or plan.stalls:
            delay = 0.05 if plan.stalls else random.Random(plan.seed).choice([0.0, 0.002, 0.02])
            handle = asyncio.get_running_loop().call_later(delay, leave)
        task = asyncio.ensure_future(relay(scope, receive, send))
        await asyncio.wait((task,))
        if handle is not None:
            handle.cancel()

    def close(self) -> None:
        from relay.gateway import runtime
        from relay.gateway.snapshot.cache import snapshot_cache

        run = self.loop.run_until_complete(runtime.runtime())
        self.loop.run_until_complete(run.stop())
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()
        runtime._runtime = snapshot_cache._snapshot = None


def shown(plan: Plan) -> str:
    """The parts of a plan that are not usual."""
    usual = asdict(Plan())
    return ", ".join(f"{name}={value!r}" for name, value in asdict(plan).items() if value != usual[name])
