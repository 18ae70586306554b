"""Rows of resources as the API shows them, and the work of its routes on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from pydantic import BaseModel

from relay.manage.requests import cursors, once
from relay.manage.requests.access import known_parameters, need_scope
from relay.manage.requests.problems import Changed, Forbidden, Missing, Problem
from relay.manage.resources.groups import SETTINGS
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import Resource
from relay.manage.resources.schemas import shown_as

_MOST_TAGS: Final = 20  # of one If-Match


def page_of(request: HttpRequest, resource: Resource) -> Page:
    return Page(request, resource.model, resource.prepare, resource.called)


def rows_of(resource: Resource, page: Page) -> QuerySet[Any]:
    """The rows that the page lists, with all that `shown` reads of them: a few queries, however many they are."""
    rows = resource.narrow(page.rows())
    many = [one.name for one in resource.model._meta.many_to_many if one.name in resource.reads]
    return rows.prefetch_related(*many) if many else rows


def shown(resource: Resource, row: Any, page: Page) -> dict[str, Any]:
    """A row as JSON, without what the owner of the key may not see."""
    hidden = page.hidden()
    found: dict[str, Any] = {"object": resource.kind, "id": row.pk}
    for name in resource.reads:
        if name in hidden:
            continue
        field: Any = resource.model._meta.get_field(name)
        if field.many_to_many:
            found[name] = sorted(one.pk for one in getattr(row, name).all())
        else:
            found[name] = shown_as(getattr(row, field.attname))
    return {**found, **resource.show(row, page)}


def etag(resource: Resource, body: Mapping[str, Any]) -> str:
    """A digest of what people set: what the portal writes itself, such as balances, changes with each request."""
    known = {name: body.get(name) for name in ("id", "hint", *resource.writes)}
    text = json.dumps(known, sort_keys=True, default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _check_unchanged(request: HttpRequest, resource: Resource, body: Mapping[str, Any]) -> None:
    """Raise Changed if the client has seen another state of a row than the present one."""
    sent = request.headers.get("If-Match", "")
    if not sent:
        return
    tags = [one.strip().removeprefix("W/") for one in sent.split(",")]
    if len(tags) > _MOST_TAGS:
        raise Problem(_("If-Match has too many tags."))
    if "*" not in tags and etag(resource, body) not in tags:
        raise Changed(_("Somebody has changed it since you read it. Read it again, then change it."))


def again(resource: Resource, page: Page, row: Any) -> dict[str, Any]:
    """A saved row, read anew. For somebody who may add rows and not see them, its number."""
    try:
        found = rows_of(resource, page).filter(pk=row.pk).first()
    except Forbidden:
        found = None
    body = shown(resource, found, page) if found is not None else {"object": resource.kind, "id": row.pk}
    return {**body, "warnings": page.notes.texts()}


def listed(request: HttpRequest, resource: Resource, asked: BaseModel) -> HttpResponse:
    """Answer with a page of rows, the newest first."""
    need_scope(request, resource.area)
    known_parameters(request, type(asked).model_fields)
    page = page_of(request, resource)
    sent = {name: value for name, value in asked.model_dump().items() if value not in (None, "")}
    limit, cursor = sent.pop("limit"), sent.pop("cursor", "")
    filters = {name: value for name, value in sent.items() if name in resource.filters}
    rows = rows_of(resource, page).filter(**filters)
    if text := sent.get("search"):
        rows = page.searched(rows, text)
    if cursor:
        rows = rows.filter(pk__lt=int(cursors.read(request.path, sent, cursor)))
    found = list(rows.order_by("-pk")[: limit + 1])
    more = len(found) > limit
    return once.answered(
        200,
        {
            "object": "list",
            "data": [shown(resource, row, page) for row in found[:limit]],
            "next_cursor": cursors.write(request.path, sent, str(found[limit - 1].pk)) if more else None,
        },
    )


def _found(resource: Resource, page: Page, pk: int) -> Any:
    row = rows_of(resource, page).filter(pk=pk).first()
    if row is None or not page.page.has_view_permission(page.request, row):
        raise Missing
    return row


def read(request: HttpRequest, resource: Resource, pk: int) -> HttpResponse:
    need_scope(request, resource.area)
    page = page_of(request, resource)
    body = shown(resource, _found(resource, page, pk), page)
    response = once.answered(200, body)
    response["ETag"] = etag(resource, body)
    return response


def _values(resource: Resource, sent: BaseModel, new: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values for the page's form, and those for the settings of a group."""
    found = sent.model_dump(exclude_unset=True)
    if resource.formsets is None:
        return resource.values(found, new), {}
    settings = {name: found.pop(name) for name in SETTINGS if name in found}
    return resource.values(found, new), settings


def add(request: HttpRequest, resource: Resource, sent: BaseModel, before: Any = None) -> HttpResponse:
    """Make a row. `before`: called with the page and the values, outside of the transaction."""
    need_scope(request, resource.area, write=True)
    values, settings = _values(resource, sent, True)
    if before is not None:
        before(request, values)

    def work() -> tuple[int, Any]:
        page = page_of(request, resource)
        later = _left_for_later(resource, page, values)
        row = page.add(values, resource.formsets(settings) if resource.formsets else None)
        if later:
            row = page.change(page.find(row.pk, lock=True), later)
        body = again(resource, page, row)
        if secret := getattr(request, "new_token_secret", ""):
            body["key"] = secret
        return 201, body

    return once.do(request, work)


def _left_for_later(resource: Resource, page: Page, values: dict[str, Any]) -> dict[str, Any]:
    """Take out of the values of a new user what its page asks for only afterwards."""
    if resource.kind != "user":
        return {}
    first = {"username", "email", "password1", "password2"}
    return {name: values.pop(name) for name in list(values) if name not in first}


def change(request: HttpRequest, resource: Resource, pk: int, sent: BaseModel, before: Any = None) -> HttpResponse:
    """Change fields of a row."""
    need_scope(request, resource.area, write=True)
    values, settings = _values(resource, sent, False)
    if before is not None:
        before(request, values, pk)

    def work() -> tuple[int, Any]:
        page = page_of(request, resource)
        row = page.find(pk, lock=True)
        if request.headers.get("If-Match"):
            _check_unchanged(request, resource, shown(resource, _found(resource, page, pk), page))
        saved = page.change(row, values, resource.formsets(settings) if resource.formsets else None)
        return 200, again(resource, page, saved)

    return once.do(request, work)


def delete(request: HttpRequest, resource: Resource, pk: int) -> HttpResponse:
    need_scope(request, resource.area, write=True)

    def work() -> tuple[int, Any]:
        page = page_of(request, resource)
        row = page.find(pk, lock=True)
        if request.headers.get("If-Match"):
            _check_unchanged(request, resource, shown(resource, _found(resource, page, pk), page))
        page.delete(row)
        return 200, {"object": resource.kind, "id": pk, "deleted": True}

    return once.do(request, work)
