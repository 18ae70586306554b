"""What an upstream reports beside the usage of its answer: summaries and pictures that it made for it."""

from __future__ import annotations

import json

from relay.gateway.charging.believed import Expected, believed
from relay.protocols.anthropic_messages.usage import parse_messages_usage
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.usage import parse_responses_usage, with_tools
from relay.protocols.usage import Delivered, Usage


def test_a_summary_is_under_no_limit_of_the_answer() -> None:
    entry = {"type": "compaction", "input_tokens": 900, "output_tokens": 3500}
    reported = {"input_tokens": 30, "output_tokens": 90, "iterations": [entry]}
    usage = parse_messages_usage(json.dumps(reported).encode())
    assert usage == Usage(930, output=3590)
    delivered = Delivered(400, lambda: 90.0)
    assert believed(usage, delivered, Expected(30, output_limit=100)) == (usage, True)


def test_images_of_a_hosted_tool_are_part_of_what_is_charged() -> None:
    plain = b'{"input_tokens":30,"output_tokens":90,"output_tokens_details":{"reasoning_tokens":80}}'
    images = {
        "input_tokens": 50,
        "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
        "output_tokens": 4160,
    }
    tools = json.dumps({"image_gen": images, "web_search": {"num_requests": 0}}).encode()
    usage = with_tools(parse_responses_usage(plain), tools)
    assert usage == Usage(80, image_input=40, output=4250, reasoning=80)
    delivered = Delivered(400, lambda: 9.0, opaque=lambda: True)
    assert believed(usage, delivered, Expected(30, output_limit=100)) == (usage, True)
    for none in (b"", b"null", b"[]", b'{"image_gen":null}', b'{"image_gen":{"input_tokens":"many"}}'):
        assert with_tools(parse_responses_usage(plain), none) == parse_responses_usage(plain)
    body = b'{"id":"resp_1","status":"completed","output":[{"type":"image_generation_call","result":"aGk="}],"usage":'
    body += plain + b',"tool_usage":' + tools + b"}"
    answer = parse_responses_answer(body)
    stream = ResponsesStream(lambda response: response)
    stream.feed(b"event: response.completed\ndata: " + b'{"type":"response.completed","response":' + body + b"}\n\n")
    assert answer is not None and answer.usage == stream.usage == usage
