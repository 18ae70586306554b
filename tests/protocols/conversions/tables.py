"""Answers as vendors really write them, and what a client of the other API must be told of each."""

from __future__ import annotations

import json
from typing import Any

from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.contract import Dialect
from relay.protocols.responses.client import ResponsesClient
from tests.protocols.codecs import codec, events, fed, fresh

DIALECT = Dialect(vendor="openrouter")
DONE = b"data: [DONE]\n\n"
EMOJI = "\N{GRINNING FACE}"
HIGH = "\\ud83d"  # half an emoji as JSON escapes it
LOW = "\\ude00"  # its other half


def lines(*chunks: str | bytes) -> bytes:
    """A stream of events that are given as text, because no encoder would write them."""
    return b"".join(b"data: " + (text.encode() if isinstance(text, str) else text) + b"\n\n" for text in chunks)


def delta(text: str, finish: str = "null") -> str:
    return f'{{"id":"c","model":"m","choices":[{{"index":0,"delta":{text},"finish_reason":{finish}}}]}}'


def calls(*pieces: str) -> str:
    return delta('{"tool_calls":[' + ",".join(pieces) + "]}")


def responses_client(request: dict[str, Any] | None = None) -> ResponsesClient:
    return ResponsesClient(
        request or {"model": "m"}, [{"role": "user", "content": "x"}], {"id": "resp_1"}, fresh(), lambda: 9
    )


def shown_items(output: Any) -> list[tuple[str, ...]]:
    """The output of a response, shortened. Ids that the portal made are shown as such."""
    found: list[tuple[str, ...]] = []
    for item in output:
        if item["type"] == "message":
            found.append(("text", *(part.get("text") or part.get("refusal") or "" for part in item["content"])))
        elif item["type"] == "reasoning":
            found.append(("reasoning", "".join(part["text"] for part in item["content"])))
        elif item["type"] == "image_generation_call":
            found.append(("image", item["result"]))
        else:
            found.append((item["call_id"], item["name"], item["arguments"]))
    return found


def streamed_response(raw: bytes) -> Any:
    """The final response of a stream. The deltas and the items that were streamed must say the same as it."""
    stream = codec()
    found = events(fed(stream, raw))
    assert stream.error is None and stream.done, stream.error
    final = found[-1]["response"]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["item"] for event in sorted(of(found, "output_item.done"), key=place)] == final["output"]
    assert [event["item"]["id"] for event in sorted(of(found, "output_item.added"), key=place)] == [
        item["id"] for item in final["output"]
    ]
    for item in final["output"]:
        mine = [event for event in found if event.get("item_id") == item["id"]]
        joined = "".join(event["delta"] for event in mine if event["type"].endswith(".delta"))
        assert joined == (item.get("arguments") if "arguments" in item else "".join(shown_items([item])[0][1:])) or (
            item["type"] == "image_generation_call"
        )
    return final


def of(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in found if event["type"] == f"response.{kind}"]


def place(event: dict[str, Any]) -> int:
    return int(event["output_index"])


def plain_response(message: Any, finish: Any = "stop", **more: Any) -> Any:
    body = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}
    found = ChatUpstream().completion(json.dumps(body).encode(), DIALECT)
    assert found is not None and found.completion is not None
    return responses_client().answer(found.completion)


