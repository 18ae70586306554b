"""What was sent is found in texts, whatever its form."""

from __future__ import annotations

import base64

import pytest

from portal.lib.redaction.rules import ACCOUNT, HOST, KEY
from portal.lib.redaction.sent import Sent

ID, SECRET = "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "Wm4Tq9ZxR2Lc8Vn1"
ZHIPU = f"{ID}.{SECRET}"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJhcGlfa2V5IjoiMGExYjJjM2QifQ.TJVA95OrM7E2cBab30RMHrHDcEfxjoYZ"
PLAIN = "Qm7vXn2kLr9sTb4wYc6d"  # of no vendor's form


def knowing(*values: str, name: str = "authorization") -> Sent:
    found = Sent()
    found.remember((name, value) for value in values)
    return found


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (f"Bearer {PLAIN}", f"Your key {PLAIN} is wrong"),
        (f"Bearer {PLAIN}", f'{{"key":"{PLAIN}"}}'),
        (f"Bearer {PLAIN}", f"({PLAIN})"),
        (f"Bearer {PLAIN}", f"密钥{PLAIN}无效"),
        (f"Bearer {PLAIN}", f"Bearer {PLAIN}."),
        (f"Bearer {PLAIN}", f"twice: {PLAIN}{PLAIN}"),
        (f"Bearer {PLAIN}", f"cut off: {PLAIN[:15]}"),
        (f"Bearer {PLAIN}", f"the end of it: {PLAIN[-15:]}"),
        (f"Bearer {ZHIPU}", f"id {ID}, secret {SECRET}"),
        (f"Bearer {TOKEN}", f"signature {TOKEN.rpartition('.')[2]}"),
        ("Bearer bce-v3/ALTAK-Ab12/0a1b2c3d4e5f60718293", "bce-v3\\/ALTAK-Ab12\\/0a1b2c3d4e5f60718293"),
        ("Bearer ab/cd+ef=gh1234567", "?key=ab%2Fcd%2Bef%3Dgh1234567"),
        ("Basic " + base64.b64encode(b"relay:pa55word9").decode(), "relay:pa55word9, pa55word9"),
        ("Bearer abc123", "key abc123 is short"),
    ],
)
def test_what_was_sent_is_taken_out(sent: str, said: str) -> None:
    found = knowing(sent).without_secrets(said)
    parts = {word[at : at + 4] for word in sent.split()[1:] for at in range(len(word) - 3)}
    assert KEY in found and not [part for part in parts if part in found.replace(KEY, "")], found


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (f"Bearer {PLAIN}", "Incorrect API key provided."),
        (f"Bearer {PLAIN}", "Qm7 is no key, nor is Qm7vXn2k"),
        (f"Bearer {PLAIN}", "Loading ... done, **bold** and f***"),
        ("Bearer sk-proj-Wm4Tq9ZxR2Lc8Vn1", "keys of projects begin with sk-proj-"),
        ("Bearer ollama", "run `ollama pull llama3` first"),
        ("Bearer anything", "the model knows anything"),
        ("Bearer not-needed", "max_tokens is not-needed"),
        ("Bearer abc123", "the tool abc1234 and xabc123"),
        ("Bearer 1234", "at most 1234 tokens"),
    ],
)
def test_other_words_stay(sent: str, said: str) -> None:
    assert knowing(sent).without_secrets(said) == said


@pytest.mark.parametrize("name", ["content-type", "OpenAI-Beta", "user-agent", "accept-encoding", "Content-Length"])
def test_headers_without_secrets_are_not_remembered(name: str) -> None:
    assert (
        knowing("realtime=v1-multipart/form-data", name=name).without_secrets("realtime=v1-multipart/form-data")[0]
        == "r"
    )


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "X-Goog-Api-Key", "x-of-a-vendor"])
def test_any_other_header_is(name: str) -> None:
    assert knowing(PLAIN, name=name).without_secrets(PLAIN) == KEY


def test_the_oldest_are_forgotten() -> None:
    found = Sent(most=10)
    keys = [f"{number:02}Wm4Tq9ZxR2Lc8Vn1{number:02}" for number in range(100)]
    for key in keys:
        found.remember([("authorization", f"Bearer {key}")])
    assert found.without_secrets(keys[-1]) == KEY and found.without_secrets("00Wm") == "00Wm"
    assert len(found._secrets) <= 10 and len(found._values) <= 10


