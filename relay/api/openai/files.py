"""/v1/files and /v1/uploads."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import counted_auth
from relay.api.request import caller_of, exchange_of, json_body, query_of
from relay.api.respond import json_response
from relay.endpoints.files import files
from relay.gateway.runtime import runtime

router = Router(auth=counted_auth)


@router.post("/files", url_name="files")
async def create_file(request: HttpRequest) -> HttpResponse:
    """Store a file (form fields `file`, `purpose`, `expires_after[…]`)."""
    return json_response(await files.create_file(exchange_of(request), caller_of(request), await runtime()))


@router.get("/files", url_name="files")
async def list_files(request: HttpRequest) -> HttpResponse:
    """The files of the token's user, newest first unless told otherwise."""
    return json_response(await files.list_files(caller_of(request), query_of(request)))


@router.get("/files/{file_id}", url_name="file")
async def retrieve_file(request: HttpRequest, file_id: str) -> HttpResponse:
    """What is known of a file."""
    return json_response(await files.retrieve_file(caller_of(request), file_id))


@router.get("/files/{file_id}/content", url_name="file-content")
async def retrieve_content(request: HttpRequest, file_id: str) -> HttpResponseBase:
    """Its bytes."""
    return await files.file_content(exchange_of(request), caller_of(request), file_id)


@router.delete("/files/{file_id}", url_name="file")
async def delete_file(request: HttpRequest, file_id: str) -> HttpResponse:
    """Delete it."""
    return json_response(await files.delete_file(caller_of(request), file_id))


@router.post("/uploads", url_name="uploads")
async def create_upload(request: HttpRequest) -> HttpResponse:
    """Announce a file that comes in parts."""
    return json_response(await files.begin_upload(caller_of(request), await json_body(request)))


@router.post("/uploads/{upload_id}/parts", url_name="upload-parts")
async def create_part(request: HttpRequest, upload_id: str) -> HttpResponse:
    """Store one part (form field `data`)."""
    return json_response(await files.add_part(exchange_of(request), caller_of(request), await runtime(), upload_id))


@router.post("/uploads/{upload_id}/complete", url_name="upload-complete")
async def complete_upload(request: HttpRequest, upload_id: str) -> HttpResponse:
    """Make one file of the parts."""
    return json_response(
        await files.complete_upload(caller_of(request), await runtime(), upload_id, await json_body(request))
    )


@router.post("/uploads/{upload_id}/cancel", url_name="upload-cancel")
async def cancel_upload(request: HttpRequest, upload_id: str) -> HttpResponse:
    """Give it up."""
    return json_response(await files.cancel_upload(caller_of(request), upload_id))