FN = '"type":"function","function":'
CHAT_STREAMS: dict[str, tuple[list[str], list[tuple[str, ...]]]] = {
    # Identity of calls
    "two calls under one index (Ollama, Gemini)": (
        [
            calls(f'{{"index":0,"id":"call_a",{FN}{{"name":"read","arguments":"{{\\"path\\":\\"a\\"}}"}}}}'),
            calls(f'{{"index":0,"id":"call_b",{FN}{{"name":"read","arguments":"{{\\"path\\":\\"b\\"}}"}}}}'),
        ],
        [("call_a", "read", '{"path":"a"}'), ("call_b", "read", '{"path":"b"}')],
    ),
    "two calls under one index, arguments by id": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":""}}}}'),
            calls(f'{{"index":0,"id":"b",{FN}{{"name":"f","arguments":""}}}}'),
            calls('{"index":0,"id":"a","function":{"arguments":"{\\"n\\":1}"}}'),
            calls('{"index":0,"id":"b","function":{"arguments":"{\\"n\\":2}"}}'),
        ],
        [("a", "f", '{"n":1}'), ("b", "f", '{"n":2}')],
    ),
    "two calls under one index and without ids": (
        [
            calls('{"index":0,"function":{"name":"f","arguments":"{\\"n\\":1}"}}'),
            calls('{"index":0,"function":{"name":"f","arguments":"{\\"n\\":2}"}}'),
        ],
        [("call_0000", "f", '{"n":1}'), ("call_0001", "f", '{"n":2}')],
    ),
    "neither ids nor indexes, both in one chunk": (
        [calls('{"function":{"name":"f","arguments":"{}"}}', '{"function":{"name":"g","arguments":"{}"}}')],
        [("call_0000", "f", "{}"), ("call_0001", "g", "{}")],
    ),
    "neither ids nor indexes, pieces by position": (
        [
            calls('{"function":{"name":"f"}}', '{"function":{"name":"g"}}'),
            calls('{"function":{"arguments":"{\\"n\\""}}', '{"function":{"arguments":"{\\"m\\""}}'),
            calls('{"function":{"arguments":":1}"}}', '{"function":{"arguments":":2}"}}'),
        ],
        [("call_0000", "f", '{"n":1}'), ("call_0001", "g", '{"m":2}')],
    ),
    "a new id with every piece": (
        [
            calls(f'{{"index":0,"id":"x1",{FN}{{"name":"f","arguments":""}}}}'),
            calls('{"index":0,"id":"x2","function":{"arguments":"{\\"n\\""}}'),
            calls('{"index":0,"id":"x3","function":{"name":"f","arguments":":1}"}}'),
        ],
        [("x1", "f", '{"n":1}')],
    ),
    "one id for two calls, made of the name": (
        [
            calls(f'{{"index":0,"id":"call_f",{FN}{{"name":"f","arguments":"{{\\"n\\":1}}"}}}}'),
            calls(f'{{"index":1,"id":"call_f",{FN}{{"name":"f","arguments":""}}}}'),
            calls('{"index":1,"function":{"arguments":"{\\"n\\":2}"}}'),
        ],
        [("call_f", "f", '{"n":1}'), ("call_0001", "f", '{"n":2}')],
    ),
    "a name in pieces": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"get_"}}}}'),
            calls('{"index":0,"function":{"name":"weather"}}'),
            calls('{"index":0,"function":{"arguments":"{}"}}'),
        ],
        [("a", "get_weather", "{}")],
    ),
    "a name that is repeated in every piece": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":"{{\\"n\\""}}}}'),
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":":1}}"}}}}'),
        ],
        [("a", "f", '{"n":1}')],
    ),
    "an id that comes after the name": (
        [
            calls('{"index":0,"function":{"name":"f"}}'),
            calls('{"index":0,"id":"a","function":{"arguments":"{}"}}'),
        ],
        [("a", "f", "{}")],
    ),
    "indexes from 1, with a gap, out of order": (
        [
            calls(f'{{"index":3,"id":"b",{FN}{{"name":"g","arguments":"{{}}"}}}}'),
            calls(f'{{"index":1,"id":"a",{FN}{{"name":"f","arguments":"{{}}"}}}}'),
        ],
        [("b", "g", "{}"), ("a", "f", "{}")],
    ),
    "the whole call after its pieces": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":"{{\\"n\\""}}}}'),
            calls('{"index":0,"function":{"arguments":":1}"}}'),
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":"{{\\"n\\":1}}"}}}}'),
        ],
        [("a", "f", '{"n":1}')],
    ),
    "an index that counts the pieces": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":""}}}}'),
            calls('{"index":1,"function":{"arguments":"{\\"n\\""}}'),
            calls('{"index":2,"function":{"arguments":":1}"}}'),
        ],
        [("a", "f", '{"n":1}')],
    ),
    "ids and indexes of other types": (
        [calls(f'{{"index":"0","id":7,{FN}{{"name":"f","arguments":"{{}}"}}}}')],
        [("7", "f", "{}")],
    ),
    # Arguments
    "empty arguments": ([calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":""}}}}')], [("a", "f", "{}")]),
    "arguments of white space": (
        [calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":" "}}}}')],
        [("a", "f", " {}")],
    ),
    "null arguments": ([calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":null}}}}')], [("a", "f", "{}")]),
    "no arguments": ([calls(f'{{"index":0,"id":"a",{FN}{{"name":"f"}}}}')], [("a", "f", "{}")]),
    "arguments as an object": (
        [calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":{{"n":1}}}}}}')],
        [("a", "f", '{"n":1}')],
    ),
    "an empty object, then pieces": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":{{}}}}}}'),
            calls('{"index":0,"function":{"arguments":"{\\"n\\":1}"}}'),
        ],
        [("a", "f", '{"n":1}')],
    ),
    "the deprecated function_call": (
        [
            delta('{"function_call":{"name":"f","arguments":"{\\"n\\""}}'),
            delta('{"function_call":{"arguments":":1}"}}'),
        ],
        [("call_0000", "f", '{"n":1}')],
    ),
    # Characters in halves
    "half an emoji in the text": (
        [delta(f'{{"content":"ok {HIGH}"}}'), delta(f'{{"content":"{LOW} done"}}')],
        [("text", f"ok {EMOJI} done")],
    ),
    "halves with an empty delta and another chunk between": (
        [delta(f'{{"content":"{HIGH}"}}'), delta('{"content":""}'), delta("{}"), delta(f'{{"content":"{LOW}"}}')],
        [("text", EMOJI)],
    ),
    "a half that stays one": ([delta(f'{{"content":"a{HIGH}"}}'), delta('{"content":"b"}')], [("text", "a\ufffdb")]),
    "a half at the end": ([delta(f'{{"content":"a{HIGH}"}}')], [("text", "a\ufffd")]),
    "a second half alone": ([delta(f'{{"content":"a{LOW}b"}}')], [("text", "a\ufffdb")]),
    "half an emoji in the reasoning": (
        [
            delta(f'{{"reasoning_content":"hm {HIGH}"}}'),
            delta(f'{{"reasoning_content":"{LOW}"}}'),
            delta('{"content":"so"}'),
        ],
        [("reasoning", f"hm {EMOJI}"), ("text", "so")],
    ),
    "reasoning that ends in a half": (
        [delta(f'{{"reasoning":"hm {HIGH}"}}'), delta('{"content":"so"}')],
        [("reasoning", "hm \ufffd"), ("text", "so")],
    ),
    "half an emoji in a refusal": (
        [delta(f'{{"refusal":"no {HIGH}"}}'), delta(f'{{"refusal":"{LOW}"}}')],
        [("text", f"no {EMOJI}")],
    ),
    "half an emoji in the arguments of two calls": (
        [
            calls(f'{{"index":0,"id":"a",{FN}{{"name":"f","arguments":"{{\\"x\\":\\"{HIGH}"}}}}'),
            calls(f'{{"index":1,"id":"b",{FN}{{"name":"g","arguments":"{{\\"y\\":\\"{HIGH}"}}}}'),
            calls(f'{{"index":0,"function":{{"arguments":"{LOW}\\"}}"}}}}'),
            calls(f'{{"index":1,"function":{{"arguments":"{LOW}\\"}}"}}}}'),
        ],
        [("a", "f", f'{{"x":"{EMOJI}"}}'), ("b", "g", f'{{"y":"{EMOJI}"}}')],
    ),
    # Reasoning
    "reasoning under two names": (
        [delta('{"reasoning":"hm","reasoning_content":"hm"}'), delta('{"content":"so"}')],
        [("reasoning", "hm"), ("text", "so")],
    ),
    "reasoning_details alone": (
        [
            delta('{"reasoning_details":[{"type":"reasoning.text","text":"h","index":0}]}'),
            delta('{"reasoning_details":[{"type":"reasoning.summary","summary":"m","index":1}]}'),
            delta('{"content":"so"}'),
        ],
        [("reasoning", "hm"), ("text", "so")],
    ),
    "parts of the type thinking (Mistral)": (
        [
            delta('{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}'),
            delta('{"content":[{"type":"text","text":"so"},{"type":"reference","reference_ids":[1]}]}'),
        ],
        [("reasoning", "hm"), ("text", "so")],
    ),
    "tags in the text are text": (
        [delta('{"content":"<think>hm</think> so"}')],
        [("text", "<think>hm</think> so")],
    ),
    # Others
    "the whole message so far beside each delta (Perplexity)": (
        [
            '{"choices":[{"index":0,"delta":{"content":"a"},"message":{"content":"a"}}]}',
            '{"choices":[{"index":0,"delta":{},"message":{"content":"a"},"finish_reason":"stop"}]}',
        ],
        [("text", "a")],
    ),
    "a message in place of a delta": (
        ['{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'],
        [("text", "a")],
    ),
    "images (OpenRouter)": (
        [
            delta('{"content":"see","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}'),
            delta('{"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}'),
        ],
        [("text", "see"), ("image", "AAAA")],
    ),
    "an image at an address": (
        [delta('{"images":[{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}]}')],
        [("text", "![image](https://x.example/a.png)")],
    ),
    "what audio says": ([delta('{"audio":{"id":"a","transcript":"hello"}}')], [("text", "hello")]),
    "a keep-alive as data": (["ping", delta('{"content":"a"}'), "null"], [("text", "a")]),
    "white space that JSON forbids": ([delta('{"content":"a\tb"}')], [("text", "a\tb")]),
}


def function(name: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


CHAT_MESSAGES: dict[str, tuple[dict[str, Any], list[tuple[str, ...]]]] = {
    "empty arguments": ({"tool_calls": [function("f", "", id="a")]}, [("a", "f", "{}")]),
    "no arguments": ({"tool_calls": [{"id": "a", "function": {"name": "f"}}]}, [("a", "f", "{}")]),
    "arguments as an object": ({"tool_calls": [function("f", {"n": 1}, id="a")]}, [("a", "f", '{"n":1}')]),
    "a call that is listed twice": ({"tool_calls": [function("f", id="a")] * 2}, [("a", "f", "{}")]),
    "one id for two calls": (
        {"tool_calls": [function("f", '{"n":1}', id="a"), function("f", '{"n":2}', id="a")]},
        [("a", "f", '{"n":1}'), ("call_1", "f", '{"n":2}')],
    ),
    "a call without an id": ({"tool_calls": [function("f")]}, [("call_0", "f", "{}")]),
    "the deprecated function_call": ({"function_call": {"name": "f", "arguments": "{}"}}, [("call_0", "f", "{}")]),
    "reasoning under two names": (
        {"content": "so", "reasoning": "hm", "reasoning_content": "hm"},
        [("reasoning", "hm"), ("text", "so")],
    ),
    "reasoning_details alone": (
        {"content": "so", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        [("reasoning", "hm"), ("text", "so")],
    ),
    "parts of the type thinking": (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "so"},
            ]
        },
        [("reasoning", "hm"), ("text", "so")],
    ),
    "half an emoji in each of two parts": (
        {"content": [{"type": "text", "text": "ok \ud83d"}, {"type": "text", "text": "\ude00"}]},
        [("text", f"ok {EMOJI}")],
    ),
    "a half that stays one": ({"content": "a\ud83d"}, [("text", "a\ufffd")]),
    "images": (
        {"content": "see", "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        [("text", "see"), ("image", "AAAA")],
    ),
    "what audio says": (
        {"content": None, "audio": {"id": "a", "transcript": "hello", "data": ""}},
        [("text", "hello")],
    ),
    "a refusal": ({"content": None, "refusal": "no"}, [("text", "no")]),
}


def event(kind: str, text: str = "") -> str:
    return f'{{"type":"response.{kind}"{"," + text if text else ""}}}'


def fc(item_id: str, call_id: str, name: str, arguments: str = "") -> str:
    inner = json.dumps({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})
    return f'"item":{{"id":"{item_id}",{inner[1:]}' if item_id else f'"item":{inner}'


def msg(item_id: str, text: str) -> str:
    return (
        f'"item":{{"id":"{item_id}","type":"message","role":"assistant",'
        f'"content":[{{"type":"output_text","text":"{text}"}}]}}'
    )


def end(*items: str, kind: str = "completed") -> str:
    output = ",".join(item.removeprefix('"item":') for item in items)
    return event(kind, f'"response":{{"id":"resp_1","status":"{kind}","output":[{output}]}}')


def text_delta(text: str, where: str = "") -> str:
    return event("output_text.delta", f'"delta":"{text}"' + ("," + where if where else ""))


def arguments_delta(text: str, where: str) -> str:
    return event("function_call_arguments.delta", f'"delta":{json.dumps(text)},{where}')


Shown = dict[str, Any]
RESPONSE_STREAMS: dict[str, tuple[list[str], Shown]] = {
    "two calls without output_index": (
        [
            event("output_item.added", fc("fc_1", "c1", "f")),
            event("output_item.added", fc("fc_2", "c2", "f")),
            arguments_delta('{"n"', '"item_id":"fc_1"'),
            arguments_delta('{"n"', '"item_id":"fc_2"'),
            arguments_delta(":1}", '"item_id":"fc_1"'),
            arguments_delta(":2}", '"item_id":"fc_2"'),
            event("output_item.done", fc("fc_1", "c1", "f", '{"n":1}')),
            event("output_item.done", fc("fc_2", "c2", "f", '{"n":2}')),
            end(fc("fc_1", "c1", "f", '{"n":1}'), fc("fc_2", "c2", "f", '{"n":2}')),
        ],
        {"calls": [("c1", "f", '{"n":1}'), ("c2", "f", '{"n":2}')]},
    ),
    "two calls with output_index 0": (
        [
            event("output_item.added", '"output_index":0,' + fc("fc_1", "c1", "f")),
            arguments_delta('{"n":1}', '"output_index":0'),
            event("output_item.done", '"output_index":0,' + fc("fc_1", "c1", "f", '{"n":1}')),
            event("output_item.added", '"output_index":0,' + fc("fc_2", "c2", "f")),
            arguments_delta('{"n":2}', '"output_index":0'),
            event("output_item.done", '"output_index":0,' + fc("fc_2", "c2", "f", '{"n":2}')),
            end(fc("fc_1", "c1", "f", '{"n":1}'), fc("fc_2", "c2", "f", '{"n":2}')),
        ],
        {"calls": [("c1", "f", '{"n":1}'), ("c2", "f", '{"n":2}')]},
    ),
    "a call at output_index 1, alone in the final output": (
        [
            event("output_item.added", '"output_index":1,' + fc("fc_1", "c1", "f")),
            arguments_delta('{"n":1}', '"output_index":1,"item_id":"fc_1"'),
            event("output_item.done", '"output_index":1,' + fc("fc_1", "c1", "f", '{"n":1}')),
            end(fc("fc_1", "c1", "f", '{"n":1}')),
        ],
        {"calls": [("c1", "f", '{"n":1}')]},
    ),
    "the same without ids of items": (
        [
            event("output_item.added", '"output_index":1,' + fc("", "c1", "f")),
            event("output_item.done", '"output_index":1,' + fc("", "c1", "f", "{}")),
            end(fc("", "c1", "f", "{}")),
        ],
        {"calls": [("c1", "f", "{}")]},
    ),
    "a text at output_index 1, alone in the final output": (
        [
            event("output_item.added", '"output_index":1,' + msg("msg_1", "")),
            text_delta("Hi", '"output_index":1,"item_id":"msg_1"'),
            event("output_item.done", '"output_index":1,' + msg("msg_1", "Hi")),
            end(msg("msg_1", "Hi")),
        ],
        {"text": "Hi"},
    ),
    "other ids at the end": (
        [text_delta("Hi", '"output_index":1,"item_id":"msg_1"'), end(msg("msg_9", "Hi"))],
        {"text": "Hi"},
    ),
    "other ids between added and done": (
        [
            event("output_item.added", '"output_index":0,' + fc("fc_1", "c1", "f")),
            arguments_delta('{"n":1}', '"output_index":0,"item_id":"fc_x"'),
            event("output_item.done", '"output_index":0,' + fc("fc_y", "c1", "f", '{"n":1}')),
            end(fc("fc_z", "c1", "f", '{"n":1}')),
        ],
        {"calls": [("c1", "f", '{"n":1}')]},
    ),
    "another call id when it is done": (
        [
            event("output_item.added", '"output_index":0,' + fc("fc_1", "c1", "f")),
            event("output_item.done", '"output_index":0,' + fc("fc_1", "c2", "f", '{"n":1}')),
            end(fc("fc_1", "c2", "f", '{"n":1}')),
        ],
        {"calls": [("c1", "f", '{"n":1}')]},
    ),
    "the text was trimmed at the end": ([text_delta("Hi \\n"), end(msg("msg_1", "Hi"))], {"text": "Hi \n"}),
    "a final output with more items": (
        [text_delta("Hi", '"item_id":"msg_1"'), end(msg("msg_1", "Hi"), msg("msg_2", " there"), fc("f1", "c1", "f"))],
        {"text": "Hi there", "calls": [("c1", "f", "{}")]},
    ),
    "a final output with more items, their ids unknown": (
        [text_delta("Hi"), end(msg("msg_1", "Hi"), msg("msg_2", " there"))],
        {"text": "Hi there"},
    ),
    "an empty final output": ([text_delta("Hi"), end()], {"text": "Hi"}),
    "a final output alone": ([end(msg("msg_1", "Hi"))], {"text": "Hi"}),
    "only the last of the deltas was lost": ([text_delta("H"), end(msg("msg_1", "Hi"))], {"text": "Hi"}),
    "a text that is known when it is done": ([event("output_text.done", '"text":"Hi"'), end()], {"text": "Hi"}),
    "a text that is known when its part is done": (
        [event("content_part.done", '"part":{"type":"output_text","text":"Hi"}'), end()],
        {"text": "Hi"},
    ),
    "everything said again as it is done": (
        [
            text_delta("Hi", '"item_id":"m"'),
            event("output_text.done", '"item_id":"m","text":"Hi"'),
            event("content_part.done", '"item_id":"m","part":{"type":"output_text","text":"Hi"}'),
            event("output_item.done", msg("m", "Hi")),
            event("output_item.done", msg("m", "Hi")),
            end(msg("m", "Hi"), msg("m", "Hi")),
        ],
        {"text": "Hi"},
    ),
    "one item id for two calls": (
        [
            event("output_item.added", fc("fc", "c1", "f")),
            event("output_item.done", fc("fc", "c1", "f", '{"n":1}')),
            event("output_item.added", fc("fc", "c2", "f")),
            event("output_item.done", fc("fc", "c2", "f", '{"n":2}')),
            end(),
        ],
        {"calls": [("c1", "f", '{"n":1}'), ("c2", "f", '{"n":2}')]},
    ),
    "a call that is known from its arguments": (
        [
            arguments_delta('{"n"', '"item_id":"fc_1"'),
            event("function_call_arguments.done", '"item_id":"fc_1","name":"f","arguments":"{\\"n\\":1}"'),
            end(),
        ],
        {"calls": [("call_fallback_0", "f", '{"n":1}')]},
    ),
    "empty arguments": (
        [
            event("output_item.added", fc("fc_1", "c1", "f")),
            event("function_call_arguments.done", '"item_id":"fc_1","arguments":""'),
            event("output_item.done", fc("fc_1", "c1", "f")),
            end(fc("fc_1", "c1", "f")),
        ],
        {"calls": [("c1", "f", "{}")]},
    ),
    "a call that is never done": (
        [event("output_item.added", fc("fc_1", "c1", "f")), end()],
        {"calls": [("c1", "f", "{}")]},
    ),
    "a name that comes when the call is done": (
        [
            event("output_item.added", fc("fc_1", "c1", "")),
            arguments_delta('{"n":1}', '"item_id":"fc_1"'),
            event("output_item.done", fc("fc_1", "c1", "f", '{"n":1}')),
            end(),
        ],
        {"calls": [("c1", "f", '{"n":1}')]},
    ),
    "a call without an id": ([end(fc("", "", "f", "{}"))], {"calls": [("call_fallback_0", "f", "{}")]}),
    "half an emoji": ([text_delta(f"ok {HIGH}"), text_delta(f"{LOW} done"), end()], {"text": f"ok {EMOJI} done"}),
    "half an emoji, and the whole at the end": (
        [
            text_delta(f"ok {HIGH}", '"item_id":"msg_1"'),
            text_delta(f"{LOW}", '"item_id":"msg_1"'),
            event("output_item.done", msg("msg_1", f"ok {HIGH}{LOW}")),
            end(msg("msg_1", f"ok {HIGH}{LOW}")),
        ],
        {"text": f"ok {EMOJI}"},
    ),
    "half an emoji of which the other half comes with the whole": (
        [text_delta(f"ok {HIGH}", '"item_id":"msg_1"'), end(msg("msg_1", f"ok {HIGH}{LOW}"))],
        {"text": f"ok {EMOJI}"},
    ),
    "a half that stays one": ([text_delta(f"ok {HIGH}"), end()], {"text": "ok \ufffd"}),
    "half an emoji in the arguments": (
        [
            event("output_item.added", fc("fc_1", "c1", "f")),
            event("function_call_arguments.delta", f'"item_id":"fc_1","delta":"{{\\"x\\":\\"{HIGH}"'),
            event("function_call_arguments.delta", f'"item_id":"fc_1","delta":"{LOW}\\"}}"'),
            end(),
        ],
        {"calls": [("c1", "f", f'{{"x":"{EMOJI}"}}')]},
    ),
    "reasoning that is known when it is done": (
        [
            event("output_item.done", '"item":{"id":"rs_1","type":"reasoning","summary":[{"text":"hm"}]}'),
            text_delta("so"),
            end(),
        ],
        {"reasoning": "hm", "text": "so"},
    ),
    "a summary and the reasoning itself": (
        [
            event("reasoning_summary_text.delta", '"item_id":"rs_1","delta":"short"'),
            event("reasoning_text.delta", '"item_id":"rs_1","delta":"long"'),
            end(),
        ],
        {"reasoning": "short"},
    ),
    "two reasoning items": (
        [
            event("reasoning_text.delta", '"item_id":"rs_1","delta":"one"'),
            event("reasoning_text.delta", '"item_id":"rs_2","output_index":1,"delta":"two"'),
            end(),
        ],
        {"reasoning": "one\n\ntwo"},
    ),
    "an image": (
        [end('"item":{"id":"ig_1","type":"image_generation_call","result":"AAAA"}')],
        {"images": ["data:image/png;base64,AAAA"]},
    ),
}


def shown_chat(found: list[dict[str, Any]]) -> Shown:
    """What a chat client puts together of its chunks."""
    shown: Shown = {}
    named: dict[int, list[str]] = {}
    for choice in (choice for one in found for choice in one["choices"]):
        given = choice["delta"]
        for name, to in (("content", "text"), ("reasoning_content", "reasoning")):
            if given.get(name):
                shown[to] = shown.get(to, "") + given[name]
        for image in given.get("images", ()):
            shown.setdefault("images", []).append(image["image_url"]["url"])
        for call in given.get("tool_calls", ()):
            entry = named.setdefault(call["index"], ["", "", ""])
            for place, piece in enumerate(
                (call.get("id"), call["function"].get("name"), call["function"]["arguments"])
            ):
                entry[place] += piece or ""
    if named:
        shown["calls"] = [tuple(named[index]) for index in sorted(named)]
    return shown
