"""Files: stored whole or not at all, within the caps, seen by their user alone, put into requests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.conftest import People, Portal, ask
from tests.support.server import ROOT, Server, serving
from tests.support.upstream import hello

MIB = 1 << 20


@pytest.fixture
def sdk(server: Server, live: Portal) -> Iterator[OpenAI]:
    client = OpenAI(base_url=server.url + "/v1", api_key=live.token(), max_retries=0, timeout=30)
    server.catch_up()
    yield client
    client.close()


@pytest.fixture(scope="module")
def small(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A portal of its own database and with little room: 1 MiB a file, 3 MiB in all, 2 MiB a user."""
    folder = tmp_path_factory.mktemp("small")
    env = {
        "AIRELAYS_DATA_DIR": str(folder / "data"), "AIRELAYS_MAX_UPLOAD_BYTES": str(MIB), "AIRELAYS_MAX_TOTAL_UPLOAD_BYTES": str(3 * MIB),
        "AIRELAYS_MAX_USER_UPLOAD_BYTES": str(2 * MIB),
        "AIRELAYS_DATABASE_URL": "", "AIRELAYS_FEED_POLL_SECONDS": "0.05",
    }  # fmt: skip
    manage(env, "migrate", "--no-input")
    with serving(folder / "log", env=env) as running:
        running.env = env  # type: ignore[attr-defined]
        yield running
    assert "Traceback" not in (folder / "log").read_text()


def manage(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env={**__import__("os").environ, **env}, capture_output=True, text=True, timeout=60)


def token_of(small: Any) -> str:
    code = (
        "import secrets; from accounts.models import User; from relay.tokens.lifecycle import create_token; from relay.billing import ledger; "
        "u = User.objects.create_user('u' + secrets.token_hex(4)); print(create_token(u, 't', actor=None)[1])"
    )
    return manage(small.env, "shell", "-v", "0", "-c", code).stdout.strip().splitlines()[-1]


def upload(server: Server, token: str, content: bytes, name: str = "a.bin", purpose: str = "user_data", **data: str) -> httpx.Response:
    server.catch_up()
    return httpx.post(
        f"{server.url}/v1/files", headers={"authorization": f"Bearer {token}"}, files={"file": (name, content)}, data={"purpose": purpose, **data}, timeout=30, trust_env=False
    )


# -- the life of a file ----------------------------------------------------------------------------------------------


