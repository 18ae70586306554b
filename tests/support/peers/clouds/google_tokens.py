"""Google's token endpoint for service accounts, on a real port: as strict as the real one.

Source: Google's “Using OAuth 2.0 for server to server applications”, and google-auth 2.63, November 2026.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.provider import key

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EMAIL = "relay@sample-project.iam.gserviceaccount.com"


class TokenEndpoint(ThreadingHTTPServer):
    """Gives a new token for every claim that is right. What it says is changed by tests."""

    def __init__(self) -> None:
        self.claims: list[dict[str, Any]] = []  # of the requests, as they were signed
        self.issued: list[str] = []
        self.valid: set[str] = set()  # tokens that the cloud accepts
        self.seconds = 3599  # that a token lasts
        self.answer: tuple[int, bytes] | None = None  # instead of the right one
        self.go = threading.Event()  # answers wait for it
        self.go.set()
        self._numbers = itertools.count(1)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    def file(self, **more: Any) -> str:
        """The JSON file of an account, as the console lets one load it."""
        pem = key("google").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        content = {
            "type": "service_account",
            "project_id": "sample-project",
            "private_key_id": "0123456789abcdef0123456789abcdef01234567",
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "101234567890123456789",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self.url,
            "universe_domain": "googleapis.com",
            **more,
        }
        return json.dumps(content, indent=2)

    def respond(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        if form.get("grant_type") != [GRANT]:
            return 400, {"error": "unsupported_grant_type", "error_description": "Invalid grant_type."}
        try:
            claims = jwt.decode(form["assertion"][0], key("google").public_key(), ["RS256"], audience=AUDIENCE)
        except jwt.InvalidSignatureError:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        self.claims.append(claims)
        if claims["exp"] - claims["iat"] > 3600 or abs(claims["iat"] - time.time()) > 300:
            said = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
            return 400, {"error": "invalid_grant", "error_description": said}
        if claims["iss"] != EMAIL:
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}
        if claims.get("scope") != SCOPE:
            return 400, {"error": "invalid_scope", "error_description": "Invalid OAuth scope or ID token audience."}
        token = f"ya29.c.token-number-{next(self._numbers)}-of-the-account"
        self.issued.append(token)
        self.valid.add(token)
        return 200, {"access_token": token, "expires_in": self.seconds, "token_type": "Bearer"}


class _Handler(BaseHTTPRequestHandler):
    server: TokenEndpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.go.wait(30)
        if self.server.answer is not None:
            status, data = self.server.answer
        else:
            status, found = self.server.respond(form)
            data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def issuing_tokens() -> Iterator[TokenEndpoint]:
    server = TokenEndpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
