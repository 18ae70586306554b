"""What overrides may change, and what never: keys, whose server it is, and what the portal itself decides. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from portal.lib.json import encode
from portal.lib.redaction.redact import redact
from portal.lib.texts import TranslatableError, gettext_noop, whole_number
from relay.protocols.fields import MAX_TOKENS, folded
from relay.protocols.naming import models
from relay.protocols.prompts.counts import COUNTS
from relay.protocols.prompts.lengths import is_least_length, is_length
from relay.protocols.prompts.thinking import may_change_budget

EACH: Final = "*"
# What the portal decides: the model (served under another name on the channel's list of models), whether there is a
# stream, and where a conversation goes on.
_DECIDED: Final = frozenset((
    "model", "stream", "stream_options", "stream_format", "background", "store", "previous_response_id",
    "conversation", "continuationtoken", "cachedcontent", "continuation_token", "cached_content", "agent",
    "previous_interaction_id", "webhook_config",
))  # fmt: skip
# What the user says, which is counted before a channel is chosen.
_CONTENT: Final = frozenset((
    "messages", "input", "contents", "content", "requests", "prompt", "query", "documents", "file", "files", "image",
    "images", "mask", "video",
))  # fmt: skip
_OF_MESSAGES: Final = frozenset(("role", "content", "parts", "type", "text", "input", "output", "arguments"))
# What brings tools, which may cost money of their own, or name models, servers and keys. They may be removed.
_TOOLS: Final = frozenset((
    "tools", "functions", "mcp_servers", "container", "tool_resources", "web_search_options", "plugins", "moderation",
))  # fmt: skip
# Of the parameters that clients may not use, those by which an operator says how another relay shall serve.
_ROUTING: Final = frozenset(("provider", "tags", "group"))
_MORE_ANSWERS: Final = COUNTS | {
    "best_of", "num_beams", "beam_width", "sequential_image_generation", "sequential_image_generation_options",
}  # fmt: skip
# As paths with dots between their names, whatever API they are of.
_OTHERS: Final = (
    frozenset(folded(name.rpartition("/")[2]) for name in (*models.OTHERS, *models.NEEDED) if "[" not in name)
    - _ROUTING
)
_KEYS: Final = re.compile(
    r"(?:^|[_-])(?:api_?key|apikey|key|token|access_token|secret|password|passwd|authorization|credentials?|cookie)$"
)
_NO_KEYS: Final = frozenset(("prompt_cache_key",))
_AUTH: Final = re.compile(r"(?:^|[_-])auth(?:$|[_-])")
# Members whose own members have names of somebody else's, such as the properties of a schema.
_FREE: Final = frozenset(("schema", "jsonschema", "responseschema", "responsejsonschema", "metadata", "labels"))
_CONFIGS: Final = frozenset(("generationconfig", "generation_config", "options", "inferenceconfig"))
_THINKING: Final = frozenset(("thinking", "reasoning"))
_MOST_ANSWERS: Final = 10
# Parameters that add nothing to a prompt but what they say themselves.
_INERT: Final = frozenset((
    "temperature", "top_p", "top_k", "min_p", "top_a", "stop", "stop_sequences", "seed", "presence_penalty",
    "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format",
    "tool_choice", "parallel_tool_calls", "max_tool_calls", "reasoning_effort", "reasoning", "thinking", "verbosity",
    "modalities", "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "truncation",
    "prompt_cache_retention", "text", "include", "output_config", "output_format", "cache_control", "speed",
    "inference_geo", "generationconfig", "generation_config", "safetysettings", "safety_settings", "labels",
    "servicetier", "toolconfig", "tool_config", "instructions", "system", "systeminstruction", "system_instruction",
    "n", "dimensions", "encoding_format", "size", "quality", "style", "background", "output_compression", "voice",
    "language", "top_n", "return_documents", "enable_thinking", "thinking_budget", "provider", "tags", "group",
    "tasktype", "outputdimensionality", "user_location", "partial_images", "input_fidelity", "chunking_strategy",
    "options", "keep_alive", "inferenceconfig", "guardrailconfig", "performanceconfig", "requestmetadata",
    "outputconfig", "additionalmodelrequestfields",
))  # fmt: skip
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,998}[!-~])?")
# Hop-by-hop (RFC 9110, 7.6.1), of the connection, of the body, and what says who asks.
_FORBIDDEN: Final = frozenset((
    "authorization", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "expect",
    "content-length", "content-type", "content-encoding", "accept-encoding", "cookie", "set-cookie", "forwarded", "via",
    "x-api-key", "api-key", "x-goog-api-key", "x-real-ip", "http2-settings", "alt-svc", "date", "range",
    # By which servers tell a request that was sent twice, and answer with what the first was told.
    "idempotency-key", "x-idempotency-key",
))  # fmt: skip
_FORBIDDEN_BEGINNINGS: Final = ("proxy-", "sec-", "x-forwarded-", "x-airelays-", "x-relay-", "x-amz-", ":")
_SECRET_WORDS: Final = ("authorization", "secret", "password", "token", "cookie", "credential", "api-key", "apikey")


class Refused(TranslatableError):
    """Something that may not be overridden. The message says why."""


def is_inert(name: str) -> bool:
    """Whether a member adds nothing to a prompt but what it says itself."""
    plain = folded(name)
    return plain in _INERT or is_length(plain)


def is_inside_content(path: Sequence[str]) -> bool:
    """Whether a path leads into what the user says."""
    return folded(path[0]) in _CONTENT


def may_cost(path: Sequence[str]) -> bool:
    """Whether a path leads to a limit or a number of answers, or to an object that has them."""
    top = folded(path[0])
    if top in _CONFIGS:
        return len(path) == 1 or is_length(path[1]) or path[1].replace("_", "").lower() == "candidatecount"
    return is_length(top) or top == "n"


def may_change_thinking(path: Sequence[str]) -> bool:
    """Whether a path leads to how much a model may think, or to an object that may say so."""
    return folded(path[-1]) in _CONFIGS or may_change_budget(path)


def check_removed(path: Sequence[str]) -> None:
    """Raises Refused for what may not be removed: what the portal decides, and what the user says."""
    top, last = folded(path[0]), folded(path[-1])
    if top in _DECIDED:
        raise _decided(path[0])
    if path[-1] == EACH:
        raise Refused(
            gettext_noop("“%(path)s” ends with a list: say which member of its entries."), path=".".join(path)
        )
    if top in _CONTENT and (len(path) == 1 or last in _OF_MESSAGES):
        raise Refused(
            gettext_noop(
                "“%(path)s” is what the user says. Only members beside it can be removed, such as messages.*.name."
            ),
            path=".".join(path),
        )


def check_source(path: Sequence[str]) -> None:
    """Raises Refused for what may not be renamed."""
    check_removed(path)
    _check_no_lists(path)
    if folded(path[0]) in _CONTENT | _TOOLS or _names_another(path):
        raise Refused(gettext_noop("“%(path)s” cannot be renamed."), path=".".join(path))


def check_value(
    path: Sequence[str], value: object, families: Collection[str] | None = None, renamed: bool = False
) -> None:
    """Raises Refused for a member that may not be set, or not to this value.

    `families`: of the APIs that it is set for; None: all. `renamed`: its value is the client's.
    """
    top = folded(path[0])
    _check_no_lists(path)
    if top in _DECIDED and not (top == "background" and families is not None and set(families) == {"images"}):
        raise _decided(path[0])
    if top in _CONTENT:
        raise Refused(gettext_noop("“%(path)s” is what the user says, and cannot be set."), path=".".join(path))
    if top in _TOOLS:
        raise Refused(
            gettext_noop(
                "“%(path)s” cannot be set: tools have prices, models and keys of their own. It can be removed."
            ),
            path=".".join(path),
        )
    if renamed and top in _ROUTING:
        raise Refused(gettext_noop("Nothing can be renamed to “%(path)s”: clients would choose who serves."), path=top)
    _check_members(list(path), value, renamed)
    if redact(text := encode(value).decode()) != text:
        raise Refused(
            gettext_noop(
                "The value of “%(path)s” looks like a key. Keys are stored encrypted, as keys of the channel."
            ),
            path=".".join(path),
        )


def _names_another(path: Sequence[str]) -> bool:
    """Whether a path leads to, or into, what lets another model, address or key serve a request."""
    names = [folded(step) for step in path]
    return any(".".join(names[:length]) in _OTHERS for length in range(1, len(names) + 1))


def _may_name_another(path: Sequence[str]) -> bool:
    """Whether a path leads to an object that may have such a member."""
    place = ".".join(folded(step) for step in path) + "."
    return any(other.startswith(place) for other in _OTHERS)


def _check_no_lists(path: Sequence[str]) -> None:
    if EACH in path:
        raise Refused(
            gettext_noop("In lists, members can be removed only: “%(path)s” cannot be set or renamed."),
            path=".".join(path),
        )


def _check_members(path: list[str], value: object, renamed: bool) -> None:
    """The names on the way to a value, and of the members in it."""
    name, top = folded(path[-1]), folded(path[0])
    shown = ".".join(path)
    if _names_another(path) or (renamed and _may_name_another(path)):
        raise Refused(
            gettext_noop("“%(path)s” cannot be set: it would let another model, address or key serve the request."),
            path=shown,
        )
    if _KEYS.search(name) and name not in _NO_KEYS:
        raise Refused(
            gettext_noop("“%(path)s” looks like a key by its name. Keys are stored encrypted, as keys of the channel."),
            path=shown,
        )
    if name.endswith(models.ENDINGS):
        raise Refused(
            gettext_noop("“%(path)s” names a model. What a model is called upstream is said on the channel's models."),
            path=shown,
        )
    if is_least_length(name):
        raise Refused(gettext_noop("“%(path)s” may make answers longer than their limit, and is not sent."), path=shown)
    in_config = len(path) == 2 and top in _CONFIGS
    if is_length(name):
        if len(path) > 1 and not in_config and top not in _THINKING:
            raise Refused(
                gettext_noop("“%(path)s” is no place where the portal reads the limit of an answer."), path=shown
            )
        if not renamed and not _whole(value, MAX_TOKENS):
            raise Refused(gettext_noop("“%(path)s” must be a whole number of tokens, at least 1."), path=shown)
    plain = name.replace("_", "")
    if (len(path) == 1 and name == "n") or (in_config and plain == "candidatecount"):
        if renamed or not _whole(value, _MOST_ANSWERS):
            raise Refused(gettext_noop("“%(path)s” must be a whole number from 1 to 10."), path=shown)
    elif name in _MORE_ANSWERS or plain == "candidatecount":
        raise Refused(gettext_noop("“%(path)s” would make more answers than are paid for. Set “n”."), path=shown)
    if plain in _FREE:
        return
    if isinstance(value, dict):
        for member, inner in value.items():
            _check_members([*path, str(member)], inner, renamed)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, (dict, list)):
                _check_members([*path, EACH], inner, renamed)


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and whole_number(value, 1, most) is not None


def _decided(name: str) -> Refused:
    return Refused(gettext_noop("“%(name)s” is decided by the portal, and cannot be overridden."), name=name)


def check_header(name: object, credential: str) -> str:
    """The name of a header in lower case. Raises Refused for one that may not be set or removed.

    `credential`: the one in which the vendor expects the key.
    """
    if not isinstance(name, str) or not _HEADER.fullmatch(name):
        raise Refused(gettext_noop("“%(name)s” is no name of a header."), name=str(name)[:100])
    found = name.lower()
    if (
        found in _FORBIDDEN
        or found == credential.lower()
        or found.startswith(_FORBIDDEN_BEGINNINGS)
        or any(word in found for word in _SECRET_WORDS)
        or _KEYS.search(found)
        or _AUTH.search(found)
    ):
        raise Refused(
            gettext_noop(
                "The header “%(name)s” cannot be overridden: it carries a key, or belongs to the connection or body."
            ),
            name=name,
        )
    return found


def check_header_value(name: str, value: object) -> str:
    """The value of a header. Raises Refused."""
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise Refused(
            gettext_noop("The value of the header “%(name)s” must be plain characters, on one line."), name=name
        )
    if redact(value) != value:
        raise Refused(
            gettext_noop(
                "The value of “%(path)s” looks like a key. Keys are stored encrypted, as keys of the channel."
            ),
            path=name,
        )
    return value
