"""The runtime of one worker process: its transports, watchdog, change feed and maintenance.

Started with the server, or by the first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import httpx
from django.conf import settings
from django.db import InterfaceError, OperationalError

from accounts.models import Change
from portal import limits
from portal.config import Config
from portal.lib import clock
from portal.lib.processes import is_dead
from portal.services.timeouts import statement_timeout
from relay.billing.ledger import requests
from relay.billing.ledger.writer import writer
from relay.channels import cooldowns
from relay.channels.chatgpt_accounts import session as plan_sessions
from relay.errors import RelayUnavailable
from relay.gateway.access.address_block import address_block
from relay.gateway.access.address_limits import address_limits
from relay.gateway.access.admission import Admission
from relay.gateway.access.codex_models import CatalogueTags
from relay.gateway.access.own_limits import OwnLimits
from relay.gateway.access.refusals import Refusals
from relay.gateway.charging.charge import fallback_price
from relay.gateway.charging.reservations import Reservations
from relay.gateway.charging.unseen import UnseenTokens
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.exchange.unstored import RunningResponses
from relay.gateway.limits.memory import bodies
from relay.gateway.routing.continuity import Continuity
from relay.gateway.routing.health import Health
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.change_feed import FeedPoller
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.upstream import most_connections
from relay.gateway.watchdog import Watchdog
from relay.gateway.worker_status import WorkerStatus
from relay.providers.demo import DemoTransport
from relay.providers.plan_requests.transport import way_out
from relay.providers.vendors import BUILT_IN
from relay.transport.pool import Upstreams
from relay.usage.running import ended_by

logger: Final = logging.getLogger(__name__)
_TIDY_SECONDS: Final = 0.5
_SWEEP_SECONDS: Final = 15.0
_START_PAUSE: Final = 0.5  # between tries to start, each of which waits for the database in its own time limits

PeriodicTask = Callable[[Callable[[], bool]], None]
BackgroundTask = Callable[["Runtime"], Coroutine[Any, Any, None]]


class Runtime:
    """The objects that a worker's requests share. Belongs to one event loop."""

    # Run every 15 seconds in a thread, by name. Set by the entry point; the argument says whether to stop.
    periodic_tasks: Mapping[str, PeriodicTask] = {}
    # Run beside the requests on the event loop. Set by the entry point.
    background_tasks: Sequence[BackgroundTask] = ()

    def __init__(self) -> None:
        self.config: Config = settings.CONFIG  # read once: Django's lazy settings cost microseconds each time
        config = self.config
        address_block.configure(
            config.failed_auth_max_attempts, config.failed_auth_window_seconds, config.failed_auth_block_seconds
        )
        address_limits.configure(
            config.rate_limit_per_minute, config.rate_limit_burst, config.concurrent_requests_per_ip
        )
        bodies.configure(config.max_memory_bytes)
        self.watchdog = Watchdog(config.keepalive_seconds)
        self.upstreams = Upstreams(
            lambda: snapshot_cache.snapshot.allowed,
            most_connections(config.upstream_connections),
            config.upstream_ca_file,
        )
        self.demo = DemoTransport()
        self.reservations = Reservations(config.time_zone)
        self.admission = Admission(config.redis_url)
        self.own_limits = OwnLimits(self.watchdog.spawn)
        self.refusals = Refusals(config.refused_keep_days)
        self.health = Health(secrets.token_hex(6))
        self.continuity = Continuity(settings.TOKEN_KEY)
        self.unseen = UnseenTokens()
        self.unstored = RunningResponses()
        self.worker_status = WorkerStatus(self.health.worker, self.watchdog, self.upstreams.counts)
        self.fallback_price = fallback_price(config.unpriced)
        self.catalogue_tags = CatalogueTags(self.fallback_price is not None)
        self._known: Snapshot | None = None  # the configuration at the last maintenance
        self._maintenance: asyncio.Task[None] | None = None
        self._background_tasks: list[asyncio.Task[None]] = []
        self._periodic_tasks: dict[str, asyncio.Task[None]] = {}
        self.stopping = False
        self.at_stop: set[Callable[[], None]] = set()  # called on the event loop when a stop has been requested
        self.stopped_at = 0.0  # `time.monotonic()` when `stop` had done its work, 0: it has not
        self.cut_at = float("inf")  # when the server disconnects running requests, once a stop was requested
        self._loop = asyncio.get_running_loop()
        self._poller = FeedPoller(snapshot_cache, config.feed_poll_seconds)
        self._started = False
        self._starting: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Read the configuration and follow its changes. Raises RelayUnavailable when the database cannot be read.

        Requests that come meanwhile wait for the same attempt, and fail with it: one after the other they would each
        wait for the database's time limit.
        """
        if self._started:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._end_of_start)
        await asyncio.shield(self._starting)

    def begin_to_start(self) -> None:
        """Try to start in the background until the database can be read, or the portal stops."""
        self.watchdog.spawn(self._keep_starting())

    async def _keep_starting(self) -> None:
        while not (self._started or self.stopping):
            await asyncio.sleep(_START_PAUSE)
            with contextlib.suppress(RelayUnavailable):  # logged
                await self.start()

    def _end_of_start(self, attempt: asyncio.Future[None]) -> None:
        self._starting = None
        if not attempt.cancelled():
            attempt.exception()  # those who waited have it; they may have left

    async def _start(self) -> None:
        await snapshot_cache.in_slow_thread(self._poller.start)
        writer.in_flight = lambda: len(self.watchdog.running)
        writer.start()
        snapshot_cache.on_drop(self._on_drop)
        snapshot_cache.on_reload(self._on_reload)
        snapshot_cache.on(Change.COOLDOWN, self._on_cooldown)
        snapshot_cache.on(Change.WATCH, self._on_watch)
        snapshot_cache.on(Change.END, self._on_end)
        snapshot_cache.on(Change.CANCEL, self._on_cancel)
        snapshot_cache.on(Change.DELETE, self.unstored.on_delete)
        snapshot_cache.on(Change.DELETED, self._on_deleted)
        try:
            for place, state in (await snapshot_cache.in_thread(cooldowns.read_circuits)).items():
                self.health.take_over(cooldowns.name_of(place), state)
            for name, lesson in (await snapshot_cache.in_thread(cooldowns.read_missing_apis)).items():
                self.health.take_over_api(name, lesson)
        except RelayUnavailable:
            pass  # logged; this worker finds out for itself what fails
        self._maintenance = asyncio.ensure_future(self._run_maintenance())
        self._background_tasks = [asyncio.ensure_future(task(self)) for task in self.background_tasks]
        self._started = True

    async def _run_maintenance(self) -> None:
        """The regular maintenance while requests run."""
        sweep_at = 0.0
        while True:
            try:
                self.reservations.tidy()
                now = time.monotonic()
                await self.health.flush()
                await self.refusals.flush()
                self._probe_apis()
                self._forget_channels()
                await self.worker_status.publish(self.stopping)
                if now >= sweep_at:
                    sweep_at = now + _SWEEP_SECONDS
                    swept = await snapshot_cache.in_thread(requests.release_expired, time.time(), is_dead)
                    self._run_periodic_tasks()
                    if swept:
                        logger.warning("%d reservation(s) of workers that are gone were given back", swept)
            except RelayUnavailable:
                pass  # the fault has been logged
            except Exception:
                logger.exception("housekeeping failed; it goes on")
            await asyncio.sleep(_TIDY_SECONDS)

    def _forget_channels(self) -> None:
        """After a change of the configuration, forget what is remembered of channels that there are no more."""
        snapshot = snapshot_cache.snapshot
        if snapshot is not self._known:
            self._known = snapshot
            self.health.live.keep(snapshot.channels)

    def _probe_apis(self) -> None:
        """Ask the upstreams themselves that requests suggest to lack an API."""
        for place, (channel, key) in self.health.missing_apis.take_unproven().items():
            transport = self.transport(channel.provider, channel.proxy)
            self.watchdog.spawn(self.health.missing_apis.probe(transport, channel, key, place[1]))

    def _run_periodic_tasks(self) -> None:
        """Start each periodic task unless its previous run continues: a mail server, for example, may be slow."""
        for name, task in self.periodic_tasks.items():
            running = self._periodic_tasks.get(name)
            if running is None or running.done():
                self._periodic_tasks[name] = asyncio.ensure_future(self._run_in_thread(name, task))

    async def _run_in_thread(self, name: str, task: PeriodicTask) -> None:
        """Run a task in a thread that a stop does not wait for: it may be testing an upstream for a minute."""
        over = asyncio.Event()

        def work() -> None:
            try:
                with statement_timeout(limits.JOB_QUERY_SECONDS):
                    task(lambda: self.stopping)
            except (OperationalError, InterfaceError) as error:
                logger.error("%s has to wait, since the database does not answer: %s", name, error)
            except Exception:
                logger.exception("%s failed; the next round tries again", name)
            finally:
                self._call_in_loop(over.set)

        threading.Thread(target=work, name=f"airelays {name}", daemon=True).start()
        await over.wait()

    def request_stop(self, delay: float | None = None, grace: float | None = None) -> None:
        """A stop signal arrived: running requests get a grace period.

        May be called again, which can only shorten that, and from a signal handler. `delay`: seconds for which
        connections are still taken, `grace`: those that running requests have then; None: as the settings have it.
        """
        delay = self.config.shutdown_delay_seconds if delay is None else delay
        left = delay + (self.config.shutdown_seconds if grace is None else grace)
        if not self.stopping:
            self.call_later(delay, self._tell_stop)
        if time.monotonic() + left < self.cut_at:
            self.cut_at = time.monotonic() + left
            self.call_later(left, self._end_all)
        self.stopping = True

    def call_later(self, seconds: float, work: Callable[[], object]) -> None:
        """Call a function after some seconds. May be called from a signal handler."""
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, work)

    def _tell_stop(self) -> None:
        for callback in list(self.at_stop):
            callback()

    def _end_all(self) -> None:
        """The grace period is over: end every running request with an error, at its next wait at the latest."""
        for exchange in list(self.watchdog.running):
            exchange.end(Interrupt.STOPPING)

    def shows_relay_headers(self, exchange: Exchange) -> bool:
        """Whether an answer has x-relay-… headers: if the setting allows, and always for staff."""
        return self.config.relay_headers or (exchange.caller is not None and exchange.caller.is_staff)

    def is_cutting_off(self) -> bool:
        """Whether a cancellation now is due to the server's stop and not to a client that disconnected."""
        return time.monotonic() >= self.cut_at - 0.5

    async def stop(self) -> None:
        """Let what runs in the background end, write everything that is queued, and close all connections.

        Takes about STOP_SECONDS at most beside what is left of the time that running requests have.
        """
        if not self.stopping:
            self.request_stop(0.0)
        await self._finish_work()
        await plan_sessions.finish(limits.STOP_SECONDS)  # before the connections close that they run over
        if self._maintenance is not None:
            self._maintenance.cancel()
        for task in self._background_tasks:
            task.cancel()
        if self._background_tasks:
            await asyncio.wait(self._background_tasks, timeout=limits.STOP_SECONDS / 5)
        await self.watchdog.end_tasks()
        try:
            async with asyncio.timeout(limits.STOP_SECONDS / 5):
                await self._flush()
        except (RelayUnavailable, TimeoutError):
            logger.error("what is known of channels and refused requests could not be written before the stop")
        self.reservations.close_all()
        await asyncio.to_thread(writer.close, limits.STOP_SECONDS / 2)
        try:
            async with asyncio.timeout(limits.STOP_SECONDS / 5):
                await self.upstreams.close()
                await self.admission.close()
        except TimeoutError:
            pass  # their connections end with the process
        self.stopped_at = time.monotonic()

    async def _finish_work(self) -> None:
        """Wait for what nobody waits for on a connection: it has the time of other requests, and a moment to end."""
        until = max(self.cut_at, time.monotonic()) + limits.STOP_SECONDS / 2
        while work := [*self.watchdog.working]:
            left = until - time.monotonic()
            if left <= 0:
                logger.error("%d tasks in the background had not ended at the stop", len(work))
                return
            await asyncio.wait(work, timeout=left)

    async def _flush(self) -> None:
        await asyncio.to_thread(self._poller.stop)
        await self.health.flush()
        await self.refusals.flush(final=True)
        await self.worker_status.leave()

    @property
    def position(self) -> int:
        """The id of the newest change that this process has applied."""
        return self._poller.position

    @property
    def feed_age(self) -> float:
        """Seconds since changes were read, as far as the database answers."""
        return max(0.0, clock.monotonic() - self._poller.read_at)

    def transport(self, provider: str, proxy: str) -> httpx.AsyncBaseTransport:
        if provider in BUILT_IN:
            return self.demo
        return way_out(provider, self.upstreams.transport(proxy))

    # -- tokens that are revoked while in use ------------------------------------------------------------------------

    def _on_drop(self, digest: str, user_id: int) -> None:
        """Called in any thread."""
        self._call_in_loop(lambda: self.watchdog.end_revoked(digest, user_id))

    def _on_reload(self) -> None:
        """Called in any thread."""
        self._call_in_loop(lambda: self.watchdog.end_lost_plans(snapshot_cache.snapshot))

    # -- changes by other workers and people -------------------------------------------------------------------------

    def _on_cooldown(self, name: str) -> None:
        """Called in any thread that may use the database."""
        if cooldowns.is_api_name(name):
            lesson = cooldowns.read_missing_api(name)
            self._call_in_loop(lambda: self.health.take_over_api(name, lesson))
            return
        state = cooldowns.read_circuit(name)
        self._call_in_loop(lambda: self.health.take_over(name, state))

    def _on_watch(self, _: str) -> None:
        self._call_in_loop(self.worker_status.watched)

    def _on_end(self, request_id: str) -> None:
        """Called in any thread that may use the database."""
        actor = ended_by(request_id)
        self._call_in_loop(lambda: self.watchdog.end(request_id, actor))

    def _on_cancel(self, request_id: str) -> None:
        self._call_in_loop(lambda: self.watchdog.cancel(request_id))

    def _on_deleted(self, key: str) -> None:
        self._call_in_loop(lambda: self.unstored.on_deleted(key))

    def _call_in_loop(self, work: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:  # the loop is closed
            logger.debug("a change came after the stop")


_runtime: Runtime | None = None


async def runtime() -> Runtime:
    """The runtime of this process, started now if no server has started it (Daphne has no lifespan)."""
    global _runtime
    if _runtime is None or _runtime._loop is not asyncio.get_running_loop():
        _runtime = Runtime()
    if not _runtime._started:
        await _runtime.start()
    return _runtime


def current() -> Runtime | None:
    """The runtime of this process, None if it has not been started."""
    return _runtime if _runtime is not None and _runtime._started else None


async def runtime_of_server() -> Runtime:
    """The runtime of a server's process, which serves although its database is away: requests get 503 until it is back.

    A worker that did not start would take all workers with it: their supervisor stops when one cannot start.
    """
    try:
        return await runtime()
    except RelayUnavailable:
        logger.error("the database cannot be read yet: requests are refused with 503 until it can")
        assert _runtime is not None  # noqa: S101  # it is there, and has not started
        _runtime.begin_to_start()
        return _runtime
