"""Measures pools of thousands of keys: `python -m bench.speed.pools [--part picks|snapshot|portal] [--requests 3000]`.

picks: CPU µs of a choice for 1 to 10,000 (channel, key) pairs, by strategy, with conversations, with half of the pairs
cooling down. snapshot: memory per key, CPU of a start, CPU and the longest pause of the event loop of a reload after
one channel was changed. portal: CPU of a request through a started portal. Least of several runs: compare ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.load.targets import BenchTarget, load, started
from tests.support.server import ROOT, free_port

if TYPE_CHECKING:
    from relay.gateway.snapshot.routes import Routes

SHAPES = ((1, 1), (1, 100), (1, 1_500), (1, 10_000), (2, 1), (100, 1), (300, 5), (10_000, 1))  # channels, keys of each
_KEYS = 10_000
_NOW = 1_800_000_000.0


def _setup(channels: int, keys: int, base: str) -> str:
    """A portal with one model, by so many channels of so many keys. Prints a token."""
    return f"""
from decimal import Decimal
from django.core.management import call_command
call_command("migrate", interactive=False, verbosity=0)
from accounts.models import User
from relay.billing.ledger import movements
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice
from relay.tokens.lifecycle import create_token
model = Model.objects.create(name="plain", is_open=True)
ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
channels = [Channel(name=f"c{{n}}", provider="openai", base_url={base!r}) for n in range({channels})]
Channel.objects.bulk_create(channels)
channels = list(Channel.objects.all())
ChannelModel.objects.bulk_create(ChannelModel(channel=channel, model=model) for channel in channels)
keys = []
for channel in channels:
    for number in range({keys}):
        key = ApiKey(channel=channel)
        key.set_secret(f"sk-upstream-{{channel.pk:06d}}-{{number:06d}}-0123456789abcdef0123456789", channel)
        keys.append(key)
