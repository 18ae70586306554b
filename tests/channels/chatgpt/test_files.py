"""Files in requests over a plan, in every shape that AIRelays takes."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import SignIn, respond
from tests.support.server import Server

TEXT = base64.b64encode(b"hello").decode()
URL = f"data:text/plain;base64,{TEXT}"


def ask_with(portal: Server, token: str, part: dict[str, Any]) -> Any:
    content = [{"type": "input_text", "text": "Read it."}, part]
    return respond(portal, token, input=[{"type": "message", "role": "user", "content": content}])


def part_of(chatgpt: ChatGPT) -> dict[str, Any]:
    found: dict[str, Any] = chatgpt.seen[-1]["body"]["input"][0]["content"][1]
    return found


def test_an_address_a_data_url_and_base64_with_a_name(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    token = signed_in().token
    given = {"type": "input_file", "file_url": "https://example.org/a.pdf"}
    assert ask_with(portal, token, given).status_code == 200 and part_of(chatgpt) == given
    given = {"type": "input_file", "filename": "a.txt", "file_data": URL}
    assert ask_with(portal, token, given).status_code == 200 and part_of(chatgpt) == given
    raw = {"type": "input_file", "filename": "a.txt", "file_data": TEXT}
    assert ask_with(portal, token, raw).status_code == 200 and part_of(chatgpt)["file_data"] == URL


def test_base64_needs_a_name_whose_extension_is_known(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    token = signed_in().token
    for more in ({}, {"filename": "a.zzzzzz"}, {"filename": "a"}):
        answer = ask_with(portal, token, {"type": "input_file", "file_data": TEXT, **more})
        assert answer.status_code == 422 and "whose ending tells the type" in answer.json()["error"]["message"]
    assert chatgpt.seen == []


def test_files_that_were_uploaded_are_expanded(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    token = signed_in().token
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    ids = {}
    for name, content, kind in (("a.txt", b"hello", "text/plain"), ("a.png", png, "image/png")):
        files = {"file": (name, content, kind)}
        stored = portal.request("POST", token, "/v1/files", files=files, data={"purpose": "user_data"})
        assert stored.status_code == 200, stored.text
        ids[name] = stored.json()["id"]
    assert ask_with(portal, token, {"type": "input_file", "file_id": ids["a.txt"]}).status_code == 200
    assert part_of(chatgpt) == {"type": "input_file", "filename": "a.txt", "file_data": URL}
    assert ask_with(portal, token, {"type": "input_image", "file_id": ids["a.png"]}).status_code == 200
    assert part_of(chatgpt)["image_url"] == f"data:image/png;base64,{base64.b64encode(png).decode()}"
    assert "file_id" not in part_of(chatgpt)
    assert ask_with(portal, token, {"type": "input_file", "file_id": "file_unknown"}).status_code == 422