def test_stored_listed_read_and_deleted(sdk: OpenAI, server: Server) -> None:
    made = sdk.files.create(file=("données é.jsonl", b'{"a":1}\n'), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status, made.object) == (8, "données é.jsonl", "batch", "processed", "file")
    assert sdk.files.retrieve(made.id).bytes == 8
    answer = httpx.get(f"{server.url}/v1/files/{made.id}/content", headers={"authorization": f"Bearer {sdk.api_key}"}, trust_env=False)
    assert answer.content == b'{"a":1}\n' and answer.headers["x-content-type-options"] == "nosniff" and answer.headers["content-length"] == "8"
    assert answer.headers["content-disposition"].startswith("attachment") and "donn%C3%A9es" in answer.headers["content-disposition"]
    assert sdk.files.delete(made.id).deleted
    for call in (lambda: sdk.files.retrieve(made.id), lambda: sdk.files.content(made.id), lambda: sdk.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            call()


@pytest.mark.parametrize("purpose", ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"])
def test_every_purpose(sdk: OpenAI, purpose: Any) -> None:
    assert sdk.files.create(file=io.BytesIO(b"abc"), purpose=purpose).purpose == purpose


def test_html_is_never_shown_as_a_page(sdk: OpenAI, server: Server) -> None:
    made = sdk.files.create(file=("a.html", b"<script>alert(1)</script>", "text/html"), purpose="user_data")
    answer = httpx.get(f"{server.url}/v1/files/{made.id}/content", headers={"authorization": f"Bearer {sdk.api_key}"}, trust_env=False)
    assert (
        answer.headers["content-type"] == "text/html" and answer.headers["content-disposition"].startswith("attachment") and answer.headers["x-content-type-options"] == "nosniff"
    )


def test_pages_of_a_list(sdk: OpenAI) -> None:
    ids = [sdk.files.create(file=(f"{number}", b"x"), purpose="user_data" if number % 2 else "vision").id for number in range(5)]
    first = sdk.files.list(limit=2)
    assert [entry.id for entry in first.data] == ids[:2:-1] and first.has_more is True
    assert [entry.id for entry in sdk.files.list(limit=2)] == ids[::-1]  # the SDK follows the cursor
    assert [entry.id for entry in sdk.files.list(order="asc", after=ids[1])] == ids[2:]
    assert [entry.id for entry in sdk.files.list(purpose="vision")] == ids[::-2]
    sdk.files.delete(ids[2])
    assert [entry.id for entry in sdk.files.list(after=ids[2])] == [ids[1], ids[0]]  # a deleted file is still a place in the list
    for query in ({"limit": 0}, {"limit": 10001}, {"order": "x"}, {"after": "nonsense"}):
        with pytest.raises(openai.BadRequestError):
            sdk.files.list(**query)


def test_a_file_expires(sdk: OpenAI, live: Portal) -> None:
    from portal.lib import clock
    from relay.models import Upload
    from relay.storage import files, files_check

    made = sdk.files.create(file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600})
    row = Upload.objects.get(file_id=made.id)
    assert row.expires_at is not None and abs(row.expires_at - clock.now() - timedelta(hours=1)) < timedelta(minutes=1)
    Upload.objects.filter(pk=row.pk).update(expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(made.id)
    files_check.sweep()
    assert not files.path_of(row.storage_name).exists() and not Upload.objects.filter(pk=row.pk).exists()
    with pytest.raises(openai.BadRequestError):
        sdk.files.create(file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 10})


def test_nobody_else_sees_a_file(sdk: OpenAI, live: Portal, server: Server) -> None:
    made = sdk.files.create(file=("a", b"secret"), purpose="user_data")
    for stranger in (live.token(), live.token(live.user(is_staff=True, is_superuser=True))):
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            assert server.request(method, stranger, f"/v1/files/{made.id}{path}").status_code == 404
        assert made.id not in server.get(stranger, "/v1/files").text
    assert sdk.files.content(made.id).read() == b"secret"


# -- what is refused -------------------------------------------------------------------------------------------------


_PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx'
_FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"x", "application/json", "invalid_multipart"),
        (b"", "multipart/form-data", "invalid_multipart"),
        (_PURPOSE + b"user_data\r\n--b--\r\n", _FORM, "missing_required_parameter"),
        (_FILE + b"\r\n--b--\r\n", _FORM, "missing_required_parameter"),
        (_FILE, _FORM, "invalid_multipart"),
        (_PURPOSE + b"world peace\r\n" + _FILE + b"\r\n--b--\r\n", _FORM, "invalid_value"),
        (_PURPOSE + b"x" * 70_000 + b"\r\n--b--\r\n", _FORM, "invalid_multipart"),
        (_FILE + b"\r\n" + _FILE + b"\r\n--b--\r\n", _FORM, "invalid_value"),
    ],
)
def test_broken_uploads_leave_nothing(live: Portal, server: Server, content: bytes, kind: str, code: str) -> None:
    from relay.models import Upload

    before = Upload.objects.count()
    answer = server.post(live.token(), content, path="/v1/files", headers={"content-type": kind})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code
    assert Upload.objects.count() == before


