"""Starts what a server's process serves with, and stops it: signals, and the lifespan protocol of ASGI."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Final

from portal.lib.processes import give_back
from portal.serving.workers.supervisor import RETIRE
from relay.endpoints.batches import runner
from relay.endpoints.realtime import running_calls
from relay.endpoints.text.interactions import interrupted
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send
from relay.gateway.runtime import Runtime, current, runtime_of_server

logger: Final = logging.getLogger(__name__)
# What runs beside the requests in every process that serves them.
BACKGROUND: Final = (runner.run_batches, running_calls.keep_calls, interrupted.keep_interactions)
_FLUSH_SECONDS = 15  # after the running requests, twice: for their last bytes, and for what is to be written
_LINGER_SECONDS = 2.0  # after everything has been written, for threads to end


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
                give_back()
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
