"""What is refused or left out is called as the client's API calls it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from relay.protocols.anthropic_messages.client import MEMBERS as MESSAGES
from relay.protocols.chat_completions.client import MEMBERS as CHAT
from relay.protocols.gemini.client import MEMBERS as GEMINI
from relay.protocols.naming.client_names import own_name
from relay.protocols.responses.client import MEMBERS as RESPONSES


@pytest.mark.parametrize(
    ("members", "name", "told"),
    [
        (CHAT, "stop", "stop"),
        (CHAT, "messages[3].content[1].type", "messages[3].content[1].type"),
        (CHAT, "serviceTier", "service_tier"),
        (RESPONSES, "messages[3].content[1].type", "input"),
        (RESPONSES, "messages[].content[].cache_control", "input[].content[].cache_control"),
        (RESPONSES, "messages[].reasoning_content", "input[reasoning]"),
        (RESPONSES, "tools[0].type", "tools[0].type"),
        (MESSAGES, "stop", "stop_sequences"),
        (MESSAGES, "tools[].function.parameters.pattern", "tools[].input_schema.pattern"),
        (RESPONSES, "response_format.json_schema.schema.maxLength", "text.format.schema.maxLength"),
        (GEMINI, "tools[].function.parameters.not", "tools[].functionDeclarations[].parameters.not"),
        (CHAT, "tools[].function.parameters.pattern", "tools[].function.parameters.pattern"),
        (MESSAGES, "users", "users"),
        (MESSAGES, "messages[].reasoning_content", "messages[].content[thinking]"),
        (GEMINI, "stop", "generationConfig.stopSequences"),
        (GEMINI, "presence_penalty", "generationConfig.presencePenalty"),
        (GEMINI, "messages[].content[1]", "contents"),
        (GEMINI, "contents[0].parts[1].fileData.fileUri", "contents[0].parts[1].fileData.fileUri"),
    ],
)
def test_members_have_the_names_of_the_clients_api(members: Mapping[str, str], name: str, told: str) -> None:
    assert own_name(name, members) == told
