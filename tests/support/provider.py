"""An OpenID Connect provider on a real port."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit


class Provider(BaseHTTPRequestHandler):
    """An OpenID Connect server that lets everybody in as Olga."""

    def do_GET(self) -> None:
        address = f"http://{self.headers['host']}"
        path = urlsplit(self.path)
        if path.path.endswith("/.well-known/openid-configuration"):
            self._json(
                {
                    "issuer": address,
                    "authorization_endpoint": f"{address}/authorize",
                    "token_endpoint": f"{address}/token",
                    "userinfo_endpoint": f"{address}/userinfo",
                    "jwks_uri": f"{address}/jwks",
                }
            )
        elif path.path == "/authorize":
            asked = parse_qs(path.query)
            self.send_response(302)
            self.send_header(
                "location", f"{asked['redirect_uri'][0]}?{urlencode({'state': asked['state'][0], 'code': 'c'})}"
            )
            self.send_header("content-length", "0")
            self.end_headers()
        elif path.path == "/userinfo":
            self._json(
                {
                    "sub": "olga-1",
                    "email": "olga@example.org",
                    "email_verified": True,
                    "preferred_username": "olga",
                    "name": "Olga",
                }
            )
        else:
            self._json({"keys": []})

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        type(self).seen.append({**body, "authorization": self.headers.get("authorization", "")})
        self._json({"access_token": "at", "token_type": "Bearer", "expires_in": 60})

    seen: list[Any] = []

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
