"""Compressed bodies of requests: decoded up to the limit, refused in an encoding that is not read."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable

import pytest

from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.shared


def raw_deflate(body: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(body) + made.flush()


# Codex sends zstd when it is signed in with ChatGPT (openai/codex, codex-rs: request compression).
CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "two members": ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "two frames": ("zstd", lambda body: zstd.compress(body[:9]) + zstd.compress(body[9:])),
    "identity": ("identity", bytes),
    "none": ("", bytes),
}


@pytest.mark.parametrize("name", CODINGS)
def test_a_compressed_body_is_read(server: Server, live: Portal, name: str) -> None:
    coding, compress = CODINGS[name]
    model, token = live.model(), live.token()
    body = json.dumps(ask(model, padding="x: é" * 200_000)).encode()
    response = server.post(token, compress(body), headers={"content-encoding": coding})
    assert response.status_code == 200, response.text
    call = live.upstream.last(model)
    assert call.body == body and "content-encoding" not in call.headers


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, zstd", "x" * 100])
def test_an_encoding_that_is_not_read_is_refused_with_those_that_are(server: Server, live: Portal, coding: str) -> None:
    response = server.post(live.token(), b"{}", headers={"content-encoding": coding})
    message = check(response, 415, "invalid_request_error", "unsupported_content_encoding")
    assert "gzip, deflate, zstd" in message and response.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert server.post("sk-no", b"{}", headers={"content-encoding": coding}).status_code in {401, 429}


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("spoil", ["cut", "garbage", "trailing", "wrong"])
def test_a_body_that_is_not_in_its_encoding_is_refused(server: Server, live: Portal, name: str, spoil: str) -> None:
    coding, compress = CODINGS[name]
    body = compress(json.dumps(ask("m", padding="x" * 1000)).encode())
    spoiled = {"cut": body[:-6], "garbage": b"\x1f\x8b" + b"no" * 50, "trailing": body + b"{}",
               "wrong": b'{"model":"m"}'}[spoil]  # fmt: skip
    response = server.post(live.token(), spoiled, headers={"content-encoding": coding})
    check(response, 400, "invalid_request_error", "invalid_content_encoding")


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/conversations", "/v1/audio/transcriptions"]
)
def test_a_bomb_is_refused_at_the_limit(server: Server, live: Portal, name: str, path: str) -> None:
    coding, compress = CODINGS[name]
    bomb = compress(b'{"model":"m","x":"' + b"x" * 100_000_000)
    response = server.post(live.token(), bomb, path=path, headers={"content-encoding": coding})
    assert "8 MiB" in check(response, 413, "invalid_request_error", "request_too_large")


def test_zstd_with_a_window_larger_than_http_allows_is_refused(server: Server, live: Portal) -> None:
    body = zstd.compress(b'{"a":"' + b"xy" * 9_000_000, options={zstd.CompressionParameter.window_log: 27})
    response = server.post(live.token(), body, headers={"content-encoding": "zstd"})
    check(response, 400, "invalid_request_error", "invalid_content_encoding")


def form(content: bytes) -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b\r\nContent-Disposition: '
        b'form-data; name="file"; filename="a.txt"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_compressed_form_is_stored(server: Server, live: Portal, name: str) -> None:
    coding, compress = CODINGS[name]
    token = live.token()
    headers = {"content-encoding": coding, "content-type": "multipart/form-data; boundary=b"}
    content = b"line\n" * 100_000
    response = server.post(token, compress(form(content)), path="/v1/files", headers=headers)
    assert response.status_code == 200 and response.json()["bytes"] == len(content), response.text
    assert server.get(token, f"/v1/files/{response.json()['id']}/content").content == content
    for bomb in (form(b"x" * 100_000_000), form(b"x") + b" " * 100_000_000):
        response = server.post(token, compress(bomb), path="/v1/files", headers=headers)
        check(response, 413, "invalid_request_error", "file_too_large")
