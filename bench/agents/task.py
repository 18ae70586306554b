"""What the scripted model tells a coding agent to do: read files, write one, use the shell and a sub-agent.

A prompt names the steps that it is for with a mark: `[[ONE]]` for all of them, `[[SUB]]` for those of the sub-agent,
`[[TWO]]` for a turn after the conversation was compacted, `[[LONG]]` for one that fills the window. Tools are found by
the names that agents have for them, and arguments are made for what their schemas require.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.agents.model import CHAT, GEMINI, MESSAGES, Said, protocol
from tests.support.upstream import Call

Json = dict[str, Any]
DONE: Final = "All done: the greeting is hello, and the colour is blue."
SUMMARY: Final = "Noted so far: a greeting was printed, and the colour is blue."
COLOUR: Final = "The colour is blue."
THOUGHT: Final = "First I look at what is there, then I choose."
ONE: Final = "[[ONE]] Read both notes, write a third, print a greeting, and let a sub-agent name a colour."
LONG: Final = "[[LONG]] Read the long note again and again."
LONG_NOTE: Final = "This line is as long as those of most notes are, and says nothing.\n" * 400
TWO: Final = "[[TWO]] Print the greeting once more."
SUB: Final = "[[SUB]] Print a greeting, then name a colour."
_SHELL: Final = ("Bash", "bash", "run_shell_command", "exec_command", "shell_command", "shell")
_READ: Final = ("Read", "read", "read_file")
_WRITE: Final = ("Write", "write", "write_file")
_AGENT: Final = ("Agent", "Task", "task", "spawn_agent", "invoke_agent", "delegate_to_agent", "generalist")
_COMPLETE: Final = ("complete_task",)  # by which Gemini CLI's sub-agents say what they found
_WAIT: Final = ("wait_agent", "wait")
_STEPS: Final = {
    "ONE": (("read", "read again"), ("write",), ("shell",), ("agent",), ("wait",)),
    "SUB": (("shell",), ("complete",)),
    "TWO": (("shell",),),
    "LONG": tuple((f"long {number}",) for number in range(10)),
}
_MARK: Final = re.compile(r"\[\[(ONE|TWO|SUB|LONG)\]\]")
_SHORTER: Final = re.compile(
    r"create a detailed summary|context checkpoint|hand-over of the conversation|state_snapshot|anchored summary"
    r"|continuing our conversation|summary of (the|our) conversation",
    re.IGNORECASE,
)


class Model:
    """Decides what to say to each request, by what it holds alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # where the notes are

    def __call__(self, call: Call) -> Said:
        body = call.json
        happened = list(history(body, protocol(call)))
        said = [text for kind, text in happened if kind == "user"]
        last = said[-1] if said else ""
        asks = _SHORTER.search(last) and SUMMARY not in last
        if asks and not (_MARK.search(last) and tools(body)):  # opencode shows the conversation within this prompt
            return Said(f"<summary>{SUMMARY}</summary>" if "<summary>" in last else SUMMARY)
        plan, results, compacted = "", 0, SUMMARY in json.dumps(body)
        for kind, text in happened:
            if kind == "user" and (found := _MARK.findall(text)):
                plan, results = found[-1], 0
            elif kind == "result":
                results += 1
        if not plan and compacted and tools(body):  # the agent goes on by itself, behind a summary
            return Said(DONE, (), THOUGHT)
        if not plan or not tools(body):
            return _aside(body)
        if plan == "LONG" and compacted:
            return Said(DONE, (), THOUGHT)
        for step in _STEPS[plan]:
            calls = tuple(call for call in (self._call(tools(body), kind) for kind in step) if call)
            if results < len(calls):
                return Said("I use a tool." if len(calls) == 1 else "", calls, THOUGHT)
            results -= len(calls)
        return Said(COLOUR if plan == "SUB" else DONE, (), THOUGHT)

    def _call(self, offered: Mapping[str, Json], kind: str) -> tuple[str, Json] | None:
        """The call of a step; None where the agent has no tool for it. An agent without files' tools has the shell."""
        shell = _named(offered, _SHELL)
        match kind:
            case "read" | "read again":
                file = "first.txt" if kind == "read" else "second.txt"
                name, command = _named(offered, _READ) or shell, f"cat {file}"
            case "write":
                file, command = "third.txt", "echo blue > third.txt"
                name = _named(offered, _WRITE) or shell
            case "agent":
                name, file, command = _named(offered, _AGENT), "", ""
            case "complete":
                name, file, command = _named(offered, _COMPLETE), "", ""
            case "wait":
                name, file, command = _named(offered, _WAIT), "", ""
            case "shell":
                name, file, command = shell, "", "echo hello"
            case _:  # Gemini CLI stops at calls that are all the same
                name, file, command = shell, "", f"head -n {400 - int(kind.removeprefix('long '))} long.txt"
        return (name, _arguments(offered[name], str(self.folder / file) if file else "", command)) if name else None