@pytest.mark.parametrize(
    ("host", "said", "expected"),
    [
        ("api.foo-relay.top", "api.foo-relay.top:443 is down", f"{HOST} is down"),
        ("api.foo-relay.top", "ask at foo-relay.top, or eu.API.foo-relay.top.", f"ask at {HOST}, or {HOST}."),
        ("api.foo-relay.top", "主机api.foo-relay.top无法访问", f"主机{HOST}无法访问"),
        ("api.foo-relay.top", "my-foo-relay.top, foo-relay.topology, relay.top", None),
        ("vllm-backend", "vllm-backend:8000 refused vllm-backend", f"{HOST} refused vllm-backend"),
        ("llama", "llama and llama3:70b", None),
        ("10.0.0.9", "10.0.0.9", None),
        ("::1", "::1", None),
        ("x.ai", "max.ai and x.aid", None),
    ],
)
def test_hosts(host: str, said: str, expected: str | None) -> None:
    """Addresses have patterns of their own; a single word needs a port beside it. None: the text stays."""
    found = Sent()
    found.remember_address(host)
    assert found.without_addresses(said) == (said if expected is None else expected)


@pytest.mark.parametrize(
    "account", ["0123456789abcdef0123456789abcdef", "3f0c5ab2-1234-4abc-8def-0123456789ab", "512345678901"]
)
def test_accounts_in_addresses(account: str) -> None:
    """Cloudflare's gateway has them without a word that tells what they are."""
    found = Sent()
    found.remember_address("gateway.example.com", f"/v1/{account}/my-gateway/openai/chat/completions")
    said = f"gateway {account}/my-gateway not found in v1; x{account}"
    assert found.without_addresses(said) == f"gateway {ACCOUNT}/my-gateway not found in v1; x{account}"


@pytest.mark.parametrize("said", ["relay:s3cret-Pa55word", "s3cret-Pa55word", "cmVsYXk6czNjcmV0LVBhNTV3b3Jk"])
def test_the_password_of_a_proxy(said: str) -> None:
    found = Sent()
    found.remember_login("relay", "s3cret-Pa55word")
    found.remember_login("nobody", "")
    assert found.without_secrets(f"407 for {said}, relay") == f"407 for {KEY}, relay"


@pytest.mark.parametrize(
    ("known", "secret"),
    [
        ("", PLAIN),
        ("", ID),
        (f"{ID}.", SECRET),
        (TOKEN.rpartition(".")[0] + ".", TOKEN.rpartition(".")[2]),
        ("bce-v3/ALTAK-Ab12Cd34/", "0a1b2c3d4e5f60718293"),
        ("my-relay-", "Wm4Tq9ZxR2Lc8Vn15Kd7Pb3Js6Fg0Hy"),
    ],
)
def test_nobody_reads_a_key_off_what_is_replaced(known: str, secret: str) -> None:
    """Clients write parts of what upstreams say: who knows the beginning of a key learns no letter more by trying."""
    found, key = knowing(f"Bearer {known}{secret}"), known + secret
    for size in range(len(known), len(known) + len(secret) // 3):
        for tried in (key[:size], key[max(0, size - 11) : size], key[len(known) : size], key[max(0, size - 20) : size]):
            for tail in ("", "***", f"...{key[-1]}"):
                right, wrong = (
                    found.without_secrets(f"Invalid value: '{tried}{one}{tail}'") for one in (key[size], "~")
                )
                assert right == wrong.replace("~", key[size])


def test_nobody_reads_a_password_off_what_is_replaced() -> None:
    """The name before it makes most of the header."""
    word = base64.b64encode(b"the-name-of-the-account:pa55word9").decode()
    found = knowing(f"Basic {word}")
    assert [found.without_secrets(word[:size]) for size in range(len(word))] == [
        word[:size] for size in range(len(word))
    ]
    assert found.without_secrets(word) == KEY and found.without_secrets("pa55word") == "pa55word"


@pytest.mark.parametrize("size", [8, 11, 12, 13, 20, 24, 25, 51, 164])
def test_every_part_of_the_least_size_is_found(size: int) -> None:
    key = (PLAIN + ID[::-1] + SECRET + TOKEN[90:] + "ZyXwVuTsRqPoNm" * 9).replace(".", "")[:size]
    least = min(size, max(12, (size + 1) // 2))
    found = knowing(f"Bearer {key}")
    for start in range(size - least + 1):
        assert found.without_secrets(f"<{key[start : start + least]}>") == f"<{KEY}>"
        assert KEY not in found.without_secrets(f"<{key[start : start + least - 1]}>")


def test_nothing_was_sent() -> None:
    assert Sent().without_secrets(f"{PLAIN} a***b") == f"{PLAIN} a***b" and Sent().without_addresses("a.b:1") == "a.b:1"
