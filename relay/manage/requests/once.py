"""Requests that are sent again do their work once: what was done and its answer are one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.models import KeptAnswer, StaffKey
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from relay.manage.requests.access import key_of
from relay.manage.requests.problems import Conflict, Problem
from relay.models.fields import box

KEEP: Final = timedelta(days=1)
_LONGEST: Final = 200  # characters of a key
_PRUNED: Final = 200  # rows at a time
Work = Callable[[], tuple[int, Any]]


def answered(status: int, body: Any) -> HttpResponse:
    """An answer as JSON. No cache keeps one: it may show a secret."""
    return _answer(status, json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str))


def _answer(status: int, text: str) -> HttpResponse:
    response = HttpResponse(text, status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


def do(request: HttpRequest, work: Work) -> HttpResponse:
    """Do the work of a request in one transaction, and answer with the status and the body that it returns.

    With an `Idempotency-Key` the answer is kept in the same transaction: after a crash, either both are there or
    neither is. The same request gets it again; another one with the same key is refused. What fails leaves nothing.
    """
    sent = request.headers.get("Idempotency-Key", "")
    if not sent:
        with transaction.atomic():
            status, body = work()
        return answered(status, body)
    if len(sent) > _LONGEST or not sent.isprintable():
        raise Problem(
            _("An Idempotency-Key has at most %(most)d printable characters.") % {"most": _LONGEST},
            code="bad_idempotency_key",
        )
    owner, sealed = key_of(request), box(StaffKey.PURPOSE)
    named = hashlib.sha256(sent.encode()).hexdigest()
    with transaction.atomic():
        kept, made = _claim(owner, named, _digest(request))
        if not made:
            try:
                rights, _line, text = sealed.open(kept.sealed).partition("\n")
            except Undecryptable:
                raise Conflict(_("This was done before; its answer cannot be decrypted any more.")) from None
            if rights != _rights(request):
                said = _(
                    "This was done before. The rights of the key's owner have changed since, so that its answer is not "
                    "given again: read the row instead."
                )
                raise Conflict(said, code="rights_changed")
            response = _answer(kept.status, text)
            response["Idempotent-Replayed"] = "true"
            return response
        status, body = work()
        response = answered(status, body)
        kept.status = status
        kept.sealed = sealed.seal(f"{_rights(request)}\n{response.content.decode()}")
        kept.save(update_fields=["status", "sealed"])
    return response


def _claim(owner: StaffKey, named: str, digest: str) -> tuple[KeptAnswer, bool]:
    """Return the row of an idempotency key, and whether this is the first request with it.

    Another one that is running with it is waited for: databases let only one have the row.
    """
    rows = KeptAnswer.objects.filter(staff_key=owner)
    since = clock.now() - KEEP
    rows.filter(key=named, created_at__lt=since).delete()  # however many others wait to be deleted
    outdated = KeptAnswer.objects.filter(created_at__lt=since)
    if old := list(outdated.values_list("pk", flat=True)[:_PRUNED]):
        KeptAnswer.objects.filter(pk__in=old).delete()
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(staff_key=owner, key=named, request=digest), True
    except IntegrityError:
        there = rows.select_for_update().filter(key=named).first()
        if there is None:  # outdated, and deleted in this moment
            raise _running() from None
        found = there
    except OperationalError as error:
        if "lock" in str(error).lower():
            raise _running() from error
        raise
    if found.request != digest:
        raise Conflict(
            _("This Idempotency-Key was used for another request. Use a new one."), code="idempotency_conflict"
        )
    return found, False


def _running() -> Conflict:
    return Conflict(
        _("A request with this Idempotency-Key is running. Send this one again in a moment."),
        code="idempotency_in_progress",
    )


def _rights(request: HttpRequest) -> str:
    """A digest of what the owner of the key may do now: an answer is not given again to one who may do less."""
    user = request.user
    rights = ["everything"] if user.is_superuser else sorted(user.get_all_permissions())
    return hashlib.sha256("\n".join(rights).encode()).hexdigest()


def _digest(request: HttpRequest) -> str:
    """A digest of what a request asks for."""
    asked = f"{request.method} {request.get_full_path()}\n".encode() + request.body
    return hashlib.sha256(asked).hexdigest()
