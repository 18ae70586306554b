"""The API reference as a page, generated from the OpenAPI document."""

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
    """The API reference, for those whom the setting OPENAPI permits."""
    allowed = settings.CONFIG.openapi
    if allowed == "off":
        raise Http404
    if allowed == "tokens" and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    groups: dict[str, list[dict[str, Any]]] = {}
    document = reference()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(_(operation["tags"][0]), []).append(_operation_row(method, path, operation))
    return render(
        request, "portal/docs.html", {"groups": groups.items(), "here": "docs", "count": sum(map(len, groups.values()))}
    )


def _operation_row(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    kind: str = next(iter(content), "")
    schema = content[kind].get("schema", {}) if kind else {}
    required = schema.get("required", [])
    members = [
        {"name": name, "required": name in required, "type": _type_name(member), "about": _description(member)}
        for name, member in schema.get("properties", {}).items()
    ]
    return {
        "method": method.upper(),
        "path": path,
        "about": _(operation["description"]).replace("`", ""),
        "id": operation["operationId"],
        "form": kind.startswith("multipart"),
        "members": members,
        "queries": [
            {**entry, "type": _type_name(entry["schema"]), "description": _own_description(entry)}
            for entry in operation.get("parameters", [])
            if entry["in"] == "query"
        ],
        "streams": any("text/event-stream" in one["content"] for one in operation["responses"].values()),
    }


def _description(schema: dict[str, Any]) -> str:
    """The description of a schema, or of the first of its alternatives that has one."""
    return _own_description(schema) or next(
        (_own_description(option) for option in schema.get("anyOf", ()) if "description" in option), ""
    )


def _own_description(thing: dict[str, Any]) -> str:
    return _(thing["description"]) if thing.get("description") else ""


def _type_name(schema: dict[str, Any]) -> str:
    """The type of a schema for people, such as `string or list of object`."""
    if "anyOf" in schema:
        return _(" or ").join(
            dict.fromkeys(_type_name(option) for option in schema["anyOf"] if option.get("type") != "null")
        )
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("format") == "binary":
        return "file"
    if schema.get("type") == "array":
        return _("list of %(what)s") % {"what": _type_name(schema["items"])}
    kind = schema.get("type", "anything")
    return _(" or ").join(kind) if isinstance(kind, list) else str(kind)
