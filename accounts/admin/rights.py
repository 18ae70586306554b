"""Rights in words, under the page on which they count. Read from the pages, so that a new page brings its own.

Django has four permissions for every table. Those for which there is no page, or that a page never grants, open nothing
here and are not offered; a group that has one keeps it until somebody takes it away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib.admin import AdminSite
from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import Permission
from django.forms.models import ModelChoiceIterator, ModelChoiceIteratorValue
from django.http import HttpRequest
from django.template import loader
from django.utils.safestring import mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext, gettext_lazy

_VERBS: Final = {
    "view": gettext_lazy("See %(rows)s"),
    "add": gettext_lazy("Add %(rows)s"),
    "change": gettext_lazy("Change %(rows)s"),
    "delete": gettext_lazy("Delete %(rows)s"),
}


class _AllRights:
    """Stands for staff with every permission, but no superuser: what a page refuses them, no right opens."""

    pk = None
    is_active = is_staff = is_authenticated = True
    is_superuser = is_anonymous = False

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return True

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        return True

    def has_module_perms(self, app_label: str) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Section:
    """A page and the rights that count on it."""

    title: str
    rights: Mapping[str, str]  # sentences by permission, such as relay.view_channel


def sections(site: AdminSite) -> list[Section]:
    """Return the rights that open something, in the reader's language. Rows edited on another page stand with it."""
    request = HttpRequest()
    request.user = _AllRights()  # type: ignore[assignment]
    found, seen = [], set(site._registry)
    for model, page in site._registry.items():
        rights = _rights_of(page, request)
        for inline in page.inlines:
            if inline.model not in seen:
                seen.add(inline.model)
                rights |= _rights_of(inline(model, site), request)
        if rights:
            found.append(Section(capfirst(_rows(page)), rights))
    return found


def sentences(site: AdminSite) -> dict[str, str]:
    """Return the sentences of all rights that open something, by permission."""
    return {right: sentence for section in sections(site) for right, sentence in section.rights.items()}


def _rows(page: Any) -> str:
    return str(getattr(page, "rights_title", "") or page.model._meta.verbose_name_plural)


def _rights_of(page: Any, request: HttpRequest) -> dict[str, str]:
    options, own = page.model._meta, getattr(page, "rights_words", {})
    found = {}
    for verb, sentence in _VERBS.items():
        code = get_permission_codename(verb, options)
        if code in own or _grants(page, verb, request):
            found[f"{options.app_label}.{code}"] = str(own.get(code) or sentence % {"rows": _rows(page)})
    others = {f"{options.app_label}.{code}": str(sentence) for code, sentence in own.items()}
    return {**found, **{right: sentence for right, sentence in others.items() if right not in found}}


def _grants(page: Any, verb: str, request: HttpRequest) -> bool:
    ask: Callable[..., bool] = getattr(page, f"has_{verb}_permission")
    return ask(request, None) if verb != "add" or hasattr(page, "parent_model") else ask(request)


def permission_name(permission: Permission) -> str:
    """Return a permission as code asks for it, such as relay.view_channel."""
    return f"{permission.content_type.app_label}.{permission.codename}"


def grouped(site: AdminSite, permissions: list[Permission]) -> list[tuple[str, list[tuple[Permission, str]]]]:
    """Return permissions with their sentences, by page; those that open nothing come last."""
    left = {permission_name(one): one for one in permissions}
    found = []
    for section in sections(site):
        rows = [(left.pop(right), sentence) for right, sentence in section.rights.items() if right in left]
        if rows:
            found.append((section.title, rows))
    if left:
        found.append((gettext("Rights without effect"), [(one, _sentence(one)) for one in left.values()]))
    return found


def _sentence(permission: Permission) -> str:
    model = permission.content_type.model_class()
    verb = permission.codename.partition("_")[0]
    if model is None or verb not in _VERBS or permission.codename != get_permission_codename(verb, model._meta):
        return permission.name
    return _VERBS[verb] % {"rows": model._meta.verbose_name_plural}


class RightsIterator(ModelChoiceIterator):  # type: ignore[type-arg]  # not generic at run time
    """The choices of a field of permissions, by page."""

    field: Any

    def __iter__(self) -> Iterator[Any]:
        rows = list(self.queryset.select_related("content_type"))
        for title, found in grouped(self.field.site, rows):
            yield title, [(ModelChoiceIteratorValue(one.pk, one), sentence) for one, sentence in found]


class RightsWidget(forms.CheckboxSelectMultiple):
    """Check boxes under the pages that they are about."""

    def _render(self, template_name: str, context: dict[str, Any], renderer: Any = None) -> str:
        return mark_safe(loader.render_to_string("admin/auth/group/rights.html", context))  # noqa: S308  # escaped there


class RightsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """A field of permissions. `site`: the admin whose pages they open."""

    widget = RightsWidget
    iterator = RightsIterator
    site: AdminSite
