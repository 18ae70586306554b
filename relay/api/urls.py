"""URLs of the relay stack: the NinjaAPI and its routers."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import NinjaAPI

from relay.api.anthropic import batches as message_batches
from relay.api.anthropic import messages
from relay.api.errors import error_response
from relay.api.gemini import generate_content, interactions
from relay.api.openai import batches, chat, files, models, passthrough, realtime, responses, usage
from relay.api.reference.document import router_of
from relay.api.reference.json_schema import Schema
from relay.api.reference.openapi import build_document
from relay.api.request import exchange_of
from relay.errors import InternalError, RelayError

_UNUSED: Final = HttpResponse()


class RelayAPI(NinjaAPI):
    """A NinjaAPI whose views all return responses of their own."""

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        """The response that Ninja makes for views which return none: 3 % of the CPU of a request, and never used."""
        return _UNUSED


def on_relay_error(request: HttpRequest, error: RelayError | type[RelayError]) -> HttpResponse:
    """Answer with an error, and keep it for the record of refused requests."""
    found = error if isinstance(error, RelayError) else InternalError()
    exchange = exchange_of(request)
    exchange.refusal = found
    return error_response(found, exchange.error_shape, exchange.request_id)


api = RelayAPI(title="AIRelays Portal", docs_url=None, openapi_url=None, urls_namespace="relay")
api.add_exception_handler(RelayError, on_relay_error)
api.add_router("", generate_content.router)  # before that of models, whose names may have colons
api.add_router("", interactions.router)
api.add_router("", models.router)
api.add_router("", chat.router)
api.add_router("", passthrough.router)
api.add_router("", responses.router)
api.add_router("", messages.router)
api.add_router("", message_batches.router)
api.add_router("", files.router)
api.add_router("", batches.router)
api.add_router("", realtime.router)
api.add_router("", usage.router)
api.add_router("/dashboard/billing", usage.billing)
api.add_router("", router_of(api))

urlpatterns = [path("v1/", api.urls)]


def reference() -> Schema:
    """The OpenAPI document of the API."""
    return build_document(api, settings.VERSION)
