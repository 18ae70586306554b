"""Drives coding agents through a portal, at an upstream of each protocol, and writes down what was said.

    python -m bench.agents.run NODE_MODULES OUT [--agents codex,claude] [--upstreams chat,gemini] [--window 80000]

`NODE_MODULES`: where the agents are installed from npm, which takes old ones under an old Node, and Node itself beside
them (`npm install node@24`). `OUT`: a folder that gets the screens and the exchanges, from which `bench.agents.clean`
makes recordings. `--window`: of the models, which a turn of its own fills then, so that the agent makes the
conversation shorter by itself. Needs tmux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from bench.agents import task
from bench.agents.proxy import Proxy
from bench.agents.screens import AGENTS, Agent, Screen
from bench.agents.setup import UPSTREAMS
from portal.clients.apps import APPS
from portal.clients.target import look_up
from tests.support.agents.model import Said, ScriptedModel
from tests.support.server import ROOT, free_port
from tests.support.upstream import Call, Upstream

Reached = tuple[str, str]  # the portal's address, a token
_QUIET = 3.0  # seconds without a request, after which a turn is over
_NEWEST = 8  # lines at the end of a screen that tell whether the agent works
_WINDOW = 200_000  # tokens, that nothing here fills
_LONGEST = 600.0  # seconds for one turn


class Stuck(Exception):
    """An agent does not go on."""


class Session:
    """One agent at one upstream."""

    def __init__(self, agent: Agent, model: str, work: Path, upstream: Upstream) -> None:
        self.agent, self.model, self.answers = agent, model, list[Said]()
        decide = task.Model(work)

        def noted(call: Call) -> Said:
            said = decide(call)
            self.answers.append(said)
            return said

        self.script = ScriptedModel(noted)
        upstream.script(model, self.script)


@contextlib.contextmanager
def portal(folder: Path, upstream: Upstream, window: int) -> Iterator[tuple[str, dict[str, str]]]:
    """A portal of its own: its address, and its tokens by upstream."""
    port = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRELAYS_")},
        "AIRELAYS_DATA_DIR": str(folder),
        "AIRELAYS_CONFIG": "",
        "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
        "AIRELAYS_PORT": str(port),
    }
    if not (folder / "tokens.json").exists():
        command = [sys.executable, "-m", "bench.agents.setup", upstream.base_url, str(window)]
        done = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True)
        (folder / "tokens.json").write_text(done.stdout.splitlines()[-1])
    with (folder / "portal.log").open("wb") as log:
        served = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(port)], cwd=ROOT, env=environ, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/healthz", trust_env=False).status_code == 200:
                    break
            time.sleep(0.2)
        yield address, json.loads((folder / "tokens.json").read_text())
    finally:
        served.terminate()
        served.wait(60)


async def drive(session: Session, proxy: Proxy, screen: Screen, prompts: tuple[str, ...]) -> None:
    """The whole task on a screen."""
    await appears(screen, session.agent)
    for typed in prompts:
        before = len(session.answers)
        await asyncio.to_thread(screen.put, typed)
        await waited(lambda typed=typed: typed[:40] in screen.text(), "what is typed does not appear")  # type: ignore[misc]
        await asyncio.sleep(1)  # what comes at once with the end of the line is taken for pasted
        await asyncio.to_thread(screen.press, "Enter")
        wanted = task.SUMMARY if typed == session.agent.compact else task.DONE
        await over(session, proxy, screen, before, wanted)


async def appears(screen: Screen, agent: Agent) -> None:
    """Until the agent waits for the first prompt."""
    await waited(lambda: agent.ready in screen.text(), f"{agent.name} does not start")
    await asyncio.sleep(1)


async def waited(found: Callable[[], bool], why: str) -> None:
    begun = time.monotonic()
    while not await asyncio.to_thread(found):
        if time.monotonic() - begun > _LONGEST:
            raise Stuck(f"{why} within {_LONGEST:.0f} seconds")
        await asyncio.sleep(0.3)


async def over(session: Session, proxy: Proxy, screen: Screen, before: int, wanted: str) -> None:
    """Until the model has said what it ends a turn with, and the agent has been quiet for a while."""
    seen: list[Any] = [None, 0.0]

    def done() -> bool:
        now = [(one.status, len(one.answer)) for one in proxy.exchanges]
        if now != seen[0]:
            seen[:] = [now, time.monotonic()]
        said = any(wanted in one.text for one in session.answers[before:])
        if not said or time.monotonic() - seen[1] < _QUIET:
            return False
        shown = screen.text(everything=True)
        newest = [line for line in screen.text().splitlines() if line.strip()][-_NEWEST:]  # above it old lines may stay
        idle = not any(session.agent.busy in line for line in newest)
        return idle and (wanted == task.SUMMARY or wanted in shown)

    await waited(done, f"the agent does not come to “{wanted}”")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--agents", default=",".join(AGENTS))
    parser.add_argument("--upstreams", default=",".join(UPSTREAMS))
    parser.add_argument("--window", type=int, default=0)
    asked = parser.parse_args()
    asked.out, asked.modules = asked.out.resolve(), asked.modules.resolve()
    folder = asked.out / f"portal{asked.window or ''}"  # kept for the next run
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = folder / "upstream-port"
    upstream = Upstream(int(port.read_text()) if port.exists() else free_port())
    port.write_text(str(upstream.port))
    with portal(folder, upstream, asked.window or _WINDOW) as (address, tokens):
        for name in asked.agents.split(","):
            reached = {spoken: (address, tokens[spoken]) for spoken in asked.upstreams.split(",")}
            asyncio.run(all_upstreams(AGENTS[name], asked, reached, upstream))
    upstream.stop()


async def all_upstreams(agent: Agent, asked: Any, reached: dict[str, Reached], upstream: Upstream) -> None:
    async with asyncio.TaskGroup() as group:
        for spoken, how in reached.items():
            group.create_task(one(agent, spoken, asked, how, upstream))


async def one(agent: Agent, spoken: str, asked: Any, reached: Reached, up: Upstream) -> None:
    address, token = reached
    model = UPSTREAMS[spoken][0]
    proxy = Proxy(address)
    await proxy.start()
    home = (asked.out / f"home.{agent.name}.{spoken}").resolve()
    shutil.rmtree(home, ignore_errors=True)
    work = home / "task"
    work.mkdir(parents=True)
    session = Session(agent, model, work, up)
    for file in ("first.txt", "second.txt"):
        (work / file).write_text(f"This is the {file[:-4]} note.\n")
    (work / "long.txt").write_text(task.LONG_NOTE)
    await asyncio.to_thread(subprocess.run, ["git", "init", "-q", str(work)], check=True)
    target = await asyncio.to_thread(look_up, f"http://127.0.0.1:{proxy.port}", token, model)
    for settings in APPS[agent.name].files:  # as `manage.py connect` writes them
        place = settings.place({}, home)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(settings.edit("", target))
    if agent.prepare:
        agent.prepare(home, work)
    proxy.exchanges.clear()
    node = asked.modules.resolve()
    path = f"{node}/.bin:{node}/node/bin:{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "TERM": "xterm-256color", "LANG": "C.UTF-8", **agent.environ}
    screen = Screen(f"{agent.name}-{spoken}", agent.start, work, own)
    try:
        compacted = (task.LONG, task.TWO) if asked.window else (task.ONE, agent.compact, task.TWO)
        await drive(session, proxy, screen, compacted)
    except Stuck as stuck:
        print(agent.name, spoken, stuck)
    finally:
        shown = await asyncio.to_thread(screen.text, True)
        if agent.warnings:
            screen.press(agent.warnings)
            await asyncio.sleep(2)
            shown += await asyncio.to_thread(screen.text)
        screen.close()
        await proxy.stop()
        written(session, proxy, asked.out / f"{agent.name}.{spoken}", shown, {"home": str(home), "token": token})


def written(session: Session, proxy: Proxy, stem: Path, shown: str, known: dict[str, Any]) -> None:
    """Writes what was seen and said to files, also where an agent got stuck or was interrupted."""
    stem.with_name(f"{stem.name}.screen").write_text(shown)
    rows = [{**asdict(one), "body": one.body.decode("utf-8", "replace")} for one in proxy.exchanges]
    found = {**known, "model": session.model, "refused": session.script.wrong, "exchanges": rows}
    found["asked"], found["sealed"] = session.script.asked, session.script.sealed
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(found))
    ignored = sorted({one.answer_headers.get("x-airelays-ignored-parameters", "") for one in proxy.exchanges} - {""})
    bad = [f"{one.method} {one.path} {one.status}" for one in proxy.exchanges if one.status != 200]
    print(stem.name, len(rows), "exchanges; refused:", session.script.wrong, "ignored:", ignored, "bad:", bad)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
