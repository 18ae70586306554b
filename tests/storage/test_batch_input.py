"""Files that are no batch."""

from __future__ import annotations

import pytest

from relay.storage.batch_input import parse

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"), (b"{", "invalid_json_line"), (b"[]", "invalid_json_line"),
        (b'{"method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}', "missing_custom_id"),
        (b'{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{"model":"m"}}', "invalid_method"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}', "mismatched_endpoint"),
        (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions"}', "missing_body"),
        ((
            b'{"custom_id":"a","method":"POST",'
            b'"url":"/v1/chat/completions","body":{"model":"m",'
            b'"stream":true}}'
        ), "invalid_body"),
    ],
)  # fmt: skip
def test_files_that_are_no_batch(content: bytes, code: str) -> None:
    found = parse(content, "/v1/chat/completions")
    assert [entry["code"] for entry in found.errors] == [code]