def _aside(body: Json) -> Said:
    """What agents ask beside their task: a title, who speaks next, which model is to be taken."""
    text = json.dumps(body)
    schema = re.search(r'"required": \[([^]]*)\]', text.split('"tools"')[0])
    # Claude Code asks whether a command of its auto mode is to be blocked.
    if "<severity>" in text:
        return Said("<severity>0</severity>")
    if "<block>" in text:
        return Said("<block>no" if "</block>" in json.dumps(_stops(body)) else "<block>no</block>")
    if "next_speaker" in text:
        return Said(json.dumps({"reasoning": "It is done.", "next_speaker": "user"}))
    if schema and ("json_schema" in text or "responseJsonSchema" in text or "responseSchema" in text):
        return Said(json.dumps({name: "hello" for name in re.findall(r'"([^"]+)"', schema[1])}))
    return Said("A greeting")


def _stops(body: Json) -> Any:
    return body.get("stop_sequences") or body.get("stop") or (body.get("generationConfig") or {}).get("stopSequences")


def history(body: Json, spoken: str) -> Iterator[tuple[str, str]]:
    """What happened in a conversation: ("user", text) and ("result", ""), in order."""
    if spoken == GEMINI:
        for content in body.get("contents") or []:
            for part in content.get("parts") or []:
                if "functionResponse" in part:
                    yield "result", ""
                elif content.get("role") == "user":
                    yield "user", part.get("text") or ""
        return
    rows = body.get("messages") if spoken in {CHAT, MESSAGES} else body.get("input")
    for row in [{"role": "user", "content": rows}] if isinstance(rows, str) else rows or []:
        if row.get("role") == "tool" or str(row.get("type", "")).endswith("_output"):
            yield "result", ""
            continue
        content = row.get("content")
        for part in [{"text": content}] if isinstance(content, str) else content or []:
            if part.get("type") == "tool_result":
                yield "result", ""
            elif row.get("role") == "user":
                yield "user", part.get("text") or ""


def tools(body: Json) -> dict[str, Json]:
    """The schemas of the functions that a request of any protocol offers, by name."""
    found: dict[str, Json] = {}
    for tool in body.get("tools") or []:
        inner = [tool.get("function") or tool, *tool.get("functionDeclarations", ()), *tool.get("tools", ())]
        for one in inner:
            if "name" in one:
                schema = one.get("parametersJsonSchema") or one.get("parameters") or one.get("input_schema")
                found[one["name"]] = schema or {}
    return found


def _named(offered: Mapping[str, Json], names: tuple[str, ...]) -> str:
    found = (one for name in names for one in offered if one == name or re.search(rf"(__|[.]){name}$", one))
    return next(found, "")


def _arguments(schema: Json, file: str, command: str) -> Json:
    """What a schema requires, and what the step needs."""
    members: Json = schema.get("properties") or {}
    wanted = [*(schema.get("required") or ()), *(name for name in _OPTIONAL if name in members)]
    return {name: _value(name, members.get(name) or {}, file, command) for name in dict.fromkeys(wanted)}


_OPTIONAL: Final = ("command", "result", "response", "cmd", "message", "task_name", "fork_turns", "agent_name")
_VALUES: Final = {
    "content": "blue\n",
    "prompt": SUB,
    "message": SUB,
    "objective": SUB,
    "query": SUB,
    "request": SUB,
    "task_name": "colour",
    "fork_turns": "none",
    "description": "Name a colour",
    "result": COLOUR,
    "response": COLOUR,
    "agent_name": "generalist",
}


def _value(name: str, schema: Json, file: str, command: str) -> Any:
    kind = schema.get("type", "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object" and schema.get("properties"):
        return _arguments(schema, file, command)
    if "path" in name.lower():
        return file or "."
    if name in {"command", "cmd"}:
        return ["bash", "-c", command] if kind == "array" else command
    if name in {"subagent_type", "agent_type"}:
        return "general-purpose" if name == "subagent_type" and "general-purpose" in json.dumps(schema) else "general"
    if name in _VALUES:
        return _VALUES[name]
    if schema.get("enum"):
        return schema["enum"][0]
    return {"boolean": False, "integer": 10_000, "number": 10_000, "array": [], "object": {}}.get(kind, "colour")
