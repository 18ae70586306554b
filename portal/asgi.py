"""The ASGI application of the portal.

/v1 and its aliases go to the relay handler, websockets to channels, everything else to Django's own handler.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

gc.disable()  # until all is imported, which stays
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.asgi import get_asgi_application  # noqa: E402

django_pages: Any = get_asgi_application()  # must come before imports of models

from channels.routing import ProtocolTypeRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402
from django.conf import settings  # noqa: E402

from portal.doctor.deployment import question  # noqa: E402
from portal.live import live_router  # noqa: E402
from portal.middleware import PROBES  # noqa: E402
from portal.relay_handler import RelayHandler  # noqa: E402
from portal.serving.entrance import entrance  # noqa: E402
from portal.serving.page_body import Pages  # noqa: E402
from portal.serving.probes import health, seen  # noqa: E402
from portal.serving.workers.supervisor import RETIRE  # noqa: E402
from relay import jobs  # noqa: E402
from relay.api.consumers import RealtimeConsumer  # noqa: E402
from relay.api.paths import relay_path  # noqa: E402
from relay.billing import notices  # noqa: E402
from relay.endpoints.batches import runner  # noqa: E402
from relay.endpoints.realtime import running_calls  # noqa: E402
from relay.endpoints.text.interactions import interrupted  # noqa: E402
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send  # noqa: E402
from relay.gateway.runtime import Runtime, current, runtime_of_server  # noqa: E402
from relay.storage import retention  # noqa: E402
from relay.usage import refusals, rollup  # noqa: E402
from relay.usage.conversations import switches  # noqa: E402

gc.enable()
logger = logging.getLogger(__name__)


async def _page(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """A page, or a probe, in its turn."""
    probe = scope["path"] in PROBES and scope["method"] in ("GET", "HEAD")
    await (health.answer if probe else django_pages)(scope, receive, send)


relay = RelayHandler()
pages = Pages(_page)
Runtime.periodic_tasks = {
    "sending notices": notices.work,
    "adding up usage": rollup.work,
    "deleting what has expired": retention.work,
    "deleting refused requests": refusals.work,
    "deleting switches from warm caches": switches.work,
    **({"scheduled work": jobs.run_once} if settings.CONFIG.jobs else {}),
}
Runtime.background_tasks = (runner.run_batches, running_calls.keep_calls, interrupted.keep_interactions)
# The websockets of apps, by their path.
relay_sockets: dict[str, Any] = {"/v1/realtime": RealtimeConsumer.as_asgi()}  # type: ignore[no-untyped-call]
_OF_APPS = ("POST", "HEAD")  # methods at the address itself, which apps use and browsers do not
_FLUSH_SECONDS = 15  # after the running requests, twice: for their last bytes, and for what is to be written
_LINGER_SECONDS = 2.0  # after everything has been written, for threads to end
live_pages: Any = AllowedHostsOriginValidator(SessionMiddlewareStack(live_router))


async def http(scope: AsgiScope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path.startswith("/v1/") or relay_path(path) is not None or (path == "/" and scope["method"] in _OF_APPS):
        await relay(scope, receive, send)
    elif path == question.PATH and (purpose := question.purpose_of(scope["query_string"])):
        await seen.answer(purpose, scope, receive, send)
    else:
        await pages(scope, receive, send)


async def websocket(scope: AsgiScope, receive: Receive, send: Send) -> None:
    path = relay_path(scope["path"])
    if path is None and scope["path"] == question.PATH and question.purpose_of(scope["query_string"]) == "socket":
        await seen.answer_socket(receive, send)
        return
    if path is None:
        await live_pages(scope, receive, send)
        return
    if path in relay_sockets:
        await relay_sockets[path](scope, receive, send)
        return
    await receive()
    # Clients that try a websocket first fall back to HTTP at once on 426; on 404 or 501 they wait for seconds.
    if "websocket.http.response" in scope.get("extensions", {}):
        body = (
            b'{"error":{"message":"This portal does not serve websockets here. Use HTTP.",'
            b'"type":"invalid_request_error","param":null,"code":"upgrade_required"}}'
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"upgrade", b"HTTP/1.1"),
        ]
        await send({"type": "websocket.http.response.start", "status": 426, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _handle_stop_signals(run: Runtime) -> None:
    """Notify the runtime as soon as a stop signal arrives.

    uvicorn notifies the application, through the lifespan protocol, only after all requests have ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stop_server = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        server_handler = signal.getsignal(number)

        def handle(received: int, frame: FrameType | None, then: Any = server_handler) -> None:
            first = not run.stopping
            if first:
                threading.Thread(target=_end_at_last, args=(run,), name="airelays stop", daemon=True).start()
            run.request_stop()
            delay = run.config.shutdown_delay_seconds if first else 0.0  # a second signal does not wait
            if delay:
                run.call_later(delay, lambda: then(received, frame))
            else:
                then(received, frame)

        if callable(server_handler):
            signal.signal(number, handle)

    def retire(_: int, frame: FrameType | None) -> None:
        run.request_stop(0.0, run.config.restart_seconds)
        threading.Thread(target=_end_at_last, args=(run,), name="airelays stop", daemon=True).start()
        if callable(stop_server):
            stop_server(signal.SIGTERM, frame)

    signal.signal(RETIRE, retire)


def _end_at_last(run: Runtime) -> None:
    """End the process although something hangs: Python waits for all of its threads, however long they take."""
    while time.monotonic() < run.cut_at + 2 * _FLUSH_SECONDS:
        if run.stopped_at and time.monotonic() - run.stopped_at > _LINGER_SECONDS:
            break
        time.sleep(0.1)
    logger.error("the portal ends although something hangs: %s", _hanging())
    os._exit(0 if run.stopped_at else 1)


def _hanging() -> str:
    """The names of threads that still run, without the one that asks."""
    names = (one.name for one in threading.enumerate() if one is not threading.current_thread() and one.is_alive())
    return ", ".join(sorted(names))


async def lifespan(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Start the runtime before the first request, and stop it after the last."""
    while True:
        message: Any = await receive()
        if message["type"] == "lifespan.startup":
            try:
                _handle_stop_signals(await runtime_of_server())
                gc.collect()
                # Requests create no reference cycles. Collecting every 700 objects, the default, costs 2 % of the CPU.
                gc.set_threshold(20_000, 20, 20)
                gc.freeze()  # modules are never freed; scanning them in full collections costs 5 % of the CPU
            except Exception as error:
                logger.exception("the portal cannot start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            running = current()
            if running is not None:
                await running.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


application = entrance(ProtocolTypeRouter({"http": http, "websocket": websocket, "lifespan": lifespan}))
