"""The ASGI application of a process that only relays: /v1 with its aliases, and the health checks.

Everything else is answered with 404 and a sentence. Batches, realtime calls and interactions in the background are part
of /v1 and go on here; the jobs of `portal.asgi` do not run.
"""

from __future__ import annotations

from typing import Final

from channels.routing import ProtocolTypeRouter
from django.conf import settings

from portal.doctor.deployment import question
from portal.metrics import endpoint as metrics
from portal.metrics.gauges import keep_gauges
from portal.metrics.installed import PATH as METRICS
from portal.metrics.installed import on_the_portals_port
from portal.relay_handler import RelayHandler
from portal.relay_only.others import look_for_others
from portal.serving.entrance import entrance, restricted
from portal.serving.http.sockets import relay_socket
from portal.serving.page_body import PROBES
from portal.serving.probes import health, seen
from portal.serving.workers.lifespan import BACKGROUND, lifespan
from portal.tracing.installed import keep_tracing
from relay.api.paths import is_relay, relay_path
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send
from relay.gateway.runtime import Runtime

_NOT_HERE: Final = b"This process only relays: it serves /v1 and health checks. Pages are served by another one.\n"

relay: Final = RelayHandler()
Runtime.periodic_tasks = {"looking for a process with pages": look_for_others}
Runtime.background_tasks = (keep_gauges, keep_tracing, *BACKGROUND)


async def http(scope: AsgiScope, receive: Receive, send: Send) -> None:
    path, method = scope["path"], scope["method"]
    if path == METRICS and on_the_portals_port(settings.CONFIG):  # where they are off, the relay answers who probes it
        await metrics.answer(scope, receive, send)
    elif is_relay(path, method):
        await relay(scope, receive, send)
    elif path == question.PATH and (purpose := question.purpose_of(scope["query_string"])):
        await seen.answer(purpose, scope, receive, send)
    elif path in PROBES and method in ("GET", "HEAD"):
        await health.answer(scope, receive, send)
    else:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_NOT_HERE)),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else _NOT_HERE})


async def websocket(scope: AsgiScope, receive: Receive, send: Send) -> None:
    path = relay_path(scope["path"])
    if path is not None:
        await relay_socket(path, scope, receive, send)
        return
    if scope["path"] == question.PATH and question.purpose_of(scope["query_string"]) == "socket":
        await seen.answer_socket(receive, send)
        return
    await receive()
    await send({"type": "websocket.close", "code": 1008})  # before it is accepted: servers answer with 403


metrics_application = restricted(metrics.answer)  # on their own port
application = entrance(ProtocolTypeRouter({"http": http, "websocket": websocket, "lifespan": lifespan}))
