"""Every parameter that any page reads from its address, with values that strangers write: no page breaks on one.

What is around a page, such as its menu, is the same on all of them. It is tried on two, and left out of the others,
where it would cost most of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import pytest
from django.contrib.admin import site
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.handlers import wsgi
from django.core.management import call_command
from django.db.models import DateField
from django.forms import ModelChoiceField, ModelMultipleChoiceField
from django.http import QueryDict
from django.template import Template, engines
from django.template.loader_tags import BlockNode, ExtendsNode
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.admin.base import BaseAdmin
from accounts.models import User
from relay.usage import rollup
from tests.support.pages.filled import filled
from tests.support.pages.pages import ALL_PAGES, FILTERED_PAGES, ids

pytestmark = pytest.mark.shared
VALUES: Final = (
    "²",  # `isdigit`, but no number
    "9" * 5000,  # more digits than `int` reads
    "\x00",
    "9999-12-31",
    "9" * 400,  # more than any column holds
    "m1",
    "9" * 19,  # beyond 64 bits
    "-1",
    "0001-01-01",
    "NaN",
    "1e5",
    "٣",
)
ALONE: Final = VALUES[:4]
MIXED: Final = tuple(value for value in VALUES if value != "\x00")  # which is refused before anything else is read
TOGETHER: Final = 3  # requests with all parameters at once, each time with other values
OF_DJANGO: Final = re.compile(r"/admin/(?!relay/usagerecord/)[a-z]+/[a-z]+/(add/|\d+/(change|delete|history)/)?")
"""Lists and forms of models, whose parameters are Django's. Filters of lists are tried without rendering the list."""
WHOLE: Final = (("user", "/"), ("staff", "/admin/"))  # pages that are tried with what is around them
SKIPPED: Final = ("jsi18n", "static", "i18n/")
BASES: Final = frozenset(("portal/base.html", "admin/base_site.html", "admin/base.html", "allauth/layouts/base.html"))


class Recording(QueryDict):
    """A query string that remembers which of its parameters were asked for."""

    asked: set[str] = set()  # one for all requests: `names_read` empties it

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def getlist(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().getlist(key, default)


def routes(patterns: list[Any], start: str = "/") -> Iterator[str]:
    """Every address without a variable part."""
    for entry in patterns:
        path = f"{start}{str(entry.pattern).lstrip('^').rstrip('$')}"
        if any(sign in path for sign in "<(?\\") or path[1:].startswith(SKIPPED):
            continue
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, path)
        elif isinstance(entry, URLPattern):
            yield path


def paths() -> list[tuple[str, str]]:
    """Roles and paths of all pages: those listed for the tour, those without a variable part, those of every model."""
    known = ids()
    found = {
        place.path.format(**known).partition("?")[0]: place.role or "user" for place in (*FILTERED_PAGES, *ALL_PAGES)
    }
    for path in routes(get_resolver().url_patterns):
        found.setdefault(path, "staff")
    for model in site._registry:
        first = model._default_manager.first()
        if first is not None:
            start = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{first.pk}"
            found |= {f"{start}/{page}/": "staff" for page in ("change", "delete", "history")}
    return sorted((role, path) for path, role in found.items() if not path.endswith("logout/"))


def names_read(client: Client, path: str) -> set[str]:
    """The parameters that a page reads: those it asks for, and the fields of its form."""
    Recording.asked.clear()
    answer = client.get(path)
    found = set(Recording.asked)
    context: Any = getattr(answer, "context_data", None) or {}
    if context.get("cl") is not None:
        found |= {"q", "o", "p", "all"}
    if context.get("adminform") is not None:
        found |= set(context["adminform"].form.fields)
    return found


def queries_of(path: str, names: list[str]) -> Iterator[dict[str, str]]:
    """Queries of a page: all its parameters at once with various values, and where they are its own, each alone."""
    mixed = [name for name in names if name != "_to_field"]  # refused before anything else is read
    own = not OF_DJANGO.fullmatch(path)
    for start in range((TOGETHER if own or path.endswith("/add/") else 1) if mixed else 0):
        yield {name: MIXED[(place + start * 4) % len(MIXED)] for place, name in enumerate(mixed)}
    if own:
        yield from ({name: value} for name in names for value in ALONE)


def filters_of(page: Any, request: Any, seen: set[tuple[type, str]]) -> Iterator[tuple[str, str]]:
    """Filters of a list, with a value each: those that it offers, and those that Django takes for columns.

    `seen`: kinds of columns that have been tried with all values, on whichever list.
    """
    offered = {"q", "nothing__of__this"}
    for spec in page.get_changelist_instance(request).filter_specs:
        offered |= {name for name in spec.expected_parameters() if name}
    yield from ((name, value) for name in sorted(offered) for value in MIXED[:4])
    for field in page.model._meta.get_fields():
        if not field.concrete:
            continue
        if field.is_relation:
            yield from ((field.name, value) for value in ("9" * 400, "m1"))
        ends = ["", "__in", "__gte", "__isnull"] + ["__id__exact", "__id__in"] * field.is_relation
        ends += ["__year", "__month__gte"] * isinstance(field, DateField)
        for end in ends:
            if (type(field), end) not in seen:
                seen.add((type(field), end))
                yield from ((f"{field.name}{end}", value) for value in MIXED)


def request_of(user: User, query: dict[str, str] | None = None) -> Any:
    request = RequestFactory().get("/", query or {})
    request.user = user
    return request


