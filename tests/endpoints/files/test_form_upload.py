"""Uploads: within the caps, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import environment, forks
from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import Server, _rss, serving

pytestmark = pytest.mark.shared

MIB = 1 << 20


@pytest.fixture(scope="module")
def small(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A portal of its own database and with little room: 1 MiB a file, 3 MiB in all, 2 MiB a user."""
    folder = tmp_path_factory.mktemp("small")
    env = {
        "AIRELAYS_DATA_DIR": str(folder / "data"),
        "AIRELAYS_MAX_UPLOAD_BYTES": str(MIB),
        "AIRELAYS_MAX_TOTAL_UPLOAD_BYTES": str(3 * MIB),
        "AIRELAYS_MAX_USER_UPLOAD_BYTES": str(2 * MIB),
        "AIRELAYS_DATABASE_URL": "",
        "AIRELAYS_FEED_POLL_SECONDS": "0.05",
    }
    environment.new_sqlite(folder / "data")
    with serving(folder / "log", env=env) as running:
        running.env, running.tokens = env, []  # type: ignore[attr-defined]
        yield running
    assert "Traceback" not in (folder / "log").read_text()


def manage(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return forks.run(["manage.py", *arguments], env)


def new_tokens(env: dict[str, str], count: int) -> list[str]:
    """Tokens of as many users. Made at once, since a command takes a second."""
    code = (
        "import secrets; from accounts.models import User; from relay.tokens.lifecycle import create_token; "
        f"users = [User.objects.create_user('u' + secrets.token_hex(4)) for _ in range({count})]; "
        "print(*(create_token(user, 't', actor=None)[1] for user in users))"
    )
    return manage(env, "shell", "-v", "0", "-c", code).stdout.splitlines()[-1].split()


def token_of(small: Any) -> str:
    """A token of a new user."""
    if not small.tokens:
        small.tokens = new_tokens(small.env, 10)
    return str(small.tokens.pop())


def upload(
    server: Server, token: str, content: bytes, name: str = "a.bin", purpose: str = "user_data", **data: str
) -> httpx.Response:
    server.catch_up()
    return httpx.post(
        f"{server.url}/v1/files",
        headers={"authorization": f"Bearer {token}"},
        files={"file": (name, content)},
        data={"purpose": purpose, **data},
        timeout=30,
        trust_env=False,
    )


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
        (_PURPOSE + b"user_data\r\n" + _FILE + b"\r\n--bx" * 11_000 + b"\r\n--b--\r\n", _FORM, "invalid_multipart"),
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
    assert (
        full.status_code == 413
        and full.json()["error"]["code"] == "storage_quota_exceeded"
        and "Your files" in full.json()["error"]["message"]
    )
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
    token = token_of(small)
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as connection:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: "
            "multipart/form-data; boundary=b\r\ncontent-length: 999999999\r\n\r\n"
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
            f"{small.url}/v1/files",
            content=pieces(),
            headers={"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=b"},
            timeout=30,
            trust_env=False,
        )
        assert answer.status_code == 413
    except httpx.WriteError:  # the portal has hung up while this side was still sending
        pass
    until(lambda: not json.loads(manage(small.env, "uploads", "verify", "--json").stdout)["files"])  # type: ignore[attr-defined]
    assert small.get(token, "/v1/files").json()["data"] == []