def test_the_caps_hold(small: Server) -> None:
    token = token_of(small)
    assert upload(small, token, b"x" * MIB).status_code == 200  # exactly as large as a file may be
    refused = upload(small, token, b"x" * (MIB + 1))
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "file_too_large"
    assert upload(small, token, b"x" * MIB).status_code == 200
    full = upload(small, token, b"x" * 100_000)
    assert full.status_code == 413 and full.json()["error"]["code"] == "storage_quota_exceeded" and "Your files" in full.json()["error"]["message"]
    other = token_of(small)
    assert upload(small, other, b"x" * (MIB - 5000)).status_code == 200
    full = upload(small, other, b"x" * 100_000)
    assert full.status_code == 413 and "portal's storage" in full.json()["error"]["message"]
    for owner in (token, other):
        for file in small.get(owner, "/v1/files").json()["data"]:
            assert small.request("DELETE", owner, f"/v1/files/{file['id']}").status_code == 200
    assert upload(small, other, b"x" * MIB).status_code == 200
    verified = manage(small.env, "uploads", "verify", "--contents", "--json")  # type: ignore[attr-defined]
    assert verified.returncode == 0 and json.loads(verified.stdout)["files"] == 1
    for file in small.get(other, "/v1/files").json()["data"]:
        small.request("DELETE", other, f"/v1/files/{file['id']}")


def test_what_is_too_large_is_refused_before_it_is_read(small: Server) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token_of(small)}\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 999999999\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_upload_of_unknown_length_is_cut_off_at_the_cap(small: Server) -> None:
    token = token_of(small)

    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(400):
            yield b"x" * 65536
        yield b"\r\n--b--\r\n"

    try:
        answer = httpx.post(
            f"{small.url}/v1/files", content=pieces(), headers={"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=b"}, timeout=30, trust_env=False
        )
        assert answer.status_code == 413
    except httpx.WriteError:  # the portal has hung up while this side was still sending
        pass
    until = time.monotonic() + 5
    while json.loads(manage(small.env, "uploads", "verify", "--json").stdout)["files"] and time.monotonic() < until:  # type: ignore[attr-defined]
        time.sleep(0.1)
    assert small.get(token, "/v1/files").json()["data"] == []


def test_uploads_at_once_do_not_exceed_a_cap_together(small: Server) -> None:
    token = token_of(small)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(upload(small, token, b"x" * 700_000).status_code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(found)) == [200, 413] and found.count(200) == 2
    for file in small.get(token, "/v1/files").json()["data"]:
        small.request("DELETE", token, f"/v1/files/{file['id']}")


def test_a_chunked_form_is_stored(live: Portal, server: Server) -> None:
    """As Node's SDK sends a stream: without a content-length."""
    content = b"0123456789" * 200_000
    token = live.token()

    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="up.bin"\r\nContent-Type: application/x-thing\r\n\r\n'
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]
        yield b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b--\r\n'

    server.catch_up()
    answer = httpx.post(
        f"{server.url}/v1/files", content=pieces(), headers={"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=b"}, timeout=30, trust_env=False
    )
    assert answer.status_code == 200 and answer.json()["bytes"] == len(content)
    read = server.get(token, f"/v1/files/{answer.json()['id']}/content")
    assert hashlib.sha256(read.content).digest() == hashlib.sha256(content).digest() and read.headers["content-type"] == "application/x-thing"


# -- crashes ---------------------------------------------------------------------------------------------------------


def _half(port: int, token: str, size: int = 300_000) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {size * 2}\r\n\r\n"
    connection.sendall(head.encode() + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * size)
    return connection