@cache
def bare(name: str) -> Template:
    """A base template that shows the blocks of its pages one after the other, and nothing around them."""
    blocks: dict[str, None] = {}

    def collect(nodes: Any) -> None:
        for node in nodes.get_nodes_by_type(BlockNode):
            blocks[node.name] = None
        for node in nodes.get_nodes_by_type(ExtendsNode):
            collect(engines["django"].engine.get_template(node.parent_name.var).nodelist)  # type: ignore[attr-defined]

    collect(engines["django"].engine.get_template(name).nodelist)  # type: ignore[attr-defined]
    text = "".join(f"{{% block {block} %}}{{% endblock %}}" for block in blocks)
    return Template(text)


def leave_out_what_is_around(monkeypatch: pytest.MonkeyPatch, user: User) -> None:
    whole, around = ExtendsNode.get_parent, site.each_context(request_of(user))

    def parent(node: ExtendsNode, context: Any) -> Any:
        found = whole(node, context)
        return bare(found.name) if found.name in BASES else found

    monkeypatch.setattr(ExtendsNode, "get_parent", parent)
    monkeypatch.setattr(site, "each_context", lambda request: dict(around))
    monkeypatch.setattr("django.test.client.store_rendered_templates", lambda *args, **kwargs: None)


@pytest.mark.timeout(1500)
def test_no_page_breaks_on_what_is_typed_into_its_address(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public", "signup": "open"})
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    rollup.rebuild()
    admin = User.objects.create_superuser("page-admin", password="a long password")
    call_command("seed", users=2, tokens=3, requests=12, days=2)
    monkeypatch.setattr(wsgi, "QueryDict", Recording)
    browsers = {role: Client(raise_request_exception=False) for role in ("user", "staff")}
    browsers["user"].force_login(User.objects.get(pk=ids()["user"]))
    browsers["staff"].force_login(admin)
    broken, asked = [], 0

    def ask(role: str, path: str) -> None:
        nonlocal asked
        for query in queries_of(path, sorted(names_read(browsers[role], path))):
            answer = browsers[role].get(path, query)
            asked += 1
            if answer.status_code >= 500:
                broken.append(f"{answer.status_code} {path} {[(name, value[:12]) for name, value in query.items()]}")

    for role, path in WHOLE:
        ask(role, path)
    leave_out_what_is_around(monkeypatch, admin)
    for role, path in paths():
        ask(role, path)
    kinds: set[tuple[type, str]] = set()
    for page in site._registry.values():
        assert isinstance(page, BaseAdmin), "which reads what is typed into addresses"
        for name, value in filters_of(page, request_of(admin), kinds):
            asked += 1
            try:
                list(page.get_changelist_instance(request_of(admin, {name: value})).result_list)
            except (IncorrectLookupParameters, DisallowedModelAdminLookup):
                continue  # the page says so
            except Exception as error:  # whatever it is, the page would break
                broken.append(f"{page} {name}={value[:12]}: {error!r}")
    assert not broken, f"{len(broken)} of {asked}:\n" + "\n".join(broken)
    assert asked > 1200


def test_no_page_of_a_model_breaks_on_ids_in_its_path_or_in_the_form_of_an_action(db: None) -> None:
    admin = User.objects.create_superuser("page-admin", password="a long password")
    client = Client(raise_request_exception=False)
    client.force_login(admin)
    broken = []
    for model, page in site._registry.items():
        start = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        actions = page.get_actions(request_of(admin))
        for value in ("9" * 400, "m1"):
            for view in ("change", "delete", "history"):
                if client.get(f"{start}{value}/{view}/").status_code >= 500:
                    broken.append(f"{start} {value[:12]} {view}")
            if page.list_editable:
                rows = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": value, "_save": "Save"}
                if client.post(start, rows).status_code >= 500:
                    broken.append(f"{start} {value[:12]} list")
            form = {"action": next(iter(actions), ""), "_selected_action": [value, "1"], "form-TOTAL_FORMS": value}
            if actions and client.post(start, form).status_code >= 500:
                broken.append(f"{start} {value[:12]} action")
            if client.post(f"{start}add/", {"_popup": value}).status_code >= 500:
                broken.append(f"{start} {value[:12]} add")
    assert not broken, broken


def test_no_form_of_the_admin_breaks_on_ids_that_it_never_offered(db: None) -> None:
    call_command("seed", users=2, tokens=3, requests=12, days=2)
    admin = User.objects.create_superuser("page-admin", password="a long password")
    client = Client(raise_request_exception=False)
    client.force_login(admin)
    broken, tried = [], 0
    for model in site._registry:
        start = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        first = model._default_manager.first()
        for path in [f"{start}add/", *([f"{start}{first.pk}/change/"] if first is not None else [])]:
            page = client.get(path)
            if page.status_code != 200 or "adminform" not in (page.context or {}):
                continue
            forms = [page.context["adminform"].form]
            forms += [form for inline in page.context["inline_admin_formsets"] for form in inline.formset.forms]
            sent = filled(page.content.decode())
            for form in forms:
                for name, field in form.fields.items():
                    if isinstance(field, ModelChoiceField | ModelMultipleChoiceField):
                        for value in ("9" * 400, "m1"):
                            tried += 1
                            if client.post(path, sent | {form.add_prefix(name): value}).status_code >= 500:
                                broken.append(f"{path} {form.add_prefix(name)} {value[:12]}")
    assert not broken and tried > 40, (tried, broken)
