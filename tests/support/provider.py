"""An OpenID Connect provider on a real port, which answers as it is told to."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from django.test import Client

OLGA = {
    "sub": "olga-1",
    "email": "olga@example.org",
    "email_verified": True,
    "preferred_username": "olga",
    "name": "Olga",
}


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    """A key by name, made once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer(ThreadingHTTPServer):
    """Lets everybody in as Olga. What it says is changed by tests."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = dict(OLGA)  # claims of userinfo
        self.claims: dict[str, Any] = {}  # of the ID token beside those; None leaves one out
        self.answers: dict[str, tuple[int, str]] = {}  # status and body by the end of a path, instead of the right one
        self.algorithm, self.signed_with, self.id_token = "RS256", "right", True
        self.seen: list[dict[str, Any]] = []  # requests for tokens
        self.asked: dict[str, str] = {}  # the last request for authorization
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def token(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": "portal", "sub": self.person.get("sub"), "iat": now, "exp": now + 60,
            "nonce": self.asked.get("nonce"), **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.algorithm == "none":
            return jwt.encode(claims, "", algorithm="none")
        if self.algorithm == "HS256":  # with the public key as the shared secret
            return jwt.encode(claims, "x" * 40, algorithm="HS256", headers={"kid": "k"})
        return jwt.encode(claims, key(self.signed_with), algorithm="RS256", headers={"kid": "k"})

    def verified(self, body: dict[str, Any]) -> bool:
        """Whether a request for a token proves to come from who asked (RFC 7636)."""
        verifier = body.get("code_verifier", [""])[0].encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        return digest == self.asked.get("code_challenge") and self.asked.get("code_challenge_method") == "S256"

    def sign_in(self, browser: Client, process: str = "login") -> Any:
        """The way of a browser to the provider and back; the last answer of the portal."""
        away = browser.post(f"/accounts/oidc/house/login/?process={process}")
        if away.status_code != 302:
            return away
        self.asked = {name: values[0] for name, values in parse_qs(urlsplit(away["location"]).query).items()}
        back = urlencode({"state": self.asked["state"], "code": "c"})
        return browser.get(f"/accounts/oidc/house/login/callback/?{back}")


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        path, issuer = urlsplit(self.path).path, self.server
        if path.endswith("/.well-known/openid-configuration"):
            self._json(
                {
                    "issuer": issuer.url,
                    "authorization_endpoint": f"{issuer.url}/authorize",
                    "token_endpoint": f"{issuer.url}/token",
                    "userinfo_endpoint": f"{issuer.url}/userinfo",
                    "jwks_uri": f"{issuer.url}/jwks",
                }
            )
        elif path == "/authorize":  # of browsers; tests without one go back by themselves
            issuer.asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            self.send_response(302)
            back = urlencode({"state": issuer.asked["state"], "code": "c"})
            self.send_header("location", f"{issuer.asked['redirect_uri']}?{back}")
            self.send_header("content-length", "0")
            self.end_headers()
        elif path == "/userinfo":
            self._json(issuer.person)
        else:
            listed = jwt.algorithms.RSAAlgorithm.to_jwk(key("right").public_key(), as_dict=True)
            self._json({"keys": [{**listed, "kid": "k", "use": "sig", "alg": "RS256"}]})

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.seen.append({**body, "authorization": self.headers.get("authorization", "")})
        found = {"access_token": "at", "token_type": "Bearer", "expires_in": 60}
        self._json({**found, "id_token": self.server.token()} if self.server.id_token else found)

    def _json(self, value: Any) -> None:
        path = urlsplit(self.path).path
        status, text = next(
            (answer for end, answer in self.server.answers.items() if path.endswith(end)), (200, json.dumps(value))
        )
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def issuing() -> Iterator[Issuer]:
    server = Issuer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def provider_form(issuer: Issuer, **values: Any) -> dict[str, Any]:
    """The form of the admin that sets it up."""
    return {
        "provider": "openid_connect",
        "name": "House",
        "provider_id": "house",
        "server_url": issuer.url,
        "client_id": "portal",
        "new_secret": "the-client-secret-123",
        **values,
    }
