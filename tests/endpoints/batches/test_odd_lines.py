"""Lines of a batch that cannot be made: they fail alone, and say why."""

from __future__ import annotations

from openai import OpenAI

from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

_BODY_BYTES = 8 * 1024 * 1024  # MAX_BODY_BYTES of the server of these tests


def _named(content: bytes, name: bytes, member: bytes = b"") -> bytes:
    return content.replace(b"{", b"{" + member, 1).replace(b'"r0"', b'"%s"' % name)


def test_odd_lines_fail_alone_and_say_why(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    one = lines(model, 1)
    content = [
        _named(one, b"plain"),
        _named(one, b"own", b'"dc:title": "x", '),
        _named(one, b"twice", b'"note": 1, "note": 2, '),
        _named(lines(model, 1, padding="x" * _BODY_BYTES), b"large"),
    ]
    done = wait_for(sdk, submit(sdk, b"\n".join(content)).id)
    assert done.status == "completed" and done.request_counts.total == 4
    assert [entry["custom_id"] for entry in results(sdk, done.output_file_id)] == ["plain", "own"]
    lost = {entry["custom_id"]: entry["response"] for entry in results(sdk, done.error_file_id)}
    told = {name: (response["status_code"], response["body"]["error"]["code"]) for name, response in lost.items()}
    assert told == {"twice": (400, "invalid_json"), "large": (413, "request_too_large")}
    assert "“note” twice" in lost["twice"]["body"]["error"]["message"]
    assert live.upstream.count(model) == 2
