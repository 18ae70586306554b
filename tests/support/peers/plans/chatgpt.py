"""OpenAI's issuer and the servers behind ChatGPT plans, on one real port: in the supported form and in the older one.

As strict as the real ones are documented to be.
Source: OpenAI's pages on signing in with ChatGPT, its terms, and openai/codex, read in November 2026.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

from tests.support.provider import key

NAMESPACE = "https://api.openai.com"
FIRST_CLIENT = "dynamic_agent_client"
RESOURCE = "https://api.openai.com/v1"
SHARING = "chatgpt.tokens.use.direct"
SCOPE = f"openid profile email offline_access resource.invoke {SHARING}"
MODELS = [
    {"slug": "gpt-5.5", "display_name": "GPT-5.5", "visibility": "list", "context_window": 400_000,
     "supported_reasoning_levels": [{"effort": "low"}, {"effort": "high"}]},
    {"slug": "gpt-5.4-mini", "display_name": "GPT-5.4 mini", "visibility": "list"},
    {"slug": "gpt-hidden", "display_name": "Hidden", "visibility": "hide"},
    {"slug": "gpt-6-new", "display_name": "GPT-6", "visibility": "list", "minimal_client_version": "99.0.0"},
]  # fmt: skip
# What each form refuses, by name.
REFUSED = {
    "background", "conversation", "max_output_tokens", "max_tool_calls", "metadata", "moderation", "multi_agent",
    "prompt", "prompt_cache_retention", "safety_identifier", "temperature", "top_p", "top_logprobs", "truncation",
    "user", "previous_response_id",
}  # fmt: skip
REFUSED_BY_CODEX = REFUSED | {"presence_penalty", "frequency_penalty", "seed", "stop", "logprobs", "logit_bias"}


class ChatGPT(ThreadingHTTPServer):
    """Lets everybody in as Ada. What it says is changed by tests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.person: dict[str, Any] = {"sub": "user-ada", "email": "ada@example.org"}
        self.claims: dict[str, Any] = {}  # of the ID token beside those; None leaves one out
        self.plan, self.account = "plus", "acc-ada"
        self.granted = SCOPE
        self.seconds = 3600  # that an access token lasts
        self.signed_with = "right"
        self.asked: dict[str, str] = {}  # the last request for authorization
        self.codes: dict[str, dict[str, str]] = {}  # what each code was given for
        self.devices: dict[str, bool] = {}  # by user code: whether it was typed
        self.offers_device = True
        self.valid: dict[str, str] = {}  # the client by access token
        self.refreshable: dict[str, str] = {}  # the client by refresh token
        self.spent: set[str] = set()
        self.calls: list[tuple[str, Any]] = []  # path and form or body, in order
        self.answers: dict[str, tuple[int, bytes]] = {}  # by path, instead of the right one
        self.revoked: list[str] = []
        self.seen: list[dict[str, Any]] = []  # requests for responses: `headers` and `body`
        self.headers: dict[str, str] = {}  # of answers
        self.events: list[dict[str, Any]] | None = None  # of answers; None: hello
        self.reject_access = False  # every access token is refused
        self.slow = threading.Event()  # answers of the refresh wait for it
        self.slow.set()
        self.flows = threading.Event()  # streams wait for it in their middle
        self.flows.set()
        self._numbers = itertools.count(1)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, path: str) -> int:
        return sum(1 for seen, _ in self.calls if seen == path)

    # -- the browser -------------------------------------------------------------------------------------------------

    def authorize(self, address: str, consents: bool = True) -> str:
        """What a browser does with the address at which one signs in: where it ends."""
        self.asked = asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        back = f"{asked['redirect_uri']}?state={asked['state']}"
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        if not consents:
            return f"{back}&error=access_denied"
        code = f"code-{next(self._numbers)}"
        client = f"oaiapp_{next(self._numbers)}" if asked["client_id"] == FIRST_CLIENT else asked["client_id"]
        self.codes[code] = {**asked, "client_id": client}
        return f"{back}&code={code}&client_id={client}&scope={self.granted.replace(' ', '+')}&iss={self.url}"

    # -- tokens ------------------------------------------------------------------------------------------------------

    def tokens(self, client: str, nonce: str = "") -> dict[str, Any]:
        number = next(self._numbers)
        access, refresh = self.jwt({"n": number, "exp": int(time.time()) + self.seconds}), f"rt-secret-{number}"
        with self.lock:
            self.valid[access], self.refreshable[refresh] = client, client
        return {
            "access_token": access, "refresh_token": refresh, "id_token": self.id_token(client, nonce),
            "token_type": "Bearer", "expires_in": self.seconds, "scope": self.granted,
        }  # fmt: skip

    def id_token(self, client: str, nonce: str) -> str:
        now = int(time.time())
        own = {"chatgpt_plan_type": self.plan, "chatgpt_account_id": self.account}
        claims = {
            "iss": self.url, "aud": [client], "iat": now, "exp": now + 3600, "nonce": nonce or None,
            f"{NAMESPACE}/auth": own, **self.person, **self.claims,
        }  # fmt: skip
        return self.jwt({name: value for name, value in claims.items() if value is not None})

    def jwt(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, key(self.signed_with), algorithm="RS256", headers={"kid": "k"})

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        given = self.codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "").encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        if given is None or digest != given["code_challenge"] or form["redirect_uri"] != given["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": "secret words of the issuer"}
        if form["client_id"] != given["client_id"] or "client_secret" in form:
            return 401, {"error": "invalid_client"}
        if given.get("resource") != form.get("resource"):
            return 400, {"error": "invalid_target"}
        return 200, self.tokens(form["client_id"], given.get("nonce", ""))

    def refresh(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.slow.wait(20)
        with self.lock:
            token = form.get("refresh_token", "")
            if token in self.spent:
                return 401, {"error": {"code": "refresh_token_reused", "message": "secret words of the issuer"}}
            if self.refreshable.pop(token, None) != form["client_id"]:
                return 400, {"error": "invalid_grant", "error_description": "secret words of the issuer"}
            self.spent.add(token)
        return 200, self.tokens(form["client_id"])

    # -- responses ---------------------------------------------------------------------------------------------------

    def refusal(self, body: dict[str, Any], older: bool) -> str:
        """Why a request is not taken; empty: it is."""
        unknown = sorted((REFUSED_BY_CODEX if older else REFUSED) & body.keys())
        if unknown:
            return f"Unsupported parameter: {unknown[0]}"
        if body.get("store") is not False:
            return "Store must be set to false"
        if body.get("stream") is not True:
            return "Stream must be set to true"
        if not isinstance(body.get("input"), list):
            return "Input must be a list"
        if any(item.get("role") == "system" for item in body["input"]):
            return "System messages are not allowed"
        if older and not body.get("instructions"):
            return "Instructions are required"
        return ""

    def stream_of(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        if self.events is not None:
            return self.events
        return hello(body["model"], f"resp_{next(self._numbers)}")


def hello(model: str, name: str) -> list[dict[str, Any]]:
    """An answer as the real servers stream it: the last event has an empty output."""
    head = {"id": name, "object": "response", "created_at": 1_790_000_000, "model": model, "output": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    text = {"type": "output_text", "text": "Hello Ada.", "annotations": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    usage = {
        "input_tokens": 9, "output_tokens": 4, "total_tokens": 13,
        "input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    return [
        {"type": "response.created", "response": {**head, "status": "in_progress"}},
        {"type": "codex.rate_limits", "plan_type": "plus",
         "rate_limits": {"primary": {"used_percent": 12.5, "window_minutes": 300, "reset_at": 1_990_000_000}}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
        {"type": "response.output_text.delta", **at, "delta": "Hello "},
        {"type": "response.output_text.delta", **at, "delta": "Ada."},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": [text]}},
        {"type": "response.completed", "response": {**head, "status": "completed", "usage": usage}},
    ]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: ChatGPT
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.calls.append((parts.path, parse_qs(parts.query)))
        if self._other(parts.path):
            return
        url = self.server.url
        if parts.path == "/.well-known/openid-configuration":
            document = {
                "issuer": url, "authorization_endpoint": f"{url}/oauth/authorize",
                "token_endpoint": f"{url}/oauth/token",
                "jwks_uri": f"{url}/.well-known/jwks.json", "revocation_endpoint": f"{url}/oauth/revoke",
            }  # fmt: skip
            self._json(200, document)
        elif parts.path == "/.well-known/jwks.json":
            one = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key("right").public_key()))
            self._json(200, {"keys": [{**one, "kid": "k", "use": "sig", "alg": "RS256"}]})
        elif parts.path == "/models":
            if self._client() is None:
                self._json(401, {"detail": "Unauthorized"})
            else:
                self._json(200, {"models": MODELS})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        is_form = self.headers["content-type"] == "application/x-www-form-urlencoded"
        body = {name: values[0] for name, values in parse_qs(raw.decode()).items()} if is_form else json.loads(raw)
        self.server.calls.append((self.path, body))
        if self._other(self.path):
            return
        if self.path == "/oauth/token":
            answer = self.server.exchange if body["grant_type"] == "authorization_code" else self.server.refresh
            self._json(*answer(body))
        elif self.path == "/oauth/revoke":
            self.server.revoked.append(body["token"])
            self.server.refreshable.pop(body["token"], None)
            self._send(200, b"", {})
        elif self.path == "/api/accounts/deviceauth/usercode":
            if not self.server.offers_device:
                self._json(404, {"detail": "Not Found"})
                return
            self.server.devices["ABCD-1234"] = False
            self._json(200, {"device_auth_id": "dev-1", "user_code": "ABCD-1234", "interval": "1"})
        elif self.path == "/api/accounts/deviceauth/token":
            self._device(body)
        elif self.path == "/responses":
            self._respond(body)
        else:
            self._json(404, {"detail": "Not Found"})

    def _device(self, body: dict[str, str]) -> None:
        if not self.server.devices.get(body["user_code"]):
            self._json(403, {"error": "authorization_pending"})
            return
        verifier = "v" * 50
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        redirect = f"{self.server.url}/deviceauth/callback"
        client = next(form["client_id"] for path, form in self.server.calls if path.endswith("/usercode"))
        self.server.codes["device-code"] = {
            "client_id": client, "code_challenge": digest, "redirect_uri": redirect,
        }  # fmt: skip
        self._json(200, {"authorization_code": "device-code", "code_verifier": verifier, "code_challenge": digest})

    def _respond(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append({"headers": headers, "body": body})
        if self._client() is None:
            self._json(401, {"error": {"code": "token_expired", "message": "secret words of the upstream"}})
            return
        older = "chatgpt-account-id" in headers
        if why := self.server.refusal(body, older):
            self._json(400, {"detail": why})
            return
        events = self.server.stream_of(body)
        data = b"".join(
            f"event: {event['type']}\ndata: {json.dumps({'sequence_number': number, **event})}\n\n".encode()
            for number, event in enumerate(events)
        )
        headers = {"content-type": "text/event-stream; charset=utf-8", **self.server.headers}
        if self.server.flows.is_set():
            self._send(200, data, headers)
        else:
            self._send_slowly(data, headers)

    def _send_slowly(self, data: bytes, headers: dict[str, str]) -> None:
        middle = data.index(b"event: response.output_item.done")
        self.close_connection = True
        self.send_response(200)
        for name, value in {**headers, "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:middle])
        self.wfile.flush()
        self.server.flows.wait(20)
        with suppress(OSError):  # whoever asked has left
            self.wfile.write(data[middle:])

    def _client(self) -> str | None:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        return None if self.server.reject_access else self.server.valid.get(token)

    def _other(self, path: str) -> bool:
        found = self.server.answers.get(path)
        if found is not None:
            self._send(found[0], found[1], {"content-type": "application/json", **self.server.headers})
        return found is not None

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode(), {"content-type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def running_chatgpt() -> Iterator[ChatGPT]:
    server = ChatGPT()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.slow.set()
        server.flows.set()
        server.shutdown()
        server.server_close()
        thread.join()
