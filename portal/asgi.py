"""The ASGI application of the portal.

/v1 and its aliases go to the relay handler, websockets to channels, everything else to Django's own handler.
"""

from __future__ import annotations

import gc
import os
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
from portal.metrics import endpoint as metrics  # noqa: E402
from portal.metrics.gauges import keep_gauges  # noqa: E402
from portal.metrics.installed import PATH as METRICS  # noqa: E402
from portal.metrics.installed import on_the_portals_port  # noqa: E402
from portal.relay_handler import RelayHandler  # noqa: E402
from portal.serving.entrance import entrance, restricted  # noqa: E402
from portal.serving.http.sockets import relay_socket  # noqa: E402
from portal.serving.page_body import PROBES, Pages  # noqa: E402
from portal.serving.probes import health, seen  # noqa: E402
from portal.serving.workers.lifespan import BACKGROUND, lifespan  # noqa: E402
from portal.tracing.installed import keep_tracing  # noqa: E402
from relay import jobs  # noqa: E402
from relay.api.paths import is_relay, relay_path  # noqa: E402
from relay.billing import notices  # noqa: E402
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send  # noqa: E402
from relay.gateway.runtime import Runtime  # noqa: E402
from relay.storage import retention  # noqa: E402
from relay.usage import rollup  # noqa: E402
from relay.usage.conversations import switches  # noqa: E402
from relay.usage.retention import records, refused  # noqa: E402

gc.enable()


async def _page(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """A page, a probe or the metrics, in its turn."""
    path = scope["path"]
    if path in PROBES and scope["method"] in ("GET", "HEAD"):
        await health.answer(scope, receive, send)
    elif path == METRICS and on_the_portals_port(settings.CONFIG):
        await metrics.answer(scope, receive, send)
    else:
        await django_pages(scope, receive, send)


relay = RelayHandler()
pages = Pages(_page)
Runtime.periodic_tasks = {
    "sending notices": notices.work,
    "adding up usage": rollup.work,
    "deleting what has expired": retention.work,
    "deleting refused requests": refused.work,
    "deleting old usage": records.work,
    "deleting switches from warm caches": switches.work,
    **({"scheduled work": jobs.run_once} if settings.CONFIG.jobs else {}),
}
Runtime.background_tasks = (keep_gauges, keep_tracing, *BACKGROUND)
live_pages: Any = AllowedHostsOriginValidator(SessionMiddlewareStack(live_router))


async def http(scope: AsgiScope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path == METRICS and on_the_portals_port(settings.CONFIG):  # where they are off, the relay answers who probes it
        await pages(scope, receive, send)
    elif is_relay(path, scope["method"]):
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
    else:
        await relay_socket(path, scope, receive, send)


metrics_application = restricted(metrics.answer)  # on their own port
application = entrance(ProtocolTypeRouter({"http": http, "websocket": websocket, "lifespan": lifespan}))
