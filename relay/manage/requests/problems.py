"""Why a request is refused, and how the answer says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from html import unescape
from typing import Any, Final

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException
from django.utils.html import strip_tags
from django.utils.translation import gettext as _
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError
from ninja.errors import ValidationError as NotAsDocumented
from pydantic import Field

logger = logging.getLogger(__name__)
Fields = Mapping[str, list[str]]  # what is wrong, by field
_LONGEST: Final = 500  # characters of a message
RETRY_SECONDS: Final = 10


class ErrorDetail(Schema):
    """What is wrong."""

    code: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people: what is wrong, and what to do.")
    fields: dict[str, list[str]] = Field({}, description="What is wrong with fields of the request, by name.")


class ErrorBody(Schema):
    """The body of every answer that is no success."""

    error: ErrorDetail


class Problem(Exception):
    """Why a request is refused. Raised anywhere below a route."""

    status: int = 400
    code: str = "bad_request"

    def __init__(self, message: str, fields: Fields | None = None, *, code: str = "") -> None:
        super().__init__(message)
        self.message, self.fields, self.code = message, dict(fields or {}), code or self.code


class Unauthorized(Problem):
    """No key, or one that is not valid any more."""

    status, code = 401, "invalid_key"


class Forbidden(Problem):
    """The key is not for this, or its owner may not do it."""

    status, code = 403, "forbidden"


_UNKNOWN: Final = "extra_forbidden"  # pydantic's name of the error
_NO_NAMES: Final = frozenset(
    ("body", "query", "path", "payload", "asked", "constrained-int", "constrained-str", "int", "str")
)


class Missing(Problem):
    """There is no such object, or the key's owner may not see it."""

    status, code = 404, "not_found"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or _("There is no such object."))


class WrongMethod(Problem):
    """A path has other methods."""

    status, code = 405, "wrong_method"


class Conflict(Problem):
    """It cannot be done as things are."""

    status, code = 409, "conflict"


class Changed(Problem):
    """The object is not the one that the client has seen."""

    status, code = 412, "changed_meanwhile"


class Invalid(Problem):
    """Fields are wrong."""

    status, code = 422, "invalid"


class TooManyWrongKeys(Problem):
    """An address has tried too many keys that are none."""

    status, code = 429, "too_many_wrong_keys"


class Broken(Problem):
    """A fault of the portal's own."""

    status, code = 500, "internal_error"


class Away(Problem):
    """The database, or Redis, cannot be used."""

    status, code = 503, "database_unavailable"


def text_of(message: object) -> str:
    """A message of a page as plain text: pages put links and buttons into some."""
    return " ".join(unescape(strip_tags(str(message))).split())[:_LONGEST]


def invalid(errors: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Invalid:
    """The problem with a form's errors. `names`: what clients call fields of the form otherwise."""
    fields: dict[str, list[str]] = {}
    said: list[str] = []
    for name, messages in errors.items():
        texts = [text_of(one) for one in messages]
        said += texts
        if name != NON_FIELD_ERRORS:
            called = (names or {}).get(name, name)
            fields[called] = [*fields.get(called, []), *texts]
    first = next(iter(fields.items()), None)
    message = f"{first[0]}: {first[1][0]}" if first is not None else " ".join(said)
    return Invalid(message[:_LONGEST] or _("The request is not valid."), fields)


def of_validation(error: ValidationError) -> Invalid:
    """The problem with an error of Django's own checks."""
    if hasattr(error, "error_dict"):
        return invalid(error.message_dict)
    return invalid({NON_FIELD_ERRORS: error.messages})


def answer(problem: Problem) -> HttpResponse:
    body = {"error": {"code": problem.code, "message": problem.message, "fields": problem.fields}}
    response = JsonResponse(body, status=problem.status, json_dumps_params={"ensure_ascii": False})
    if problem.status in (429, 503):
        response["Retry-After"] = str(RETRY_SECONDS)
    if problem.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def not_as_documented(error: NotAsDocumented) -> Invalid:
    """The problem with a request that is not what the document says. What was sent is not repeated: it may be
    secret.
    """
    fields: dict[str, list[str]] = {}
    # Members that there are not come first: what is missing then is mostly what they were meant to be.
    for one in sorted(error.errors, key=lambda one: one.get("type") != _UNKNOWN):
        # Without where Ninja keeps it: `body`, the name of the parameter, which of two types it was compared with.
        place = [str(part) for part in one.get("loc", ()) if part not in _NO_NAMES]
        said = _("There is no such member.") if one.get("type") == _UNKNOWN else str(one.get("msg", ""))
        fields.setdefault(".".join(place) or "body", []).append(said)
    first, texts = next(iter(fields.items()), ("body", [_("The request is not valid.")]))
    return Invalid(f"{first}: {texts[0]}"[:_LONGEST], fields)


def of_exception(request: HttpRequest, error: Exception) -> Problem:
    """The problem that an exception of a view is. Faults of the portal itself are logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotAsDocumented):
        return not_as_documented(error)
    if isinstance(error, HttpError):
        return Problem(str(error))
    if isinstance(error, RawPostDataException):  # a form with files, which was read as such
        return Problem(_("Send a JSON object."))
    if isinstance(error, PermissionDenied):
        return Forbidden(_("The owner of this key lacks the right to do this."), code="missing_right")
    if isinstance(error, (OperationalError, InterfaceError)):
        logger.error("the management API cannot use the database: %s", error)
        return Away(_("The portal's database cannot be used now. Try again in a few seconds."))
    if isinstance(error, IntegrityError):  # two at a time: the form has seen neither row
        logger.warning("%s %s met another change: %s", request.method, request.path, type(error).__name__)
        return Conflict(_("Somebody else has changed the same in this moment. Read it again, then send this again."))
    if type(error).__module__.startswith("redis."):
        logger.error("the management API cannot use Redis: %s", error)
        return Away(_("The portal's Redis cannot be used now. Try again in a few seconds."), code="redis_unavailable")
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return Broken(_("The portal has failed. Its log says why."))


def handle(api: NinjaAPI) -> None:
    """Make an API answer in this form, whatever goes wrong."""

    def say(request: HttpRequest, error: Any) -> HttpResponse:
        return answer(of_exception(request, error))

    for kind in (Exception, Problem, NotAsDocumented, HttpError):
        api.add_exception_handler(kind, say)
