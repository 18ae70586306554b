"""GET /v1/openapi.json."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router

from relay.api.auth import token_auth
from relay.api.reference.openapi import build_document
from relay.api.respond import json_response
from relay.errors import NotFound


def router_of(api: NinjaAPI) -> Router:
    """The route of an API's OpenAPI document. Add it after the API's other routes."""
    router = Router()

    @router.get("/openapi.json", url_name="openapi")
    async def openapi_document(request: HttpRequest) -> HttpResponse:
        """This document."""
        allowed = settings.CONFIG.openapi
        if allowed == "off":
            raise NotFound("This portal does not publish its OpenAPI document. Ask its administrator.")
        if allowed == "tokens":
            await token_auth(request)
        return json_response(build_document(api, settings.VERSION))

    return router
