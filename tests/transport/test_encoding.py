"""Compressed answers, and headers of unusual size."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from relay.transport.encoding import BadEncoding, BodyDecoder, codings, supported
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion

TEXT = json.dumps({"text": "Hello there. 你好 " * 200}).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def decoded(coding: str, body: bytes, size: int = 7) -> bytes:
    decoder = BodyDecoder(coding)
    pieces = [piece for at in range(0, len(body), size) for piece in decoder.feed(body[at : at + size])]
    return b"".join(pieces) + decoder.finish()


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0) + b"\0\0\0"),
        ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
        ("gzip", TEXT),  # named, and not applied
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),  # as Microsoft's servers understood RFC 2616
        ("deflate", TEXT),
    ],
)
def test_what_servers_call_gzip_and_deflate_is_decoded(coding: str, body: bytes, size: int) -> None:
    assert decoded(coding, body, size) == TEXT


@pytest.mark.parametrize("body", [gzip.compress(TEXT, mtime=0)[:-9], gzip.compress(TEXT, mtime=0)[:40] + b"?" * 80])
def test_a_cut_or_broken_body_is_no_whole_one(body: bytes) -> None:
    with pytest.raises(BadEncoding):
        decoded("gzip", body)


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    decoder = BodyDecoder("gzip")
    largest = total = 0
    with pytest.raises(BadEncoding, match="expand"):
        for piece in decoder.feed(gzip.compress(bytes(64 << 20))):
            largest, total = max(largest, len(piece)), total + len(piece)
    assert largest <= 256 << 10 and total <= 17 << 20


@pytest.mark.parametrize(
    ("header", "names", "readable"),
    [
        ("gzip", ("gzip",), True),
        (" GZIP ", ("gzip",), True),
        ("identity", (), True),
        ("utf-8", (), True),
        ("br", ("br",), False),
        ("gzip, zstd", ("zstd", "gzip"), False),
    ],
)
def test_the_header_names_codings(header: str, names: tuple[str, ...], readable: bool) -> None:
    assert codings(header) == names and supported(names) is readable


@pytest.mark.shared
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_answers_are_read(server: Server, live: Portal, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress

    async def script(call: Call) -> None:
        if "fail" in call.json:
            error = {"error": {"message": "Too many words.", "code": "string_above_max_length"}}
            await call.reply(400, pack(json.dumps(error).encode()), {"content-encoding": coding})
        elif not call.json.get("stream"):
            await call.reply(200, pack(json.dumps(completion()).encode()), {"content-encoding": coding})
        else:
            packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
            await call.open_stream(f"content-encoding: {coding}\r\n")
            for event in (chunk("Hello"), chunk(" there"), chunk(None, "stop")):
                data = packer.compress(b"data: " + json.dumps(event).encode() + b"\n\n")
                await call.send(data + packer.flush(zlib.Z_SYNC_FLUSH))
            await call.send(packer.compress(b"data: [DONE]\n\n") + packer.flush())
            await call.end()

    model, token = live.model(script), live.token()
    plain = server.post(token, ask(model))
    assert plain.status_code == 200 and plain.json()["choices"] == completion()["choices"]
    assert "content-encoding" not in plain.headers
    stream = server.post(token, ask(model, stream=True))
    assert " there" in stream.text and stream.text.endswith("data: [DONE]\n\n")
    assert live.record(stream).end_reason == "completed"
    assert "Too many words" in check(
        server.post(token, ask(model, fail=True)), 400, "invalid_request_error", "string_above_max_length"
    )


@pytest.mark.shared
@pytest.mark.parametrize("stream", [False, True])
def test_a_bomb_fails_and_is_not_charged(server: Server, live: Portal, stream: bool) -> None:
    async def script(call: Call) -> None:
        bomb = gzip.compress(b'{"choices":[{"message":{"content":"' + b"a" * (64 << 20))
        await call.reply(200, bomb, {"content-encoding": "gzip"})

    answer = server.post(live.token(), ask(live.model(script, price={"input": 10, "output": 20}), stream=stream))
    assert answer.status_code == 502
    record = live.record(answer)
    assert record.cost == 0 and "expand" in record.attempt_log[0]["detail"]


@pytest.mark.shared
def test_a_header_of_64_kib_passes(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion(), {"content-security-policy": "a" * 65_536, "set-cookie": "b" * 9000})

    answer = server.post(live.token(), ask(live.model(script)))
    assert answer.status_code == 200 and answer.headers["x-relay-attempts"] == "1"
