"""The routes of resources: made of their declarations, so that all of them are asked and answered alike."""

# Ninja reads the types of parameters, which are made at run time: annotations are no texts here.
from typing import Annotated, Any, Final, Literal

from django import forms
from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Router, Schema
from pydantic import BaseModel

from relay.admin.pasted import parse_served
from relay.billing.price_import import listings_for
from relay.manage.requests.problems import ErrorBody
from relay.manage.resources import rows
from relay.manage.resources.resources import RESOURCES, Resource
from relay.manage.resources.schemas import Id, body_of, list_of, object_of, query_of
from relay.models import Channel

ERRORS: Final[dict[Any, Any]] = {
    code: ErrorBody for code in (400, 401, 403, 404, 405, 409, 412, 413, 422, 429, 500, 503)
}
KEY: Final = {
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "required": False,
            "schema": {"type": "string", "maxLength": 200, "pattern": "^[ -~]*$"},
            "description": "The same request with the same key does its work once, and gets the same answer for a day.",
        }
    ]
}
_MATCH: Final = {
    "parameters": [
        *KEY["parameters"],
        {
            "in": "header",
            "name": "If-Match",
            "required": False,
            "schema": {"type": "string", "maxLength": 1000, "pattern": "^[ -~]*$"},
            "description": "The ETag of the row as it was read: if it was changed since, the answer is 412.",
        },
    ]
}
PathId = Annotated[Id, Path(description="Its number.")]


class Deleted(Schema):
    """That something is gone."""

    object: str
    id: int
    deleted: Literal[True]


def _name(resource: Resource) -> str:
    return "".join(part.capitalize() for part in resource.kind.split("_"))


def _look_up_prices(request: HttpRequest, values: dict[str, Any], pk: int = 0) -> None:
    """Look up list prices of new models before the transaction begins, as the page does.

    They are those of the channel's vendor, which a change need not name.
    """
    if not values.get("new_models"):
        return
    there = Channel.objects.filter(pk=pk).values_list("provider", flat=True).first() if pk else None
    provider = values.get("provider") or there or ""
    try:
        request.listings = listings_for(provider, parse_served(values["new_models"]))  # type: ignore[attr-defined]
    except forms.ValidationError:
        pass  # the form says so


def object_schemas() -> dict[str, type[BaseModel]]:
    """The forms of rows in answers, by path."""
    return {one.path: object_of(_name(one), one.model, one.reads, one.shown) for one in RESOURCES}


OBJECTS: Final = object_schemas()


def add_routes(router: Router, resource: Resource) -> None:
    """Add the routes of a resource: list and read, and what its page can do."""
    name, item, where = _name(resource), OBJECTS[resource.path], f"/{resource.path}"
    tags = [resource.path]
    asked_kind: Any = query_of(f"{name}Query", resource.model, resource.filters, resource.searchable)
    before = _look_up_prices if resource.model is Channel else None

    @router.get(
        where,
        response={200: list_of(f"{name}List", item), **ERRORS},
        tags=tags,
        summary=f"List: {resource.one}",
        operation_id=f"list_{resource.kind}",
        url_name=f"{resource.path}-list",
    )
    def list_rows(request: HttpRequest, asked: Query[asked_kind]) -> HttpResponse:
        return rows.listed(request, resource, asked)

    if "add" in resource.does:
        new: Any = body_of(f"New{name}", resource.model, resource.writes, resource.sent, resource.required)

        @router.post(
            where,
            response={201: item, **ERRORS},
            tags=tags,
            summary=f"Make: {resource.one}",
            operation_id=f"create_{resource.kind}",
            url_name=f"{resource.path}-add",
            openapi_extra=KEY,
        )
        def create_row(request: HttpRequest, payload: new) -> HttpResponse:
            return rows.add(request, resource, payload, before)

    @router.get(
        f"{where}/{{int:pk}}",
        response={200: item, **ERRORS},
        tags=tags,
        summary=f"Read: {resource.one}",
        operation_id=f"get_{resource.kind}",
        url_name=f"{resource.path}-row",
    )
    def read_row(request: HttpRequest, pk: PathId) -> HttpResponse:
        return rows.read(request, resource, pk)

    if "change" in resource.does:
        fields = [one for one in resource.writes if one not in resource.fixed]
        changed: Any = body_of(f"{name}Change", resource.model, fields, resource.sent)

        @router.patch(
            f"{where}/{{int:pk}}",
            response={200: item, **ERRORS},
            tags=tags,
            summary=f"Change: {resource.one}",
            operation_id=f"update_{resource.kind}",
            url_name=f"{resource.path}-change",
            openapi_extra=_MATCH,
        )
        def change_row(request: HttpRequest, pk: PathId, payload: changed) -> HttpResponse:
            return rows.change(request, resource, pk, payload, before)

    if "delete" in resource.does:

        @router.delete(
            f"{where}/{{int:pk}}",
            response={200: Deleted, **ERRORS},
            tags=tags,
            summary=f"Delete: {resource.one}",
            operation_id=f"delete_{resource.kind}",
            url_name=f"{resource.path}-delete",
            openapi_extra=_MATCH,
        )
        def delete_row(request: HttpRequest, pk: PathId) -> HttpResponse:
            return rows.delete(request, resource, pk)


router = Router()  # of all files of this folder: a path has one, whatever its methods
for one in RESOURCES:
    add_routes(router, one)