ApiKey.objects.bulk_create(keys)
user = User.objects.create_user("bench")
movements.top_up(user, 10**15, actor=None, reason="bench")
print(create_token(user, "bench", actor=None)[1])
"""


def _shell(code: str, folder: Path) -> str:
    env = {"AIRELAYS_DATA_DIR": str(folder), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", "AIRELAYS_JOBS": "false"}
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


# -- choices ------------------------------------------------------------------------------------------------------


def picks() -> None:
    """Print the CPU of choices. Knows no database."""
    from portal.lib.strategy import Strategy

    shown = [f"{channels:,} × {keys:,}" for channels, keys in SHAPES]
    print(f"| µs a choice, channels × keys | {' | '.join(shown)} |\n|---|{'--:|' * len(SHAPES)}")
    for strategy in Strategy:
        for conversation, cooling in ((False, False), (False, True), (True, False), (True, True)):
            if conversation and strategy is not Strategy.WEIGHTED:
                continue  # a conversation is the same in every strategy
            name = "conversation" if conversation else strategy.value.replace("_", " ")
            times = [_pick_time(shape, strategy, conversation, cooling) for shape in SHAPES]
            label = f"{name}, half of the pairs cooling" if cooling else name
            print(f"| {label} | {' | '.join(f'{one:.1f}' for one in times)} |", flush=True)


def _pool(channels: int, keys: int) -> Routes:
    """The routes of a model by so many channels of so many keys."""
    from relay.gateway.snapshot.routes import Keys, Routes
    from relay.gateway.snapshot.views import ChannelView, KeyView, Route, Timeouts

    found = []
    for number in range(1, channels + 1):
        own = Keys.made([KeyView(number * 20_000 + index, 1, {}) for index in range(keys)])
        view = ChannelView(
            id=number,
            name=f"c{number}",
            provider="openai",
            urls={},
            keys=own,
            priority=0,
            weight=1,
            groups=None,
            proxy="",
            sends_done=True,
            stream_usage=True,
            timeouts=Timeouts(1, 1, 1, 1),
            refusal="",
        )
        found.append(Route(view, "m"))
    routes = Routes(found)
    routes.prepare()
    return routes


def _pick_time(shape: tuple[int, int], strategy: str, conversation: bool, cooling: bool) -> float:
    from relay.gateway.routing.live import Live
    from relay.gateway.routing.selection import RoutePreference, pick

    routes, live = _pool(*shape), Live()
    pairs = [(route.channel.id, key.id) for route in routes for key in route.channel.keys]
    for channel, key in pairs[1::2] if cooling else ():
        live.breaker.take_over((channel, key, 7), _NOW, _NOW + 999, "rate", "", 1)
    source = random.Random(1)  # noqa: S311  # the same numbers in every run
    for route in routes:
        live.measured(route.channel.id, 7, source.random())
    preferences = [
        RoutePreference(7, strategy, conversation=f"talk {talk}" if conversation else "", user=1) for talk in range(500)
    ]

    def run() -> None:
        for preference in preferences:
            pick(routes, frozenset(), live, preference, _NOW, source.random)

    return 1e6 * _least(run, 9) / len(preferences)


def _least(run: Callable[[], object], times: int) -> float:
    run()
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


# -- the configuration in memory ------------------------------------------------------------------------------------


def snapshot() -> None:
    """Print what the configuration costs in memory, at a start and at a reload, in a process of its own each."""
    print("| channels × keys | bytes a key | start, CPU ms | reload of one, CPU ms | longest pause, ms (idle) |")
    print("|---|--:|--:|--:|--:|")
    for channels, keys in ((1, _KEYS), (_KEYS // 5, 5)):
        with tempfile.TemporaryDirectory(prefix="airelays-pools-") as name:
            _shell(_setup(channels, keys, "http://127.0.0.1:9/v1"), Path(name))
            said = _shell("from bench.speed.pools import measure_snapshot\nmeasure_snapshot()", Path(name))
            print(f"| {channels:,} × {keys:,} | {said.strip()} |", flush=True)


def measure_snapshot() -> None:
    """Called in a process that has a configuration of `_KEYS` keys. Prints the cells of a row."""
    from relay.gateway.snapshot.cache import SnapshotCache
    from relay.models import Channel

    began, cache = time.process_time(), SnapshotCache()
    cache.reload()
    start = 1000 * (time.process_time() - began)
    gc.collect()
    gc.freeze()  # as a worker does
    Channel.objects.filter(pk=Channel.objects.order_by("pk")[0].pk).update(weight=7)
    began = time.process_time()
    cache.reload()
    reload = 1000 * (time.process_time() - began)
    pauses = []
    idle = min(asyncio.run(_longest_pause(lambda: time.sleep(reload / 1000))) for _ in range(5))
    for weight in range(2, 7):
        Channel.objects.filter(pk=Channel.objects.order_by("pk")[0].pk).update(weight=weight)
        pauses.append(asyncio.run(_longest_pause(cache.reload)))
    del cache
    gc.collect()
    tracemalloc.start()
    cache = SnapshotCache()
    cache.reload()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    print(f"{held / _KEYS:.0f} | {start:.0f} | {reload:.0f} | {min(pauses):.1f} ({idle:.1f})")


async def _longest_pause(work: Callable[[], object]) -> float:
    """The longest time in ms that the event loop does not come to a task while a thread works."""
    running, longest = asyncio.ensure_future(asyncio.to_thread(work)), 0.0
    while not running.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began - 0.001)
    await running
    return 1000 * longest


# -- the whole portal -----------------------------------------------------------------------------------------------


def portal(requests: int) -> None:
    """Print the CPU of a request through a started portal, and its memory."""
    print("| channels × keys | CPU ms a request | requests/s | p99 ms | memory MiB |\n|---|--:|--:|--:|--:|")
    upstream = free_port()
    with tempfile.TemporaryDirectory(prefix="airelays-pools-") as name:
        log = Path(name) / "upstream.log"
        with started([sys.executable, "-m", "tests.support.load.upstream", str(upstream)], upstream, log):
            for channels, keys in ((1, 1), (1, 1_500), (300, 5), (1, _KEYS)):
                _portal(channels, keys, upstream, Path(name) / f"{channels}-{keys}", requests)


def _portal(channels: int, keys: int, upstream: int, folder: Path, requests: int) -> None:
    folder.mkdir()
    token, port = _shell(_setup(channels, keys, f"http://127.0.0.1:{upstream}/v1"), folder).split()[-1], free_port()
    env = {"AIRELAYS_DATA_DIR": str(folder), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", "AIRELAYS_JOBS": "false"}
    command = [sys.executable, "manage.py", "serve", "--port", str(port)]
    with started(command, port, folder / "portal.log", env) as process:
        target = BenchTarget("portal", port, process, token=token)
        load(target, "plain", 20, requests)  # a worker that has served
        rows = [load(target, "plain", 20, requests) for _ in range(3)]
    if errors := sum(row["errors"] for row in rows):
        sys.exit(f"{errors} errors: {rows[0]['first_errors']}")
    best = min(rows, key=lambda row: row["cpu_ms"])
    print(
        f"| {channels:,} × {keys:,} | {best['cpu_ms']:.3f} | {max(row['rps'] for row in rows):.0f} | "
        f"{min(row['p99_ms'] for row in rows):.0f} | {best['rss_mib']:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("picks", "snapshot", "portal"), default="")
    parser.add_argument("--requests", type=int, default=3_000)
    options = parser.parse_args()
    if options.part in {"", "picks"}:
        picks()
    if options.part in {"", "snapshot"}:
        snapshot()
    if options.part in {"", "portal"}:
        portal(options.requests)


if __name__ == "__main__":
    main()
