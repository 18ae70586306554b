"""GET /v1/openapi.json."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router

from relay.api.auth import token_auth
from relay.api.reference.openapi import document
from relay.api.respond import json_response
from relay.errors import NotFound


def router_of(api: NinjaAPI) -> Router:
    """The route that describes an API, to be added when that API's other routes are known."""
    router = Router()

    @router.get("/openapi.json", url_name="openapi")
    async def openapi_document(request: HttpRequest) -> HttpResponse:
        """This document."""
        allowed = settings.CONFIG.openapi
        if allowed == "off":
            raise NotFound("This portal does not publish its OpenAPI document. Ask its administrator.")
        if allowed == "tokens":
            await token_auth(request)
        return json_response(document(api, settings.VERSION))

    return router
