"""/v1/files and /v1/uploads. Every function raises RelayUnavailable, and ObjectNotFound for objects of other users."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from portal.lib import clock
from portal.lib.json import Json, object_of, text_of
from portal.lib.texts import whole_number
from relay.endpoints.files.form_upload import ReceivedForm, discard, receive_form
from relay.errors import InvalidRequest, ObjectNotFound, StorageFull
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.replies import Download
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import Upload, UploadSession
from relay.models.upload import UploadPurpose, UploadState
from relay.storage import files, uploads

_OWN: Final = (UploadPurpose.BATCH_OUTPUT, UploadPurpose.MESSAGE_BATCH)  # of files that the portal writes
_PURPOSES: Final = tuple(purpose for purpose in UploadPurpose.values if purpose not in _OWN)
_MAX_FILES: Final = 10_000
_EXPIRY_RANGE: Final = (3600, 2_592_000)  # seconds, of expires_after
_MAX_PARTS: Final = 1000
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}", re.I)


def _file_not_found(file_id: str) -> ObjectNotFound:
    return ObjectNotFound(
        f"There is no file “{file_id[:64]}” of your account. GET /v1/files lists yours.", param="file_id"
    )


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None


def file_object(upload: Upload) -> Json:
    found: Json = {
        "id": upload.file_id,
        "object": "file",
        "bytes": upload.size,
        "created_at": _seconds(upload.created_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": "processed",
        "status_details": None,
    }
    if upload.expires_at is not None:
        found["expires_at"] = _seconds(upload.expires_at)
    return found


def _purpose(value: str) -> str:
    if value not in _PURPOSES:
        raise InvalidRequest(
            f"The field “purpose” must be one of {', '.join(_PURPOSES)}.",
            code="invalid_value" if value else "missing_required_parameter",
            param="purpose",
        )
    return value


def expiry_seconds(anchor: object, seconds: object, param: str = "expires_after") -> int | None:
    """The seconds that `expires_after` asks for, None when it is not given. Raises InvalidRequest."""
    if anchor in (None, "") and seconds in (None, ""):
        return None
    if anchor != "created_at":
        raise InvalidRequest(f"The field “{param}[anchor]” must be created_at.", param=param)
    found = whole_number(seconds, *_EXPIRY_RANGE)
    if found is None:
        raise InvalidRequest(
            f"The field “{param}[seconds]” must be between {_EXPIRY_RANGE[0]} (an hour) and {_EXPIRY_RANGE[1]} (30 "
            "days).",
            param=param,
        )
    return found


def content_type_of(declared: str, filename: str) -> str:
    return declared or mimetypes.guess_type(filename, strict=False)[0] or "application/octet-stream"


# -- files -----------------------------------------------------------------------------------------------------------


async def create_file(exchange: Exchange, caller: Caller, run: Runtime) -> Json:
    """Store a file. Raises InvalidRequest, RequestTooLarge, StorageFull."""
    received = await receive_form(exchange, run, "file", caller.user_id)
    try:
        fields = received.fields
        purpose = _purpose(fields.get("purpose", ""))
        seconds = expiry_seconds(fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]"))
        name = files.clean_name(received.filename)
        expires = clock.now() + timedelta(seconds=seconds) if seconds else None
        kind = content_type_of(
            "" if received.content_type == "application/octet-stream" else received.content_type, name
        )
        upload = await snapshot_cache.in_file_thread(
            received.sink.finish, UploadState.STORED, name, purpose, kind, expires
        )
        return file_object(upload)
    finally:
        await discard(run, received.sink)


def _list(user_id: int, query: Mapping[str, str]) -> Json:
    order, after, purpose = query.get("order", "desc"), query.get("after", ""), query.get("purpose", "")
    limit = whole_number(query.get("limit", _MAX_FILES), 1, _MAX_FILES)
    if order not in {"asc", "desc"}:
        raise InvalidRequest("The parameter “order” must be asc or desc.", param="order")
    if limit is None:
        raise InvalidRequest(f"The parameter “limit” must be between 1 and {_MAX_FILES}.", param="limit")
    found = files.list_uploads(user_id, limit + 1, after, purpose, order == "asc")
    if found is None:
        raise InvalidRequest(f"The cursor “{after[:64]}” is no id of a file.", param="after")
    shown = [file_object(upload) for upload in found[:limit]]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > len(shown),
    }


async def list_files(caller: Caller, query: Mapping[str, str]) -> Json:
    return await snapshot_cache.in_thread(_list, caller.user_id, query)


async def _find(caller: Caller, file_id: str) -> Upload:
    upload = await snapshot_cache.in_thread(files.find_upload, caller.user_id, file_id)
    if upload is None:
        raise _file_not_found(file_id)
    return upload


async def retrieve_file(caller: Caller, file_id: str) -> Json:
    return file_object(await _find(caller, file_id))


async def file_content(exchange: Exchange, caller: Caller, file_id: str) -> Download:
    """The bytes of a file, as an attachment."""
    upload = await _find(caller, file_id)
    try:
        file = await snapshot_cache.in_file_thread(files.open_file, upload)
    except FileNotFoundError:
        raise _file_not_found(file_id) from None
    except OSError as error:
        raise StorageFull("The portal's disk does not give the file. Tell the portal's administrator.") from error
    return Download(
        exchange, file.read, upload.size, upload.filename, upload.content_type or "application/octet-stream", file.close
    )


async def delete_file(caller: Caller, file_id: str) -> Json:
    upload = await _find(caller, file_id)
    await snapshot_cache.in_file_thread(files.remove, upload)
    return {"id": file_id, "object": "file", "deleted": True}


# -- uploads in parts ------------------------------------------------------------------------------------------------


def upload_object(session: UploadSession, file: Upload | None = None) -> Json:
    return {
        "id": session.upload_id,
        "object": "upload",
        "bytes": session.size,
        "created_at": _seconds(session.created_at),
        "filename": session.filename,
        "purpose": session.purpose,
        "status": session.status,
        "expires_at": _seconds(session.expires_at),
        **({"file": file_object(file)} if file is not None else {}),
    }


async def begin_upload(caller: Caller, body: Json) -> Json:
    """Begin an upload in parts. Raises InvalidRequest, RequestTooLarge."""
    size, filename, kind = body.get("bytes"), text_of(body, "filename").strip(), text_of(body, "mime_type").strip()
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidRequest("The field “bytes” must be the size of the whole file.", param="bytes")
    if not filename:
        raise InvalidRequest("The field “filename” is missing.", code="missing_required_parameter", param="filename")
    if not _TYPE.fullmatch(kind):
        raise InvalidRequest(
            "The field “mime_type” must be the type of the file, such as application/pdf.", param="mime_type"
        )
    purpose = _purpose(text_of(body, "purpose"))
    after = object_of(body, "expires_after")
    seconds = expiry_seconds(after.get("anchor"), after.get("seconds"))
    files.check_file_size(size)
    session = await snapshot_cache.in_thread(
        uploads.create_session, caller.user_id, size, filename, purpose, kind, seconds
    )
    return upload_object(session)


def _session(user_id: int, upload_id: str) -> UploadSession:
    session = uploads.find_session(user_id, upload_id)
    if session is None:
        raise ObjectNotFound(f"There is no upload “{upload_id[:64]}” of your account.", param="upload_id")
    return session


def _not_pending(session: UploadSession) -> InvalidRequest:
    message = f"This upload is {session.status}. Begin a new one with POST /v1/uploads."
    return InvalidRequest(message, code="upload_not_pending", param="upload_id")


def _pending(user_id: int, upload_id: str) -> UploadSession:
    session = _session(user_id, upload_id)
    if session.status != UploadSession.Status.PENDING:
        raise _not_pending(session)
    return session


async def add_part(exchange: Exchange, caller: Caller, run: Runtime, upload_id: str) -> Json:
    """Store one part of an upload. Raises InvalidRequest, RequestTooLarge, StorageFull."""
    session = await snapshot_cache.in_thread(_pending, caller.user_id, upload_id)
    received = await receive_form(exchange, run, "data", caller.user_id, session)
    try:
        part = await snapshot_cache.in_file_thread(_store_part, session, received)
        return {
            "id": _part_id(part),
            "object": "upload.part",
            "created_at": _seconds(part.created_at),
            "upload_id": upload_id,
        }
    finally:
        await discard(run, received.sink)


def _part_id(part: Upload) -> str:
    return f"part_{part.file_id.removeprefix('file-')}"


def _store_part(session: UploadSession, received: ReceivedForm) -> Upload:
    _pending(session.user_id, session.upload_id)  # it may have been cancelled meanwhile
    size, count = uploads.received_parts(session)
    total = size + received.sink.size
    if total > session.size:
        message = f"The parts would have {total:,} bytes together, and {session.size:,} were announced."
        raise InvalidRequest(message, code="upload_too_long", param="data")
    if count > _MAX_PARTS:
        raise InvalidRequest(
            f"An upload may have at most {_MAX_PARTS} parts. Send larger ones.", code="too_many_parts", param="data"
        )
    part = uploads.store_part(session, received.sink)
    if part is None:
        raise _not_pending(_session(session.user_id, session.upload_id))
    return part


def _complete(caller: Caller, run: Runtime, upload_id: str, part_ids: list[str], md5: str) -> Json:
    session = _pending(caller.user_id, upload_id)
    known = {_part_id(part): part for part in uploads.stored_parts(session)}
    missing = next((part_id for part_id in part_ids if part_id not in known), None)
    if missing is not None:
        raise InvalidRequest(f"There is no part “{missing[:64]}” in this upload.", param="part_ids")
    if len(set(part_ids)) != len(part_ids):
        raise InvalidRequest("A part is named twice.", param="part_ids")
    outcome = uploads.join_parts(session, [known[part_id] for part_id in part_ids], md5, run.reservations.owner)
    if outcome is None:
        raise _not_pending(_session(caller.user_id, upload_id))
    if isinstance(outcome, str):
        raise InvalidRequest(outcome, code="upload_mismatch")
    return upload_object(session, outcome)


async def complete_upload(caller: Caller, run: Runtime, upload_id: str, body: Json) -> Json:
    """Join the parts of an upload into a file. Raises InvalidRequest, StorageFull."""
    part_ids = body.get("part_ids")
    if not isinstance(part_ids, list) or not part_ids or not all(isinstance(part_id, str) for part_id in part_ids):
        raise InvalidRequest("The field “part_ids” must be the list of the parts' ids, in order.", param="part_ids")
    return await snapshot_cache.in_file_thread(
        _complete, caller, run, upload_id, [str(part_id) for part_id in part_ids], text_of(body, "md5")
    )


def _cancel(user_id: int, upload_id: str) -> Json:
    session = _pending(user_id, upload_id)
    if not uploads.cancel_session(session):  # another request has ended it meanwhile
        raise _not_pending(_session(user_id, upload_id))
    return upload_object(session)


async def cancel_upload(caller: Caller, upload_id: str) -> Json:
    """Cancel an upload and delete its parts. Raises InvalidRequest."""
    return await snapshot_cache.in_file_thread(_cancel, caller.user_id, upload_id)