def _wait(condition: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(live: Portal, server: Server) -> None:
    from relay.models import Upload

    token = live.token()
    server.catch_up()
    connection = _half(server.port, token, 1_500_000)
    _wait(lambda: Upload.objects.filter(state="receiving").exists())
    row = Upload.objects.filter(state="receiving").get()
    connection.close()
    _wait(lambda: not Upload.objects.filter(pk=row.pk).exists())


def test_a_kill_in_the_middle_leaves_nothing(django_db_setup: None, tmp_path: Path) -> None:
    env = {"AIRELAYS_DATA_DIR": str(tmp_path / "data"), "AIRELAYS_DATABASE_URL": "", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    manage(env, "migrate", "--no-input")
    with serving(tmp_path / "log", env=env) as running:
        running.env = env  # type: ignore[attr-defined]
        token = token_of(running)
        kept = upload(running, token, b"kept" * 1000).json()["id"]
        connection = _half(running.port, token, 2_500_000)
        _wait(lambda: list((tmp_path / "data" / "uploads" / "tmp").glob("*")))
        running.kill()
        connection.close()
    verified = manage(env, "uploads", "verify", "--json")
    assert verified.returncode == 1 and "gone" in verified.stdout
    with serving(tmp_path / "log2", env=env) as again:
        _wait(lambda: manage(env, "uploads", "verify", "--contents").returncode == 0, 20)
        assert [file["id"] for file in again.get(token, "/v1/files").json()["data"]] == [kept]
        assert again.get(token, f"/v1/files/{kept}/content").content == b"kept" * 1000
    assert list((tmp_path / "data" / "uploads" / "tmp").glob("*")) == []


def test_a_disk_that_is_full_stores_nothing(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.errors import StorageFull
    from relay.models import Upload
    from relay.storage import files

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    sink = files.Sink(files.begin(people.owner.pk, 10, "me"))
    monkeypatch.setattr("os.fsync", full)
    try:
        sink.write(b"0123456789")
        with pytest.raises(StorageFull):
            sink.keep("stored", "a", "user_data", "text/plain")
    finally:
        sink.close()
    assert Upload.objects.count() == 0 and not files.partial_path(sink.upload.storage_name).exists() and not files.path_of(sink.upload.storage_name).exists()


def test_differences_between_disk_and_records_are_found_and_mended(people: People) -> None:
    from relay.models import Upload
    from relay.storage import files, files_check

    def make(content: bytes) -> Upload:
        sink = files.Sink(files.begin(people.owner.pk, len(content), "me"))
        sink.write(content)
        return sink.keep("stored", "a", "user_data", "text/plain")

    good, changed, lost, short = make(b"good"), make(b"same"), make(b"lost"), make(b"short")
    files.path_of(changed.storage_name).write_bytes(b"emas")
    files.path_of(lost.storage_name).unlink()
    files.path_of(short.storage_name).write_bytes(b"sh")
    stray = files.path_of("zz" + "0" * 30)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"?")
    found = {
        entry.name: entry.what
        for entry in files_check.verify(contents=True)[0]
        if entry.name in {good.storage_name, changed.storage_name, lost.storage_name, short.storage_name, stray.name}
    }
    assert set(found) == {changed.storage_name, lost.storage_name, short.storage_name, stray.name}
    assert "not on the disk" in found[lost.storage_name] and "not recorded" in found[stray.name]
    files_check.repair()
    assert not stray.exists() and set(Upload.objects.values_list("pk", flat=True)) == {good.pk, changed.pk}
    files.remove(changed)
    files.remove(good)


def test_the_files_of_a_user_go_with_the_user(people: People, django_capture_on_commit_callbacks: Any) -> None:
    from relay.models import Upload
    from relay.storage import files

    sink = files.Sink(files.begin(people.other.pk, 3, "me"))
    sink.write(b"abc")
    path = files.path_of(sink.keep("stored", "a", "user_data", "text/plain").storage_name)
    assert path.exists()
    with django_capture_on_commit_callbacks(execute=True):
        Upload.objects.filter(user=people.other).delete()  # as Django does when it deletes what hangs on a user
    assert not path.exists()


# -- in parts --------------------------------------------------------------------------------------------------------


def test_a_file_that_comes_in_parts(sdk: OpenAI, live: Portal) -> None:
    from relay.models import Upload
    from relay.storage import files

    made = sdk.uploads.create(bytes=10, filename="b.txt", mime_type="text/plain", purpose="user_data")
    assert made.status == "pending" and made.expires_at > time.time() + 3000
    one, two = sdk.uploads.parts.create(made.id, data=b"56789"), sdk.uploads.parts.create(made.id, data=b"01234")
    assert sdk.files.list().data == []  # parts are nobody's files
    parts = [files.path_of(name) for name in Upload.objects.filter(session__upload_id=made.id).values_list("storage_name", flat=True)]
    assert len(parts) == 2 and all(path.exists() for path in parts)
    done = sdk.uploads.complete(made.id, part_ids=[two.id, one.id], md5=hashlib.md5(b"0123456789").hexdigest())
    assert done.status == "completed" and done.file is not None and sdk.files.content(done.file.id).read() == b"0123456789"
    assert not Upload.objects.filter(session__upload_id=made.id).exists() and not any(path.exists() for path in parts)
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.parts.create(made.id, data=b"x")
    assert sdk.uploads.upload_file_chunked(file=b"x" * 3000, filename="c.txt", bytes=3000, mime_type="text/plain", purpose="user_data", part_size=1000).status == "completed"


def test_parts_that_do_not_make_up_the_file(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Upload

    made = sdk.uploads.create(bytes=6, filename="b.txt", mime_type="text/plain", purpose="user_data")
    part = sdk.uploads.parts.create(made.id, data=b"012")
    body: Any
    for body in ({"part_ids": [part.id]}, {"part_ids": ["part_x"]}, {"part_ids": [part.id, part.id]}, {"part_ids": []}, {}):
        assert server.post(sdk.api_key, body, path=f"/v1/uploads/{made.id}/complete").status_code == 400
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.parts.create(made.id, data=b"3456")
    rest = sdk.uploads.parts.create(made.id, data=b"345")
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.complete(made.id, part_ids=[part.id, rest.id], md5="0" * 32)
    assert server.post(live.token(), {"part_ids": [part.id]}, path=f"/v1/uploads/{made.id}/complete").status_code == 404
    assert sdk.uploads.cancel(made.id).status == "cancelled"
    assert not Upload.objects.filter(session__upload_id=made.id).exists()
    with pytest.raises(openai.BadRequestError):
        sdk.uploads.complete(made.id, part_ids=[part.id])


def test_an_upload_that_is_forgotten_expires(sdk: OpenAI) -> None:
    from portal.lib import clock
    from relay.models import Upload, UploadSession
    from relay.storage import files_check

    made = sdk.uploads.create(bytes=6, filename="b.txt", mime_type="text/plain", purpose="user_data")
    sdk.uploads.parts.create(made.id, data=b"012")
    UploadSession.objects.filter(upload_id=made.id).update(expires_at=clock.now())
    files_check.sweep()
    assert not Upload.objects.filter(session__upload_id=made.id).exists()
    assert UploadSession.objects.get(upload_id=made.id).status == "expired"


def test_a_name_that_no_header_can_carry(sdk: OpenAI, server: Server) -> None:
    made = sdk.uploads.create(bytes=1, filename="a\r\nx-evil: 1\u0000\u202e.txt", mime_type="text/plain", purpose="user_data")
    done = sdk.uploads.complete(made.id, part_ids=[sdk.uploads.parts.create(made.id, data=b"x").id])
    assert done.file is not None and done.file.filename == "ax-evil: 1.txt"
    answer = server.get(sdk.api_key, f"/v1/files/{done.file.id}/content")
    assert answer.status_code == 200 and "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/v1/files/%00", "/v1/responses/a%00b", "/v1/batches/%00", "/v1/conversations/%00", "/v1/files?after=file-%00", "/v1/files?purpose=%00", "/v1/files/" + "x" * 4000]
)
def test_ids_that_no_database_can_hold(sdk: OpenAI, server: Server, path: str) -> None:
    assert server.get(sdk.api_key, path).status_code in {200, 400, 404}


# -- in requests -----------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sent_parts(live: Portal, model: str) -> Any:
    body = live.upstream.last(model).json
    return body["messages"][-1]["content"]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_stored_files_are_put_in(sdk: OpenAI, live: Portal, server: Server, endpoint: str) -> None:
    model = live.model(hello, text_api="chat")
    pdf = sdk.files.create(file=("a.pdf", b"%PDF-1.4", "application/pdf"), purpose="user_data").id
    png = sdk.files.create(file=("a.png", PNG), purpose="vision").id
    txt = sdk.files.create(file=("a.txt", "Grüße".encode(), "text/plain"), purpose="user_data").id
    server.catch_up()
    if endpoint == "chat":
        parts = [{"type": "file", "file": {"file_id": pdf}}, {"type": "image_url", "image_url": {"file_id": png, "detail": "low"}}, {"type": "text", "file_id": txt}]
        answer = server.post(sdk.api_key, {"model": model, "messages": [{"role": "user", "content": parts}]})
    else:
        parts = [{"type": "input_file", "file_id": pdf}, {"type": "input_image", "file_id": png, "detail": "low"}, {"type": "input_text", "file_id": txt}]
        answer = server.post(sdk.api_key, {"model": model, "input": [{"role": "user", "content": parts}]}, path="/v1/responses")
    assert answer.status_code == 200, answer.text
    file, image, text = sent_parts(live, model)
    assert file == {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url("application/pdf", b"%PDF-1.4")}}
    assert image == {"type": "image_url", "image_url": {"url": data_url("image/png", PNG), "detail": "low"}}
    assert text["text"] == "Uploaded file “a.txt” (text/plain):\n\nGrüße"


