"""The same counts in the forms of chat completions and of responses. Pure."""

from __future__ import annotations

from portal.lib.json import Json, int_of, object_of


def responses_usage(chat: Json) -> Json:
    """`usage` of a response, from that of a chat completion."""
    into, out = object_of(chat, "prompt_tokens_details"), object_of(chat, "completion_tokens_details")
    cached = int_of(into, "cached_tokens") or int_of(chat, "cached_tokens") or int_of(chat, "prompt_cache_hit_tokens")
    total_in, total_out = int_of(chat, "prompt_tokens"), int_of(chat, "completion_tokens")
    return {
        "input_tokens": total_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": int_of(into, "cache_write_tokens")},
        "output_tokens": total_out,
        "output_tokens_details": {"reasoning_tokens": int_of(out, "reasoning_tokens")},
        "total_tokens": int_of(chat, "total_tokens") or total_in + total_out,
    }


def chat_usage(response: Json) -> Json:
    """`usage` of a chat completion, from that of a response."""
    into, out = object_of(response, "input_tokens_details"), object_of(response, "output_tokens_details")
    total_in, total_out = int_of(response, "input_tokens"), int_of(response, "output_tokens")
    found_in: Json = {"cached_tokens": int_of(into, "cached_tokens"), "audio_tokens": int_of(into, "audio_tokens")}
    if "cache_write_tokens" in into:
        found_in["cache_write_tokens"] = int_of(into, "cache_write_tokens")
    return {
        "prompt_tokens": total_in,
        "completion_tokens": total_out,
        "total_tokens": int_of(response, "total_tokens") or total_in + total_out,
        "prompt_tokens_details": found_in,
        "completion_tokens_details": {
            "reasoning_tokens": int_of(out, "reasoning_tokens"), "audio_tokens": int_of(out, "audio_tokens"),
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def whole_usage(usage: Json) -> Json:
    """`usage` of a response with every member that OpenAI's has."""
    into, out = object_of(usage, "input_tokens_details"), object_of(usage, "output_tokens_details")
    total_in, total_out = int_of(usage, "input_tokens"), int_of(usage, "output_tokens")
    return {
        "input_tokens": total_in, "output_tokens": total_out, "total_tokens": total_in + total_out, **usage,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **into}, "output_tokens_details": {"reasoning_tokens": 0, **out},
    }  # fmt: skip
