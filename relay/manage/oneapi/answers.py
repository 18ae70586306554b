"""Answers as one-api gives them: what failed has the status 200, too, and says so in its body.

Source: https://github.com/songquanpeng/one-api (docs/API.md, router/api.go, controller/), read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from portal.lib import money
from relay.manage.requests import once
from relay.manage.requests.access import authenticate, key_in, need_scope
from relay.manage.requests.problems import Problem, of_exception
from relay.manage.requests.reading import read_object

QUOTA_PER_USD: Final = 500_000
NANO_PER_QUOTA: Final = money.NANO // QUOTA_PER_USD
PAGE: Final = 10  # rows
_MOST_PAGE: Final = 100
_LAST_PAGE: Final = 1000
_MOST_FOUND: Final = 200  # rows that a search gives
View = Callable[..., Any]


def quota_of(amount: int) -> int:
    """Units of quota of an amount in nano-USD, rounded down."""
    return amount // NANO_PER_QUOTA


def usd_of(quota: int) -> str:
    """USD of units of quota."""
    return money.plain(quota * NANO_PER_QUOTA)


def success(data: Any = None, message: str = "") -> dict[str, Any]:
    return {"success": True, "message": message, "data": data}


def failure(problem: Problem) -> HttpResponse:
    """What failed. Only without a key the status says so, and where nobody could read a body: 429, 503."""
    message = problem.message
    status = problem.status if problem.status in (429, 503) or problem.code == "missing_key" else 200
    return once.answered(status, {"success": False, "message": message})


def route(**methods: View) -> View:
    """A view of a path: a function for each method. Its result is the member `data`."""

    @wraps(next(iter(methods.values())))
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            found = methods.get(request.method or "")
            if found is None:
                response = failure(Problem(_("This path takes %(methods)s.") % {"methods": ", ".join(methods)}))
                response["Allow"] = ", ".join(methods)
                response.status_code = 405
                return response
            if not getattr(found, "public", False):
                authenticate(request, key_in(request))
            result = found(request, *args, **kwargs)
        except Exception as error:
            return failure(of_exception(request, error))
        return result if isinstance(result, HttpResponse) else once.answered(200, success(result))

    view.methods = methods  # type: ignore[attr-defined]  # for the test that walks the routes
    return csrf_exempt(view)


def reads(area: str) -> Callable[[View], View]:
    """A function that needs a scope to read."""

    def decorate(view: View) -> View:
        @wraps(view)
        def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            need_scope(request, area)
            return view(request, *args, **kwargs)

        return asked

    return decorate


def writes(area: str) -> Callable[[View], View]:
    """A function that needs a scope to write. All that it does is one transaction, once for each Idempotency-Key."""

    def decorate(view: View) -> View:
        @wraps(view)
        def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            need_scope(request, area, write=True)
            return once.do(request, lambda: (200, success(view(request, *args, **kwargs))))

        return asked

    return decorate


def body_of(request: HttpRequest) -> dict[str, Any]:
    return read_object(request.body)


def integer(value: Any, name: str, default: int | None = None) -> int:
    """A whole number of a body or a query. Raises Problem."""
    if value in (None, "") and default is not None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 2**63
    if isinstance(value, bool) or (isinstance(value, float) and number != value) or abs(number) >= 2**63:
        raise Problem(_("“%(name)s” must be a whole number.") % {"name": name})
    return number


def text(value: Any, name: str, default: str = "") -> str:
    """A text of a body. Raises Problem."""
    if value is None:
        return default
    if not isinstance(value, str):
        raise Problem(_("“%(name)s” must be a text.") % {"name": name})
    return value


def changed(sent: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """What of a body differs from the row as it is shown now.

    Scripts send back whole rows with one member changed. What one-api's form cannot tell, such as a second group or a
    limit to nothing, must not change along.
    """
    return {name: value for name, value in sent.items() if name not in shown or shown[name] != value}


def page(request: HttpRequest, rows: Any) -> list[Any]:
    """The rows of the page `p`, counted from 0, the newest first."""
    number = max(integer(request.GET.get("p"), "p", 0), 0)
    if number > _LAST_PAGE:  # the last one again would never end for a script that reads to an empty page
        said = _("Pages end with %(page)d. Ask for a larger “page_size”, for a shorter time, or use /api/v1.")
        raise Problem(said % {"page": _LAST_PAGE})
    size = min(max(integer(request.GET.get("page_size"), "page_size", PAGE), 1), _MOST_PAGE)
    return list(rows.order_by("-pk")[number * size : (number + 1) * size])


def searched(request: HttpRequest, made: Any, rows: Any) -> list[Any]:
    """The rows that the page's search finds."""
    typed = request.GET.get("keyword", "").strip()[:200]
    found = made.searched(rows, typed) if typed else rows
    return list(found.order_by("-pk")[:_MOST_FOUND])


def seconds(at: Any) -> int:
    return int(at.timestamp()) if at is not None else 0