def test_the_four_ways_to_give_a_file_to_responses(sdk: OpenAI, live: Portal, server: Server) -> None:
    asked: list[Any] = []

    async def script(call: Any) -> None:
        asked.append(call.json["input"][0]["content"][0])
        await call.reply(
            200, {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [], "tools": [], "metadata": {}, "parallel_tool_calls": True}
        )

    model, raw = live.model(script), base64.b64encode(b"hello").decode()
    stored = sdk.files.create(file=("s.txt", b"hello", "text/plain"), purpose="user_data").id
    server.catch_up()
    for part in (
        {"file_url": "https://files.example.org/a.pdf"}, {"file_data": f"data:text/plain;base64,{raw}", "filename": "x"},
        {"file_data": raw, "filename": "notes.txt"}, {"file_id": stored},
    ):  # fmt: skip
        answer = server.post(sdk.api_key, {"model": model, "input": [{"role": "user", "content": [{"type": "input_file", **part}]}]}, path="/v1/responses")
        assert answer.status_code == 200, answer.text
    assert asked[0] == {"type": "input_file", "file_url": "https://files.example.org/a.pdf"}
    assert asked[1]["file_data"] == asked[2]["file_data"] == asked[3]["file_data"] == f"data:text/plain;base64,{raw}"
    assert "file_id" not in asked[3] and asked[3]["filename"] == "s.txt"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_file", "file_id": "file-unknown"}, "file_id"),
        ({"type": "input_file", "file_data": "aGVsbG8="}, "filename"),
        ({"type": "input_file", "file_data": "aGVsbG8=", "filename": "a.zzzz"}, "filename"),
        ({"type": "input_file", "file_data": "not base64!", "filename": "a.txt"}, "file_data"),
        ({"type": "input_file", "file_data": "data:text/plain;base64,aa", "file_url": "https://x.example"}, "content[0]"),
        ({"type": "input_image", "file_id": "TEXT"}, "file_id"),
        ({"type": "input_text", "file_id": "LONG"}, "file_id"),
        ({"type": "input_text", "file_id": "PDF"}, "file_id"),
        ({"type": "input_file", "file_url": "https://x.example/a.pdf"}, "file_url"),
    ],
)
def test_what_cannot_be_done_with_a_file_is_said(sdk: OpenAI, live: Portal, server: Server, part: dict[str, Any], param: str) -> None:
    model = live.model(hello, text_api="chat")
    stored = {"TEXT": ("a.txt", b"hello", "text/plain"), "LONG": ("a.txt", b"x" * 1_000_001, "text/plain"), "PDF": ("a.pdf", b"%PDF", "application/pdf")}
    if part.get("file_id") in stored:
        part = {**part, "file_id": sdk.files.create(file=stored[part["file_id"]], purpose="user_data").id}
    answer = server.post(sdk.api_key, {"model": model, "input": [{"role": "user", "content": [part]}]}, path="/v1/responses")
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"].endswith(param) and live.upstream.count(model) == 0


