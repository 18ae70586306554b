"""URLs of the management API."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, re_path
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI

from relay.manage import actions, money, records  # their routes are in the router that all share
from relay.manage.oneapi import channels, tokens, users
from relay.manage.oneapi import records as one_records
from relay.manage.requests import once
from relay.manage.requests.access import StaffKeyAuth, authenticate, key_in
from relay.manage.requests.problems import Missing, Problem, WrongMethod, answer, handle
from relay.manage.requests.reading import JsonParser
from relay.manage.resources.routes import router

_FILES: Final = (actions, money, records)
_ROOT: Final = "api/v1/"

api = NinjaAPI(
    title="AIRelays Portal: management",
    version=settings.VERSION,
    description=(
        "What staff do in the administration, for scripts, with staff keys. Apps that call models use /v1 and a token "
        "instead."
    ),
    docs_url=None,
    openapi_url=None,
    urls_namespace="manage",
    auth=StaffKeyAuth(),
    parser=JsonParser(),
)
handle(api)
api.add_router("", router)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document. Making it takes half a second."""
    return dict(api.get_openapi_schema(path_prefix=f"/{_ROOT}"))


@api.get("/openapi.json", auth=None, include_in_schema=False, url_name="openapi")
def openapi_document(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document. Who may read it is said by the same setting as of /v1."""
    allowed = settings.CONFIG.openapi
    if allowed == "off":
        raise Missing(_("This portal does not publish its OpenAPI document."))
    if allowed == "tokens":
        authenticate(request, key_in(request))
    return JsonResponse(document())


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    """The answer of paths that are none."""
    said = _("There is nothing at this path. The routes are in /api/v1/openapi.json. Apps that call models use /v1.")
    return answer(Missing(said))


@csrf_exempt
def nothing_like_it(request: HttpRequest) -> HttpResponse:
    """The answer of routes of one-api's that there are not."""
    return once.answered(404, {"success": False, "message": _("This portal has no such route of one-api's.")})


def _in_json(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Say in JSON that a path has other methods: no cookie is read here, so that no CSRF token is needed."""

    @wraps(view)
    def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except Problem as problem:
            return answer(problem)
        if response.status_code != 405:
            return response
        allow = response["Allow"]
        refused = answer(WrongMethod(_("This path takes %(methods)s.") % {"methods": allow}))
        refused["Allow"] = allow
        return refused

    return csrf_exempt(asked)


def patterns_of(made: NinjaAPI) -> tuple[list[Any], str, str]:
    """The URLs of an API, each of which answers in JSON whatever is asked of it."""
    patterns, app, space = made.urls
    for pattern in patterns:
        view: Any = pattern.callback
        pattern.callback = _in_json(view)
    return patterns, app, space


ONE_API: Final = {**users.ROUTES, **tokens.ROUTES, **channels.ROUTES, **one_records.ROUTES}
_FIRST: Final = sorted({route.split("/")[0] for route in ONE_API})


def _one_api() -> list[URLPattern]:
    """The routes in one-api's form, with and without the slash at the end: scripts write both."""
    found = []
    for route, view in ONE_API.items():
        name = f"one-api-{route.replace('<int:pk>', 'row').strip('/').replace('/', '-')}"
        bare = route.rstrip("/")
        found += [path(f"api/{bare}", view, name=name), path(f"api/{bare}/", view, name=f"{name}-slash")]
    return found


urlpatterns: Final[list[Any]] = [
    re_path(r"^api/v1/?$", nothing_here, name="manage-root"),
    path(_ROOT, patterns_of(api)),
    re_path(r"^api/v1(?:/.*)?$", nothing_here, name="manage-nothing"),
    *_one_api(),
    re_path(
        r"^api/(?:user|token|channel|redemption|log|status|models|topup|group)/",
        nothing_like_it,
        name="one-api-nothing",
    ),
]