def test_uploads_at_once_do_not_exceed_a_cap_together(small: Server) -> None:
    token = token_of(small)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(upload(small, token, b"x" * 700_000).status_code))
        for _ in range(8)
    ]
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
        yield (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="up.bin"\r\nContent-Type: '
            b"application/x-thing\r\n\r\n"
        )
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]
        yield b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b--\r\n'

    server.catch_up()
    answer = httpx.post(
        f"{server.url}/v1/files",
        content=pieces(),
        headers={"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=b"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 200 and answer.json()["bytes"] == len(content)
    read = server.get(token, f"/v1/files/{answer.json()['id']}/content")
    assert (
        hashlib.sha256(read.content).digest() == hashlib.sha256(content).digest()
        and read.headers["content-type"] == "application/x-thing"
    )


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_may_take_all_that_is_left(small: Server, announced: bool) -> None:
    token = token_of(small)
    for _ in range(2):
        assert upload(small, token, b"x" * 700_000).status_code == 200
    form = b"".join(
        (_PURPOSE, b"user_data\r\n", _FILE, b"x" * (2 * MIB - 2 * 700_000 - 1), b"\r\n--b--\r\n")
    )  # fmt: skip
    answer = httpx.post(
        f"{small.url}/v1/files",
        content=form if announced else iter([form]),
        headers={"authorization": f"Bearer {token}", "content-type": _FORM},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 200 and answer.json()["bytes"] == 2 * MIB - 1_400_000
    full = upload(small, token, b"x")
    assert full.status_code == 413 and "0 bytes of it are free" in full.json()["error"]["message"]
    for file in small.get(token, "/v1/files").json()["data"]:
        small.request("DELETE", token, f"/v1/files/{file['id']}")


def _half(port: int, token: str, size: int = 300_000) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: multipart/form-data; "
        f"boundary=b\r\ncontent-length: {size * 2}\r\n\r\n"
    )
    connection.sendall(
        head.encode() + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * size
    )
    return connection


def test_a_client_that_leaves_in_the_middle_leaves_nothing(live: Portal, server: Server) -> None:
    from relay.models import Upload

    token = live.token()
    server.catch_up()
    connection = _half(server.port, token, 1_500_000)
    until(lambda: Upload.objects.filter(state="receiving").exists())
    row = Upload.objects.filter(state="receiving").get()
    connection.close()
    until(lambda: not Upload.objects.filter(pk=row.pk).exists())


def test_a_kill_in_the_middle_leaves_nothing(django_db_setup: None, tmp_path: Path) -> None:
    env = {
        "AIRELAYS_DATA_DIR": str(tmp_path / "data"),
        "AIRELAYS_DATABASE_URL": "",
        "AIRELAYS_FEED_POLL_SECONDS": "0.05",
    }
    environment.new_sqlite(tmp_path / "data")
    with serving(tmp_path / "log", env=env) as running:
        (token,) = new_tokens(env, 1)
        kept = upload(running, token, b"kept" * 1000).json()["id"]
        connection = _half(running.port, token, 2_500_000)
        until(lambda: list((tmp_path / "data" / "uploads" / "tmp").glob("*")))
        running.kill()
        connection.close()
    verified = manage(env, "uploads", "verify", "--json")
    assert verified.returncode == 1 and "gone" in verified.stdout
    with serving(tmp_path / "log2", env=env) as again:
        until(lambda: manage(env, "uploads", "verify", "--contents").returncode == 0)
        assert [file["id"] for file in again.get(token, "/v1/files").json()["data"]] == [kept]
        assert again.get(token, f"/v1/files/{kept}/content").content == b"kept" * 1000
    assert list((tmp_path / "data" / "uploads" / "tmp").glob("*")) == []


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


def test_asking_works_beside_uploads(live: Portal, server: Server) -> None:
    model, token = live.model(), live.token()
    server.catch_up()

    async def both() -> list[int]:
        async with httpx.AsyncClient(
            trust_env=False, timeout=30, headers={"authorization": f"Bearer {token}"}
        ) as client:
            files = [
                client.post(
                    f"{server.url}/v1/files", files={"file": ("a", b"x" * 3 * MIB)}, data={"purpose": "user_data"}
                )
                for _ in range(6)
            ]
            asked = [client.post(f"{server.url}/v1/chat/completions", json=ask(model)) for _ in range(20)]
            return [answer.status_code for answer in await asyncio.gather(*files, *asked)]

    assert set(asyncio.run(both())) == {200}
