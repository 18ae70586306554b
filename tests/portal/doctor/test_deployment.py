"""What `airelays check --deploy` finds: the machine, the public address, and what stands in front of the portal."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import resource
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings as current
from django.core.signing import TimestampSigner
from django.db import connection
from django.test import override_settings

from portal import config
from portal.doctor import run
from portal.doctor.deployment import address, machine, proxy, question
from portal.doctor.report import Check
from tests.support.server import Server, free_port
from tests.support.sessions import with_config

PEER = "10.0.0.7"
URL = "https://ai.example.org"


def settings_of(**env: str) -> config.Config:
    return config.load({}, {"AIRELAYS_CONFIG": "", **{f"AIRELAYS_{name}": value for name, value in env.items()}})


def statuses(checks: Iterator[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


# -- what the proxy says of clients ----------------------------------------------------------------------------------

GOOD = {"x-forwarded-for": f"{address.FORGED}, 203.0.113.9", "x-forwarded-proto": "https", "host": "ai.example.org"}


def seen(peer: str, trusted: str, **headers: str) -> dict[str, Any]:
    given = {**GOOD, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "client": (peer, 1),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
    }
    with override_settings(
        TRUSTED_PROXIES=[ipaddress.ip_network(trusted)], ALLOWED_HOSTS=["ai.example.org", "127.0.0.1"]
    ):
        return question.seen(scope)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_forwarded_for": "203.0.113.9"},
        {"x_forwarded_for": "203.0.113.9:51234"},
        {"x_forwarded_for": "[2001:db8::9]:51234"},
        {"x_forwarded_for": f"{address.FORGED}, 10.0.0.9"},  # the command runs in the proxies' own network
        {"host": "AI.example.org:443"},
    ],
)
def test_a_proxy_that_says_who_the_client_is(headers: dict[str, str]) -> None:
    (check,) = proxy.forwarding(seen(PEER, "10.0.0.0/8", **headers), URL)
    assert check.status == "pass", check
    assert address.FORGED not in check.message


@pytest.mark.parametrize(
    ("headers", "text", "step"),
    [
        ({"x_forwarded_for": ""}, "does not send X-Forwarded-For", "samples"),
        ({"x_forwarded_for": address.FORGED}, "passes the X-Forwarded-For of clients on", "replace the header"),
        ({"x_forwarded_for": "203.0.113.9, unknown"}, "“unknown”", "with or without its port"),
        ({"x_forwarded_proto": ""}, "X-Forwarded-Proto", "X-Forwarded-Proto: https"),
        ({"x_forwarded_proto": "http"}, "“http”", "X-Forwarded-Proto: https"),
        ({"host": "portal:8080"}, "“portal:8080”", "AIRELAYS_ALLOWED_HOSTS"),
        ({"host": ""}, "“”", "as ai.example.org"),
    ],
)
def test_a_fault_of_a_proxy_comes_with_its_remedy(headers: dict[str, str], text: str, step: str) -> None:
    (check,) = proxy.forwarding(seen(PEER, "10.0.0.0/8", **headers), URL)
    assert check.status == "fail" and text in check.message and step in check.next_steps[0]


def test_a_proxy_that_is_not_trusted_is_named() -> None:
    (check,) = proxy.forwarding(seen(PEER, "192.0.2.0/24"), URL)
    assert check.status == "fail" and check.next_steps[0].startswith(f"Set AIRELAYS_TRUSTED_PROXIES={PEER}")
    (check,) = proxy.forwarding(seen(PEER, "192.0.2.0/24", x_forwarded_for="", x_forwarded_proto="", via="1.1 x"), URL)
    assert check.status == "fail"
    bare = {"x_forwarded_for": address.FORGED, "x_forwarded_proto": ""}
    (check,) = proxy.forwarding(seen(PEER, "192.0.2.0/24", **bare), "http://ai.example.org")
    assert check.status == "pass" and "without a proxy" in check.message
    (check,) = proxy.forwarding(seen(PEER, "192.0.2.0/24", **bare), URL)
    assert check.status == "fail", "https ends somewhere"


# -- by way of the address -------------------------------------------------------------------------------------------


def test_the_portal_itself_lets_everything_through(server: Server) -> None:
    public = address.Public(server.url)
    wanted = settings_of(PUBLIC_URL=server.url, MAX_BODY_BYTES=str(8 << 20))
    with httpx.Client() as client:
        assert "hosts" not in client.get(f"{server.url}/healthz").json()
        assert "hosts" not in client.get(f"{server.url}/healthz?deployment=seen:1:x").json()
    found = statuses(address.public_address(wanted, public))
    assert found == {"public_address": "pass"} and public.seen is not None and public.seen["peer"] == "127.0.0.1"
    assert [check.status for check in proxy.proxy(wanted, public)] == ["pass"] * 4


def test_a_question_of_another_installation_or_an_old_one_is_not_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings_of(PUBLIC_URL=server.url)
    with override_settings(SECRET_KEY="another key, that nobody else has"):
        monkeypatch.setattr(question, "_signer", TimestampSigner(salt="portal.doctor.deployment"))
        public = address.Public(server.url)
        (check,) = address.public_address(wanted, public)
    assert check.status == "fail" and "keys of this installation" in check.message and public.seen is None
    assert [check.status for check in proxy.proxy(wanted, public)] == ["skip"] * 4
    monkeypatch.setattr(question, "_signer", TimestampSigner(salt="portal.doctor.deployment"))
    asked = question.query("upload").encode()
    assert question.purpose_of(asked) == "upload"
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    assert question.purpose_of(asked) == "" and question.purpose_of(b"deployment=%ff") == ""


class Front(BaseHTTPRequestHandler):
    """What may stand in front of a portal, or in its place."""

    protocol_version = "HTTP/1.1"
    answers: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")

    def do_GET(self) -> None:
        status, headers, body = self.answers
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.close_connection = True  # before the body was read
        self.send_response(413)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def front(answers: tuple[int, dict[str, str], bytes], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), type("Front", (Front,), {"answers": answers}))
    if tls is not None:
        running.socket = tls.wrap_socket(running.socket, server_side=True)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ((502, {}, b"<h1>Bad gateway</h1>"), "does not reach the portal"),
        (
            (301, {"location": "https://www.example.org/healthz?deployment=x"}, b""),
            "redirects to https://www.example.org.",
        ),
        ((404, {}, b"nothing here"), "Another program answers"),
        ((200, {}, b"[]"), "Another program answers"),
        ((200, {}, b'{"ok":true,"name":"AIRelays Portal","version":"0.1"}'), "keys of this installation"),
        ((403, {}, b'{"error":{"message":"(network_scope=loopback)"}}'), "AIRELAYS_NETWORK_SCOPE"),
    ],
)
def test_what_answers_instead_of_the_portal(answers: tuple[int, dict[str, str], bytes], text: str) -> None:
    with front(answers) as url:
        (check,) = address.public_address(settings_of(PUBLIC_URL=url), address.Public(url))
    assert check.status == "fail" and text in check.message and check.next_steps


def test_a_proxy_that_buffers_and_refuses() -> None:
    with front((200, {}, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")) as url:
        public = address.Public(url)
        for check, word in (
            (proxy.streams(public), "buffering"),
            (proxy.websockets(public), "Upgrade"),
            (proxy.uploads(public, 20_000_000), "client_max_body_size"),
        ):
            assert check.status == "fail" and word in check.next_steps[0], check


def test_a_name_that_is_not_known_and_a_port_that_is_closed() -> None:
    for url in ("https://no.invalid", "https://no..invalid", f"https://{'a' * 64}.invalid"):
        (check,) = address.public_address(settings_of(PUBLIC_URL=url), address.Public(url))
        assert check.status == "fail" and "DNS" in check.next_steps[0]
    url = f"http://127.0.0.1:{free_port()}"
    (check,) = address.public_address(settings_of(PUBLIC_URL=url), address.Public(url))
    assert check.status == "fail" and "firewall" in check.next_steps[0]


def certificate(folder: Path, days: float) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server and of its clients: a certificate for localhost that ends in so many days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days, minutes=5))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(*form))
    (folder / "certificate").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate", folder / "key")
    return server, ssl.create_default_context(cafile=str(folder / "certificate"))


@pytest.mark.parametrize(("days", "status"), [(40, "pass"), (3, "warn"), (-1, "fail")])
def test_how_long_a_certificate_is_valid(tmp_path: Path, days: float, status: str) -> None:
    server_side, client_side = certificate(tmp_path, days)
    with front((200, {}, b"{}"), server_side) as url:
        found = {
            check.name: check
            for check in address.public_address(settings_of(PUBLIC_URL=url), address.Public(url, client_side))
        }
    assert found["certificate"].status == status
    assert found["certificate"].data.get("days", -1) == days or status == "fail"
    assert ("public_address" in found) == (status != "fail")


def test_a_certificate_of_nobody_known_and_a_port_without_tls(tmp_path: Path) -> None:
    server_side, _ours = certificate(tmp_path, 40)
    with front((200, {}, b"{}"), server_side) as url:
        (check,) = address.public_address(settings_of(PUBLIC_URL=url), address.Public(url))
    assert check.name == "certificate" and check.status == "fail" and "SSL_CERT_FILE" in check.next_steps[1]
    with front((200, {}, b"{}")) as url:
        secure = url.replace("http:", "https:")
        (check,) = address.public_address(settings_of(PUBLIC_URL=secure), address.Public(secure))
    assert check.name == "certificate" and check.status == "fail" and "does not speak TLS" in check.message


# -- the machine and the servers beside the portal -------------------------------------------------------------------


def test_root_debugging_and_few_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 1024))
    found = {check.name: check for check in machine.machine(settings_of(DATA_DIR=str(tmp_path), DEBUG="true"))}
    assert (found["user"].status, found["debug"].status, found["open_files"].status) == ("warn", "fail", "warn")
    assert "LimitNOFILE" in found["open_files"].next_steps[0]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 65_536))
    found = {check.name: check for check in machine.machine(settings_of(DATA_DIR=str(tmp_path)))}
    assert found["user"].status == "pass" and "debug" not in found and "open_files" not in found


def test_a_time_zone_that_nobody_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    monkeypatch.setattr(machine, "_LINK", link)
    (check,) = machine._time_zone(settings_of())
    assert check.status == "warn" and "AIRELAYS_TIME_ZONE=Europe/Berlin" in check.next_steps[0]
    for chosen in ("UTC", "Asia/Tokyo"):
        (check,) = machine._time_zone(settings_of(TIME_ZONE=chosen))
        assert check.status == "pass" and chosen in check.message
    monkeypatch.setattr(machine, "_LINK", tmp_path / "none")
    (check,) = machine._time_zone(settings_of())
    assert check.status == "pass"


@pytest.mark.parametrize(("said", "status"), [("no\n", "warn"), ("yes\n", "pass"), ("", None)])
def test_whether_the_clock_is_synchronised(monkeypatch: pytest.MonkeyPatch, said: str, status: str | None) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_words, **_more: SimpleNamespace(stdout=said))
    assert [check.status for check in machine._synchronised()] == ([status] if status else [])


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/data rw shared:2 master:1 - nfs4 store:/x rw,vers=4.2
31 30 0:41 / /srv/data/local\040disk rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/a", "ext4"), ("/srv/data/a", "nfs4"), ("/srv/data/local disk/a", "xfs"), ("/srv", "ext4")],
)
def test_which_file_system_a_folder_is_on(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert machine.file_system_of(Path(path), tmp_path / "mountinfo") == kind
    assert machine.file_system_of(Path(path), tmp_path / "none") == ""


def test_sqlite_on_a_network_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "file_system_of", lambda _path, _table: "nfs4")
    (check,) = machine._place_of_sqlite(settings_of(DATA_DIR=str(tmp_path)))
    assert check.status == "fail" and "nfs4" in check.message


@pytest.mark.shared
@pytest.mark.django_db
def test_servers_that_agree_on_the_time_and_take_the_connections() -> None:
    name = connection.settings_dict["NAME"]
    kind = {"postgresql": "postgresql", "mysql": "mysql"}.get(connection.vendor, "")
    wanted = settings_of(
        DATABASE_URL=f"{kind}://a@localhost/{name}" if kind else "", REDIS_URL=current.CONFIG.redis_url
    )
    found = list(machine.servers(wanted))
    assert all(check.status == "pass" for check in found), json.dumps([check.as_json() for check in found])
    assert ("connections" in {check.name for check in found}) == bool(kind)
    if kind:
        many = settings_of(DATABASE_URL=wanted.database_url, WORKERS="64", DATABASE_CONNECTIONS="400")
        assert statuses(machine._connections(many)) == {"connections": "fail"}


def test_without_an_address_it_says_what_was_not_looked_at(db: None, settings: Any) -> None:
    with_config(settings, public_url="")
    report = run.run(settings.CONFIG, run.Wish(response=False, upstreams=False, deployment=True))
    (check,) = (one for one in report.checks if one.name == "public_address")
    assert check.status == "skip" and "uploads" in check.message and "AIRELAYS_PUBLIC_URL" in check.next_steps[0]
    assert any("AIRELAYS_PUBLIC_URL" in step for step in report.as_json()["next_steps"])
