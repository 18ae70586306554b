"""The user's stored files, batches, responses and conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from portal.pages.shared.scope import batches_of, conversations_of, files_of, responses_of, signed_in_user
from relay.storage import files
from relay.storage.batches import counts_of, error_summary, wait_of

_PAGE = 50
_BLOCK: Final = 64 * 1024  # bytes of a file that are read at once


@login_required
def file_list(request: HttpRequest) -> HttpResponse:
    """List files with their quota, the latest batches, and the number of stored responses and conversations."""
    user = signed_in_user(request)
    used, limits = files.used_bytes(user.pk), files.storage_limits()
    free = files.free_room(user.pk)
    left = max(0, free.least)  # which may be less than one's own room has left
    context = {
        "page": Paginator(files_of(user), _PAGE).get_page(request.GET.get("page")),
        "used": used,
        "room": used + left,
        "left": left,
        "narrow": "portal" if free.common < min(free.own, free.stored) else "user" if free.stored < free.own else "",
        "largest": min(limits.file, left),
        "share": min(100, round(100 * used / (used + left))) if used + left else 100,
        "batches": [
            (batch, *counts_of(batch), error_summary(batch), *wait_of(batch)) for batch in batches_of(user)[:10]
        ],
        "responses": responses_of(user).count(),
        "conversations": conversations_of(user).count(),
        "days": settings.CONFIG.response_keep_days,
        "here": "files",
    }
    return render(request, "portal/files.html", context)


@login_required
@require_POST
def file_download(request: HttpRequest, file_id: str) -> HttpResponseBase:
    """The bytes of a file. By POST, so that nobody reads them who only looks at the portal as its user."""
    upload = files_of(signed_in_user(request)).filter(file_id=file_id).first()
    if upload is None:
        raise Http404
    try:
        file = files.open_file(upload)
    except OSError:
        messages.error(request, _("“%(name)s” cannot be read at the moment.") % {"name": upload.filename})
        return redirect("my-files")
    response = StreamingHttpResponse(_blocks(file), content_type="application/octet-stream")
    response["Content-Disposition"] = content_disposition_header(True, upload.filename) or "attachment"
    response["Content-Length"] = str(upload.size)
    return response


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while block := await sync_to_async(file.read)(_BLOCK):
            yield block
    finally:
        await sync_to_async(file.close)()


@login_required
@require_POST
def file_delete(request: HttpRequest, file_id: str) -> HttpResponse:
    upload = files_of(signed_in_user(request)).filter(file_id=file_id).first()
    if upload is None:
        raise Http404
    files.remove(upload)
    messages.success(request, _("“%(name)s” was deleted.") % {"name": upload.filename})
    return redirect("my-files")


@login_required
@require_POST
def stored_delete(request: HttpRequest) -> HttpResponse:
    """Delete all stored responses and conversations of the user."""
    user = signed_in_user(request)
    gone = responses_of(user).count() + conversations_of(user).count()
    responses_of(user).delete()
    conversations_of(user).delete()
    messages.success(
        request,
        _(
            "%(n)d response(s) and conversation(s) were deleted here. What an upstream keeps, it deletes after its "
            "own time."
        )
        % {"n": gone},
    )
    return redirect("my-files")
