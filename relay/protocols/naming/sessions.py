"""The session that a request belongs to, and the agent in it, as clients name them in headers and bodies. Pure.

Sources, looked up 2026-11-30: what Claude Code 2.1, Codex 0.171 and opencode 1.18 send, recorded in
`tests/protocols/naming/clients.json`; code.claude.com/docs/en/llm-gateway-protocol; openai/codex #9107 and #14312;
anomalyco/opencode #20744; Open WebUI's `ENABLE_FORWARD_USER_INFO_HEADERS`; OpenRouter's `session_id`. Gemini CLI sends
none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

LONGEST: Final = 256  # characters of an id; longer ones name nothing


class SessionIds(NamedTuple):
    """Ids as a client sent them, bare: to be digested before they are kept anywhere. Empty: none."""

    session: str = ""
    agent: str = ""  # of a sub-agent; empty: the session's main agent
    parent: str = ""  # the sub-agent that began it; empty: the main agent

    def over(self, other: SessionIds) -> SessionIds:
        """These ids, with what they lack taken from others."""
        if not self.session:
            return SessionIds(other.session, self.agent or other.agent, self.parent or other.parent)
        return self


NO_IDS: Final = SessionIds()

_CLAUDE: Final = (b"x-claude-code-session-id", b"x-claude-code-agent-id", b"x-claude-code-parent-agent-id")
# Codex names its session and the thread that a request is of; before 0.147 with underscores, and the thread alone.
_CODEX_SESSION: Final = (b"session-id", b"session_id", b"conversation_id")
_CODEX_THREAD: Final = (b"thread-id", b"thread_id")
_CODEX_PARENT: Final = b"x-codex-parent-thread-id"
# A sub-agent of opencode has a session of its own, and names that of its parent.
_SESSION: Final = (b"x-session-id", b"x-session-affinity", b"x-opencode-session")
_PARENT: Final = b"x-parent-session-id"
_OTHERS: Final = (
    b"x-openwebui-chat-id",
    b"x-conversation-id",
    b"x-litellm-session-id",
    b"helicone-session-id",
    b"x-kilocode-taskid",  # Kilo Code
    b"x-task-id",  # Cline
    b"x-qwen-code-session-id",
    b"x-http-session-id",  # Antigravity
)
_NAMES: Final = frozenset((*_CLAUDE, *_CODEX_SESSION, *_CODEX_THREAD, _CODEX_PARENT, *_SESSION, _PARENT, *_OTHERS))

_UUID: Final = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_IN_USER_ID: Final = re.compile(rf"_session_({_UUID})$")  # Claude Code before 2.1.78
# A cache key is that of a conversation where an agent made it so: a UUID, or an id of opencode's.
_OF_CONVERSATION: Final = re.compile(rf"{_UUID}|ses_[0-9A-Za-z]{{8,64}}")

Headers = Mapping[bytes, bytes]
Members = Mapping[str, msgspec.Raw]  # of a body, undecoded


def ids_in_headers(headers: Headers) -> SessionIds:
    """The ids in the headers of a request, by their names in lower case."""
    if _NAMES.isdisjoint(headers):
        return NO_IDS
    if session := _header(headers, _CLAUDE[0]):
        return SessionIds(session, _header(headers, _CLAUDE[1]), _header(headers, _CLAUDE[2]))
    session, thread = _first(headers, _CODEX_SESSION), _first(headers, _CODEX_THREAD)
    if session or thread:
        return _of_thread(session or thread, thread, _header(headers, _CODEX_PARENT))
    if session := _first(headers, _SESSION):
        return _of_child(session, _header(headers, _PARENT))
    agent, parent = _header(headers, _CLAUDE[1]), _header(headers, _CLAUDE[2])
    return SessionIds(_first(headers, _OTHERS), agent, parent)


class _Named(msgspec.Struct):
    """Members that may name a session, of a request's `metadata` or `client_metadata`."""

    user_id: Any = None
    session_id: Any = None
    thread_id: Any = None
    parent: Any = msgspec.field(name="x-codex-parent-thread-id", default=None)
    session: Any = msgspec.field(name="sessionId", default=None)


_named: Final = msgspec.json.Decoder(_Named)
_text: Final = msgspec.json.Decoder(str)


def ids_in_body(fields: Members) -> SessionIds:
    """The ids in the members of a request's body."""
    if "client_metadata" in fields:  # Codex
        named = _members(fields["client_metadata"])
        session, thread = _clean(named.session_id), _clean(named.thread_id)
        if session or thread:
            return _of_thread(session or thread, thread, _clean(named.parent))
    if "session_id" in fields and (session := _clean(_string(fields["session_id"]))):  # OpenRouter's
        return SessionIds(session)
    if "metadata" in fields:
        named = _members(fields["metadata"])
        session = _clean(named.session_id) or _clean(named.session) or _in_user_id(named.user_id)
        if session:
            return SessionIds(session)
    if "prompt_cache_key" in fields:
        key = _clean(_string(fields["prompt_cache_key"]))
        if _OF_CONVERSATION.fullmatch(key):
            return SessionIds(key)
    return NO_IDS


def _of_thread(session: str, thread: str, parent: str) -> SessionIds:
    """Of a thread of Codex: that of a sub-agent is another than the session, or names a parent."""
    if thread and thread != session:
        return SessionIds(session, thread, "" if parent == session else parent)
    return _of_child(session, parent)


def _of_child(session: str, parent: str) -> SessionIds:
    """Of a session that has a parent: it is an agent of the parent's session."""
    return SessionIds(parent, session) if parent and parent != session else SessionIds(session)


def _first(headers: Headers, names: tuple[bytes, ...]) -> str:
    for name in names:
        if name in headers and (found := _header(headers, name)):
            return found
    return ""


def _header(headers: Headers, name: bytes) -> str:
    found = headers.get(name)
    return _clean(found.decode("latin-1")) if found else ""


def _clean(value: object) -> str:
    """An id without blanks around it; empty for what is no text, or longer than an id."""
    found = value.strip() if isinstance(value, str) else ""
    return found if len(found) <= LONGEST else ""


def _in_user_id(user_id: object) -> str:
    """The session in a user id of Claude Code's: a JSON object in a string, or its end in older versions."""
    if not isinstance(user_id, str) or len(user_id) > 4 * LONGEST:
        return ""
    if user_id.startswith("{"):
        return _clean(_members(user_id.encode("utf-8", "replace")).session_id)
    found = _IN_USER_ID.search(user_id)
    return found[1] if found is not None else ""


def _members(raw: bytes | msgspec.Raw) -> _Named:
    try:
        return _named.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _Named()


def _string(raw: msgspec.Raw) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
