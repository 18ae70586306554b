"""GET /v1/openapi.json."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router

from relay.api.auth import token_auth
from relay.api.reference.openapi import document
from relay.api.reference.schemas import Schema
from relay.api.respond import json_response
from relay.errors import NotFound

router = Router()
_published: list[NinjaAPI] = []


def publish(api: NinjaAPI) -> None:
    """Say which API the document is of, when its routers are complete."""
    _published[:] = [api]


def current() -> Schema:
    """The document of the published API."""
    import_module("relay.api.urls")  # where it is published, in a process that has served nothing yet
    return document(_published[0], settings.VERSION)


@router.get("/openapi.json", url_name="openapi")
async def openapi_document(request: HttpRequest) -> HttpResponse:
    """This document."""
    allowed = settings.CONFIG.openapi
    if allowed == "off":
        raise NotFound("This portal does not publish its OpenAPI document. Ask its administrator.")
    if allowed == "tokens":
        await token_auth(request)
    return json_response(current())
