"""What the messages and items of a request have beside their text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal.lib.json import decode, without_long_strings
from relay.billing.estimate import estimate_prompt
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.prompts.content import OWN_TOOLS, TEXT, content_of, names_foreign_tools
from relay.protocols.responses.request import parse_responses_request

URL, DATA = "https://x.example/1", "data:image/png;base64,AAAA"


def message(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts), **more}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "items",
    [
        None,
        "text",
        [],
        [{"role": "user", "content": "text"}],
        [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]}],
        [{"role": "assistant", "content": "", "audio": None, "images": [], "reasoning_content": "hm"}],
        [message({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}, {"type": "refusal"})],
        [message({"type": "input_text", "text": '{"type":"document_url"}'})],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        [{"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}],
        [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]}],
        [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": ""}],
        [{"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]}],
    ],
)
def test_text_is_no_more_than_its_bytes(items: Any) -> None:
    assert content_of(items) == TEXT


@pytest.mark.parametrize(
    ("part", "images"),
    [
        (image(DATA), 1),
        (image(URL), 1),
        (image(URL + ".JPG?x=.mp4"), 1),
        ({"type": "input_image", "image_url": URL, "detail": "high"}, 1),
        ({"type": "input_image", "file_id": "file-1"}, 1),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, 0),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, 0),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a: b.pdf"}}, 0),
        ({"type": "input_file", "file_data": "AAAA", "filename": "a.pdf"}, 0),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, 0),
        ("a text alone", 0),
    ],
)
def test_what_is_in_the_request_is_counted_by_its_size(part: Any, images: int) -> None:
    assert content_of([message(part, {"type": "text", "text": "x"})]) == (images, True, False)


@pytest.mark.parametrize(
    "item",
    [
        message({"type": "document_url", "document_url": URL}),  # Mistral
        message({"type": "document", "source": {"type": "url", "url": URL}}),  # Anthropic
        message({"type": "video", "video": [URL, URL]}),  # Qwen-omni
        message({"type": "video_url", "video_url": {"url": URL}}),
        message({"type": "input_audio", "input_audio": {"data": URL, "format": "mp3"}}),
        message({"type": "input_audio", "input_audio": {"data": "a" * 600 + "://x"}}),
        message({"type": "audio_url", "audio_url": URL}),
        message({"type": "file", "file": {"file_data": URL}}),  # OpenRouter
        message({"type": "file", "file": {"file_uri": "gs://b/a.pdf"}}),
        message({"type": "input_file", "file_url": URL}),
        message({"type": "media", "file_uri": URL}),
        message(image("gs://b/v.mp4")),
        message(image("https://x.example/film.mp4")),
        message(image("https://x.example/" + "a" * 10_000)),
        message(image("https://www.youtube.com/watch?v=1")),
        message({"video_url": {"url": URL}}),  # vLLM goes by the member
        message({"text": "x"}, {"audio": URL}),
        message({"type": "text", "text": "x", "video_url": {"url": URL}}),
        message({"type": "thinking", "thinking": [{"type": "document_url", "document_url": URL}]}),
        message({"type": ["text"]}),
        message(7),
        message(["x"]),
        {"role": "user", "content": {"type": "document_url", "document_url": URL}},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {"role": "user", "content": "x", "attachments": [{"file_id": "file-1"}]},
        {"role": "user", "content": "x", "images": [URL]},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "mcp_approval_response", "approve": True, "approval_request_id": "m"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "additional_tools", "tools": [{"type": "web_search"}]},
        {"type": "additional_tools", "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_url": URL}]},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "file-1"}},
        {"type": ["message"]},
        "text",
        None,
    ],
)
def test_what_is_not_known_can_fill_the_context(item: Any) -> None:
    for items in ([item], [{"role": "user", "content": "x"}, item]):
        body = json.dumps({"model": "m", "messages": items}).encode()
        if isinstance(item, dict) and "type" not in item:
            assert parse_chat_request(body).at_most(7) is None
        body = json.dumps({"model": "m", "input": items}).encode()
        assert parse_responses_request(body).at_most(7) is None
        assert content_of(items).unbounded


def test_addresses_are_told_from_what_is_emptied() -> None:
    """In a large body, long strings without an address are emptied before they are looked at."""
    long = "https://x.example/" + "a" * 600
    for url, bounded in ((long + ".png", True), (long + ".mp4", False), ("data:video/mp4;base64," + "A" * 600, True)):
        messages = [message(image(url), {"type": "text", "text": "x" * 400_000})]
        found = content_of(decode(without_long_strings(json.dumps(messages).encode())))
        assert found == (1, True, not bounded), url[-9:]


@pytest.mark.parametrize(
    ("tools", "foreign"),
    [
        ([], False),
        ([{"type": "function"}, {"type": "namespace", "tools": [{"type": "function"}]}], False),
        ([{"type": "namespace", "tools": [{"type": "web_search"}]}], True),
        ([{"type": "namespace", "tools": {"type": "function"}}], True),
        ([{"type": ["function"]}], True),
        ([{"google_search": {}}], True),
    ],
)
def test_hosted_tools_are_found_in_namespaces(tools: Any, foreign: bool) -> None:
    body = json.dumps({"model": "m", "input": "x", "tools": tools}).encode()
    request = parse_responses_request(body)
    assert names_foreign_tools(request.fields["tools"], OWN_TOOLS) is foreign
    assert (request.at_most(7) is None) is foreign


def files(number: int) -> list[dict[str, Any]]:
    return [{"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,eA=="}}] * number


@pytest.mark.parametrize(
    "parts",
    [
        [image(URL)] * 10,
        [*[image(URL)] * 10, *files(10)],
        [*[image(URL)] * 10, *[{"type": "file", "file": {"file_data": DATA}}] * 10],
        [*[image(URL)] * 4, *[image(DATA)] * 6],
        [{"type": "input_image", "image_url": URL}] * 10,
        [*[{"type": "input_image", "image_url": DATA}] * 5, *[{"type": "input_image", "image_url": URL}] * 5],
        [{"image_url": {"url": URL}}] * 10,  # vLLM goes by the member
        [*[image(URL)] * 10, {"type": "other", "url": "data:text/plain;base64,eA=="}],
    ],
)
def test_every_image_counts(parts: list[Any]) -> None:
    text = json.dumps([message(*parts)])
    escaped = text.replace("image_url", "image\\u005furl").replace("data:", "d\\u0061ta:")
    sizes = [estimate_prompt(text.encode())]
    for member, parse in (("messages", parse_chat_request), ("input", parse_responses_request)):
        for told in (text, escaped):
            request = parse(f'{{"model":"m","{member}":{told}}}'.encode())
            sizes.append(estimate_prompt(request.fields[member], None, request.content))
    for size in sizes:
        assert size.tokens >= 10 * 800 and size.most >= 10 * 25_600
    assert max(size.tokens for size in sizes) < 10 * 800 + 8_800, "and none of them much more than once"
