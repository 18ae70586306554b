"""Turns traces on in a worker, where the settings name a collector."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from django.conf import settings

from portal.config import Config
from relay.gateway.exchange.trace import Trace, tracing
from relay.gateway.runtime import Runtime

logger: Final = logging.getLogger(__name__)
_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_STOP_SECONDS: Final = 2.0  # to send what is in the queue at the end


def why_not_traced(config: Config) -> str:
    """Why there can be no traces although the settings ask for them; empty if there can, or nobody asks."""
    if config.otlp_endpoint and not all(_is_there(name) for name in _NEEDED):
        return (
            "OTLP_ENDPOINT needs OpenTelemetry, which is not installed. Run: pip install opentelemetry-sdk "
            "opentelemetry-exporter-otlp-proto-http (or install airelays-portal[tracing]), or leave the setting out."
        )
    return ""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of what it is in
        return False


async def keep_tracing(run: Runtime) -> None:
    """Trace requests from now on, until the end. Does nothing where traces are off."""
    config = run.config
    if not config.otlp_endpoint or why_not_traced(config):
        return
    from portal.tracing.exporter import provider
    from portal.tracing.spans import RequestTrace

    # Each try that fails is a warning there; in the end comes an error, which is not logged again and again.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    # Nor does a client write a warning, with words of its own, for each member of its tracestate.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    made = provider(config.otlp_endpoint, settings.VERSION)
    tracer = made.get_tracer("airelays", settings.VERSION)
    tells = config.trace_upstreams

    def begin(headers: Mapping[bytes, bytes], method: str, path: str) -> Trace:
        return RequestTrace(tracer, headers, method, path, tells)

    tracing.begin = begin
    try:
        await asyncio.Event().wait()
    finally:
        tracing.begin = None
        try:
            await asyncio.wait_for(asyncio.to_thread(made.shutdown), _STOP_SECONDS)
        except TimeoutError:
            logger.warning("spans were dropped at the end: the collector does not take them")
