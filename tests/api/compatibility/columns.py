"""The columns of the matrix: upstreams, each an API at a vendor, as strict as the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final

from tests.api.compatibility.apis import chat, cohere, converse, gemini, messages, ollama, responses
from tests.api.compatibility.conversation import Json
from tests.support.peers import cohere as cohere_peer
from tests.support.peers import gemini as gemini_peer
from tests.support.peers import messages as messages_peer
from tests.support.peers import ollama as ollama_peer
from tests.support.peers.clouds import bedrock, frames, vertex
from tests.support.peers.clouds import converse as converse_peer
from tests.support.peers.clouds.google_tokens import TokenEndpoint
from tests.support.portal import Portal
from tests.support.upstream import Call

ACCOUNT: Final = bedrock.Account()
COUNTED: Final = 77  # what upstreams answer that are asked how many tokens a request has
_NDJSON: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
_FRAMES: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Site:
    """Where the upstreams of a run are."""

    live: Portal
    tokens: TokenEndpoint

    @property
    def root(self) -> str:
        return self.live.upstream.base_url.removesuffix("/v1")


@dataclass(frozen=True)
class Column:
    """An upstream. `send` answers a request, `refuse` refuses it, `breaks` streams events and then an error."""

    name: str
    label: str
    api: ModuleType
    model: str  # how the upstream's name of a model begins, and ends
    channel: Callable[[Site], dict[str, Any]]
    send: Callable[[Site, Call, Json], Awaitable[None]]
    refuse: Callable[[Call, str], Awaitable[None]]
    breaks: Callable[[Call, Sequence[bytes], str], Awaitable[None]]
    takes: str = "-"  # what strict servers of its API refuse and it does not, as the refusal begins

    def upstream_name(self, number: int) -> str:
        return self.model.replace("#", str(20_000_000 + number))


# -- the ways to answer ------------------------------------------------------------------------------------------------


async def _stream(call: Call, pieces: Sequence[bytes], head: bytes = b"") -> None:
    if head:
        await call.raw(head)
    else:
        await call.open_stream()
    for piece in pieces:
        await call.send(piece)
    await call.end()


def _plainly(api: ModuleType, head: bytes = b"") -> Callable[[Site, Call, Json], Awaitable[None]]:
    async def send(site: Site, call: Call, whole: Json) -> None:
        if call.path.endswith("/responses/input_tokens"):
            await call.reply(200, {"object": "response.input_tokens", "input_tokens": COUNTED})
            return
        wanted = call.json.get("stream", api is ollama)
        await (_stream(call, api.events(whole), head) if wanted else call.reply(200, whole))

    return send


async def _cohere(site: Site, call: Call, whole: Json) -> None:
    wrong = cohere_peer.fault(call)
    await (call.reply(400, {"id": "e1", "message": wrong}) if wrong else _plainly(cohere)(site, call, whole))


async def _ollama(site: Site, call: Call, whole: Json) -> None:
    wrong = ollama_peer.fault(call)
    await (call.reply(400, {"error": wrong}) if wrong else _plainly(ollama, _NDJSON)(site, call, whole))


async def _anthropic(site: Site, call: Call, whole: Json) -> None:
    await messages_peer.saying(**whole)(call)


async def _bedrock(site: Site, call: Call, whole: Json) -> None:
    if call.path.endswith("/count-tokens"):
        await converse_peer.saying(ACCOUNT, tokens=COUNTED)(call)
    else:
        await bedrock.saying(ACCOUNT, **whole)(call)


async def _vertex_claude(site: Site, call: Call, whole: Json) -> None:
    await vertex.claude_saying(site.tokens, **whole)(call)


async def _gemini(site: Site, call: Call, whole: Json) -> None:
    await gemini_peer.answer(call, whole)


async def _vertex_gemini(site: Site, call: Call, whole: Json) -> None:
    await vertex.gemini_saying(site.tokens, **whole)(call)


async def _converse(site: Site, call: Call, whole: Json) -> None:
    await converse_peer.answering(ACCOUNT, lambda _call: whole)(call)


def _refusing(api: ModuleType) -> Callable[[Call, str], Awaitable[None]]:
    async def refuse(call: Call, text: str) -> None:
        await call.reply(400, api.error_of(text))

    return refuse


async def _bedrock_refuses(call: Call, text: str) -> None:
    await bedrock.refuse(call, 400, "ValidationException", text)


def _breaking(api: ModuleType, head: bytes = b"") -> Callable[[Call, Sequence[bytes], str], Awaitable[None]]:
    async def breaks(call: Call, pieces: Sequence[bytes], text: str) -> None:
        await _stream(call, [*pieces, api.error_event(text)], head)

    return breaks


async def _bedrock_breaks(call: Call, pieces: Sequence[bytes], text: str) -> None:
    whole = messages_peer.events(messages_peer.message())
    begun = [frames.chunk(event) for event in whole[:4] if event["type"] != "ping"]
    await _stream(call, [*begun, frames.exception("modelStreamErrorException", text)], _FRAMES)


# -- the columns -------------------------------------------------------------------------------------------------------


def _at_vendor(provider: str, path: str = "/v1", **options: Any) -> Callable[[Site], dict[str, Any]]:
    return lambda site: {"base_url": site.root + path, "provider": provider, **options}


def _at_vertex(provider: str) -> Callable[[Site], dict[str, Any]]:
    def channel(site: Site) -> dict[str, Any]:
        key = site.tokens.file(private_key_id=site.live.name("key"))
        return {"base_url": f"{site.root}/v1/{vertex.PLACE}", "provider": provider, "keys": (key,)}

    return channel


_CHAT: Final = Column(
    "chat",
    "OpenAI chat",
    chat,
    "gpt-#",
    _at_vendor("openai", text_api="chat"),
    _plainly(chat),
    _refusing(chat),
    _breaking(chat),
)
_RESPONSES: Final = replace(
    _CHAT,
    name="responses",
    label="OpenAI responses",
    api=responses,
    channel=_at_vendor("openai", text_api="responses"),
    send=_plainly(responses),
    refuse=_refusing(responses),
    breaks=_breaking(responses),
)
_MESSAGES: Final = Column(
    "messages",
    "Anthropic",
    messages,
    "claude-opus-4-7-#",
    _at_vendor("anthropic"),
    _anthropic,
    _refusing(messages),
    _breaking(messages),
)
_GEMINI: Final = Column(
    "gemini",
    "Gemini",
    gemini,
    "gemini-3-pro-#",
    _at_vendor("gemini"),
    _gemini,
    _refusing(gemini),
    _breaking(gemini),
)
# The columns that are shown, each with the platforms that speak the same API in another way.
GROUPS: Final[dict[Column, tuple[Column, ...]]] = {
    _CHAT: (
        replace(
            _CHAT,
            name="azure chat",
            label="Azure",
            channel=_at_vendor("azure", "/openai/v1", text_api="chat"),
            takes="System message must be at the beginning",
        ),
    ),
    _RESPONSES: (
        replace(
            _RESPONSES,
            name="azure responses",
            label="Azure",
            channel=_at_vendor("azure", "/openai/v1", text_api="responses"),
        ),
    ),
    _MESSAGES: (
        replace(
            _MESSAGES,
            name="bedrock",
            label="Bedrock",
            model="us.anthropic.claude-opus-4-7-#-v1:0",
            channel=_at_vendor("bedrock_claude", "", keys=(ACCOUNT.api_key,)),
            send=_bedrock,
            refuse=_bedrock_refuses,
            breaks=_bedrock_breaks,
        ),
        replace(
            _MESSAGES,
            name="vertex claude",
            label="Vertex AI",
            model="claude-opus-4-7@#",
            channel=_at_vertex("vertex_claude"),
            send=_vertex_claude,
        ),
    ),
    _GEMINI: (
        replace(_GEMINI, name="vertex gemini", label="Vertex AI", channel=_at_vertex("vertex"), send=_vertex_gemini),
    ),
    Column(
        "converse",
        "Bedrock Converse",
        converse,
        "us.amazon.nova-2-lite-#-v1:0",
        _at_vendor("bedrock_claude", "", keys=(ACCOUNT.api_key,)),
        _converse,
        _bedrock_refuses,
        _breaking(converse, _FRAMES),
    ): (),
    Column(
        "cohere",
        "Cohere",
        cohere,
        "command-#",
        _at_vendor("cohere_v2", "/v2"),
        _cohere,
        _refusing(cohere),
        _breaking(cohere),
    ): (),
    Column(
        "ollama",
        "Ollama",
        ollama,
        "llama-#",
        _at_vendor("ollama_native", "", keys=()),
        _ollama,
        _refusing(ollama),
        _breaking(ollama, _NDJSON),
    ): (),
}
COLUMNS: Final = tuple(column for leader, others in GROUPS.items() for column in (leader, *others))