def test_somebody_elses_file_is_not_put_in(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    stored = sdk.files.create(file=("a.txt", b"secret", "text/plain"), purpose="user_data").id
    answer = server.post(live.token(), {"model": model, "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": stored}}]}]})
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "file_not_found"


def test_a_turn_that_is_gone_on_from_brings_its_files_along(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    stored = sdk.files.create(file=("a.txt", b"hello", "text/plain"), purpose="user_data").id
    server.catch_up()
    first = sdk.responses.create(model=model, input=[{"role": "user", "content": [{"type": "input_file", "file_id": stored}]}])
    assert next(iter(sdk.responses.input_items.list(first.id))).content[0].file_id == stored  # type: ignore[union-attr, index]
    sdk.responses.create(model=model, input="and?", previous_response_id=first.id)
    assert live.upstream.last(model).json["messages"][0]["content"][0]["file"]["file_data"] == data_url("text/plain", b"hello")
    sdk.files.delete(stored)
    with pytest.raises(openai.UnprocessableEntityError):
        sdk.responses.create(model=model, input="and?", previous_response_id=first.id)


# -- pages -----------------------------------------------------------------------------------------------------------


def stored_for(user: Any, name: str = "mine.txt") -> Any:
    from relay.storage import files

    sink = files.Sink(files.begin(user.pk, 3, "me"))
    sink.write(b"abc")
    return sink.keep("stored", name, "user_data", "text/plain")


def test_the_page_of_files_is_ones_own(people: People, client: Any) -> None:
    mine, theirs = stored_for(people.owner), stored_for(people.other, "theirs.txt")
    assert client.get("/storage/").status_code == 302
    client.force_login(people.owner)
    page = client.get("/storage/").content.decode()
    assert mine.file_id in page and theirs.file_id not in page
    assert client.post(f"/storage/{theirs.file_id}/delete/").status_code == 404 and client.get(f"/storage/{mine.file_id}/delete/").status_code == 405
    client.force_login(people.staff)
    assert client.post(f"/storage/{mine.file_id}/delete/").status_code == 404
    client.force_login(people.owner)
    assert client.post(f"/storage/{mine.file_id}/delete/").status_code == 302
    assert mine.file_id not in client.get("/storage/").content.decode()


def test_the_admin_lists_files_and_deletes_them_with_their_bytes(people: People, client: Any) -> None:
    from accounts.models import AuditEvent
    from relay.models import Upload
    from relay.storage import files

    mine = stored_for(people.owner)
    client.force_login(people.owner)
    assert client.get("/admin/relay/upload/").status_code in {302, 403}
    client.force_login(people.staff)
    assert "mine.txt" in client.get("/admin/relay/upload/").content.decode()
    answer = client.post("/admin/relay/upload/", {"action": "delete_selected", "_selected_action": [mine.pk], "post": "yes"})
    assert answer.status_code == 302 and not Upload.objects.filter(pk=mine.pk).exists() and not files.path_of(mine.storage_name).exists()
    assert AuditEvent.objects.filter(action="upload.delete").exists()


def test_rss_stays_bounded_by_large_requests(live: Portal, server: Server) -> None:
    """Nothing of a stored file is kept in memory but a block."""
    token = live.token()
    server.catch_up()
    before = _rss(server.process.pid)
    for _ in range(4):
        assert upload(server, token, b"x" * 20 * MIB).status_code == 200
    assert _rss(server.process.pid) - before < 20 * MIB
    for file in server.get(token, "/v1/files").json()["data"]:
        server.request("DELETE", token, f"/v1/files/{file['id']}")


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_asking_works_beside_uploads(live: Portal, server: Server) -> None:
    model, token = live.model(), live.token()
    server.catch_up()

    async def both() -> list[int]:
        async with httpx.AsyncClient(trust_env=False, timeout=30, headers={"authorization": f"Bearer {token}"}) as client:
            files = [client.post(f"{server.url}/v1/files", files={"file": ("a", b"x" * 3 * MIB)}, data={"purpose": "user_data"}) for _ in range(6)]
            asked = [client.post(f"{server.url}/v1/chat/completions", json=ask(model)) for _ in range(20)]
            return [answer.status_code for answer in await asyncio.gather(*files, *asked)]

    assert set(asyncio.run(both())) == {200}
