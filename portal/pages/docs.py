"""The endpoints of /v1 for people, made from the same document that machines read."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from relay.api.urls import reference


def docs(request: HttpRequest) -> HttpResponse:
    """For whom the setting OPENAPI allows it."""
    allowed = settings.CONFIG.openapi
    if allowed == "off":
        raise Http404
    if allowed == "tokens" and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    groups: dict[str, list[dict[str, Any]]] = {}
    document = reference()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(_(operation["tags"][0]), []).append(_shown(method, path, operation))
    return render(request, "portal/docs.html", {"groups": groups.items(), "here": "docs", "count": sum(map(len, groups.values()))})


def _shown(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    kind: str = next(iter(content), "")
    schema = content[kind].get("schema", {}) if kind else {}
    required = schema.get("required", [])
    members = [{"name": name, "required": name in required, "type": _type(member), "about": _about(member)} for name, member in schema.get("properties", {}).items()]
    return {
        "method": method.upper(), "path": path, "about": _(operation["description"]).replace("`", ""), "id": operation["operationId"], "form": kind.startswith("multipart"),
        "members": members, "queries": [{**entry, "type": _type(entry["schema"]), "description": _said(entry)} for entry in operation.get("parameters", []) if entry["in"] == "query"],
        "streams": "text/event-stream" in operation["responses"]["200"]["content"],
    }  # fmt: skip


def _about(schema: dict[str, Any]) -> str:
    """Its description, or that of what it may be."""
    return _said(schema) or next((_said(option) for option in schema.get("anyOf", ()) if "description" in option), "")


def _said(thing: dict[str, Any]) -> str:
    return _(thing["description"]) if thing.get("description") else ""


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "anyOf" in schema:
        return _(" or ").join(dict.fromkeys(_type(option) for option in schema["anyOf"] if option.get("type") != "null"))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("format") == "binary":
        return "file"
    if schema.get("type") == "array":
        return _("list of %(what)s") % {"what": _type(schema["items"])}
    kind = schema.get("type", "anything")
    return _(" or ").join(kind) if isinstance(kind, list) else str(kind)
