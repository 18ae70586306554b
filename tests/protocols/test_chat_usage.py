"""The usage object of chat completions, as vendors send it."""

from __future__ import annotations

import pytest

from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Usage


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b'{"prompt_tokens":10,"completion_tokens":5}', Usage(input=10, output=5)),
        (
            b'{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":4}',
            Usage(input=10, cached_input=4, output=5),
        ),
        (b'{"prompt_tokens":10,"completion_tokens":5,"cached_tokens":99}', Usage(input=10, cached_input=10, output=5)),
        (b'{"prompt_tokens":-5,"completion_tokens":1e300}', Usage()),
        (b'{"prompt_tokens":"7","completion_tokens":true}', Usage()),
        (
            b'{"prompt_tokens":7,"prompt_tokens_details":null,"completion_tokens":1,"extra":{}}',
            Usage(input=7, output=1),
        ),
        (b'{"total_tokens":7}', None),
        (b"null", None),
        (b"[]", None),
        (b'{"prompt_tokens":', None),
    ],
)
def test_usage_of_vendors_and_nonsense(raw: bytes, usage: Usage | None) -> None:
    assert parse_chat_usage(raw) == usage
