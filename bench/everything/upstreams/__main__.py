"""The upstreams of the run, a process of their own: `python -m bench.everything.upstreams PORT COUNTS_FILE`.

Each channel has a path. What an upstream has done for a request, which the text names by its tag (`#chat-00ff…`), is
counted as it is made, and written to the file when its answer has ended, however it ended. `POST /control` turns the
faults on and off, and says which keys are dead.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import uvloop
from aiohttp import web

from bench.everything.tariff import TARIFFS
from bench.everything.upstreams.counting import UPSTREAMS, Upstreams
from bench.everything.upstreams.http import answer
from bench.everything.upstreams.realtime import realtime


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in TARIFFS]})


async def _control(request: web.Request) -> web.Response:
    wanted, upstreams = await request.json(), request.app[UPSTREAMS]
    upstreams.faults, upstreams.dead = bool(wanted["faults"]), frozenset(wanted["dead"])
    return web.json_response({})


async def _main(port: int, counts: Path) -> None:
    with counts.open("a") as file:
        app = web.Application(client_max_size=64 << 20)
        app[UPSTREAMS] = Upstreams(file)
        app.router.add_get("/{channel}/v1/realtime", realtime)
        app.router.add_get("/{channel}/v1/models", _models)
        app.router.add_post("/control", _control)
        app.router.add_post("/{channel}/v1/{path:.+}", answer)
        # Kept connections are closed early, as by real servers behind balancers.
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=4.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("counts", type=Path)
    options = parser.parse_args()
    uvloop.run(_main(options.port, options.counts))
