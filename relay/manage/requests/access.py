"""Who asks: the staff key of a request, and what it may do now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django_ratelimit.core import get_usage, is_ratelimited
from ninja.security import HttpBearer

from accounts.models import AuditEvent, StaffKey
from accounts.models.staff_key import PREFIX, digest_of
from accounts.rights import may_act_as_staff
from relay.manage.requests.problems import Forbidden, Problem, TooManyWrongKeys, Unauthorized

_WRONG_KEYS: Final = "30/5m"  # of one address; a right key is let in all the same
_LONGEST: Final = 200  # characters of a key
_SCHEME: Final = "bearer "


def key_in(request: HttpRequest) -> str:
    """The key in the header `Authorization`, with or without the word Bearer. Cookies are no key."""
    sent = request.headers.get("Authorization", "").strip()
    return sent[len(_SCHEME) :].strip() if sent.lower().startswith(_SCHEME) else sent


def authenticate(request: HttpRequest, secret: str) -> StaffKey:
    """Return the key that a secret is, and make its owner the request's user. Raises Problem.

    Its owner is read anew: a key ends with the rights of staff that its owner had.
    """
    key = None
    if secret.startswith(PREFIX) and len(secret) <= _LONGEST:
        key = StaffKey.objects.select_related("user").filter(digest=digest_of(secret)).first()
    if key is None:
        raise _wrong_key(request, bool(secret))
    if key.state() != "active":
        raise Unauthorized(_("This key is %(state)s. Make a new one.") % {"state": _(key.state())}, code="key_ended")
    if not may_act_as_staff(key.user):
        raise Unauthorized(
            _("The owner of this key is not staff now, or lacks the second factor that is required."), code="key_ended"
        )
    key.note_use(request.META.get("REMOTE_ADDR") or None)
    key.user.acts_by = key  # so that the audit log names it
    request.user = key.user
    request.staff_key = key  # type: ignore[attr-defined]
    return key


def _wrong_key(request: HttpRequest, sent: bool) -> Problem:
    """Count a wrong key of an address, and say that it is none."""
    if not sent:
        return Unauthorized(
            _(
                "Send a staff key as “Authorization: Bearer sk-staff-…”. Apps that call models use /v1 and a token "
                "instead."
            ),
            code="missing_key",
        )
    counted = get_usage(request, group="staff-key:ip", key="ip", rate=_WRONG_KEYS, increment=True)
    if counted is not None and counted["should_limit"]:
        # One entry in a while: a stranger must not be able to fill the audit log.
        if not is_ratelimited(request, group="staff-key:told", key="ip", rate="1/5m", increment=True):
            AuditEvent.write("staff-key.limited", None, None, request.META.get("REMOTE_ADDR"))
        return TooManyWrongKeys(_("Too many wrong keys came from this address. Try again in a few minutes."))
    return Unauthorized(_("This is no staff key. Staff make them in the administration, under Staff keys."))


class StaffKeyAuth(HttpBearer):
    """The authentication of all routes."""

    def __call__(self, request: HttpRequest) -> Any:
        return authenticate(request, key_in(request))

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        return authenticate(request, token)


def key_of(request: HttpRequest) -> StaffKey:
    found: StaffKey = request.staff_key  # type: ignore[attr-defined]
    return found


def need_scope(request: HttpRequest, area: str, write: bool = False) -> None:
    """Raise Forbidden unless the key is for this."""
    if not key_of(request).allows(area, write):
        scope = f"{area}:{'write' if write else 'read'}"
        raise Forbidden(_("This key lacks the scope “%(scope)s”.") % {"scope": scope}, code="missing_scope")


def need(allowed: object, what: str = "") -> None:
    """Raise Forbidden unless the owner of the key may do something."""
    if not allowed:
        raise Forbidden(what or _("The owner of this key lacks the right to do this."), code="missing_right")


def known_parameters(request: HttpRequest, known: Iterable[str]) -> None:
    """Raise Problem for a parameter that there is not: a filter with a slip would select everything."""
    for name in request.GET:
        if name not in known:
            raise Problem(
                _("There is no parameter “%(name)s” here. There are: %(known)s.")
                % {"name": name[:60], "known": ", ".join(known)},
                {name[:60]: [_("There is no such parameter.")]},
                code="unknown_parameter",
            )
