"""Makes the home folders in this directory with the AIRelays 0.x that is installed somewhere else.

usage: python make.py PATH/TO/bin/airelays VERSION

The real program runs `init`, `login` and `serve` on an issuer and an upstream of this file, on real ports. What it
leaves is written here as text: the files as they are, the database as SQL, and the home folder as `{home}`.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ACCOUNT = "11111111-2222-3333-4444-555555555555"
KEPT = ("relay-token", "auth.json", "accounts/manifest.json")


def jwt(kind: str) -> str:
    claims = {
        "email": "owner@example.org",
        "https://api.openai.com/auth": {"chatgpt_account_id": ACCOUNT, "chatgpt_plan_type": "plus"},
        "kind": kind,
    }
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join((*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "made-up"))


class Upstream(BaseHTTPRequestHandler):
    """The issuer's device flow, and the backend's models and responses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _json(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        models = [{"slug": "gpt-5.5", "display_name": "GPT-5.5", "visibility": "list"}]
        self._json({"models": models})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.endswith("/usercode"):
            self._json({"device_auth_id": "device", "user_code": "ABCD-1234", "interval": "0"})
        elif self.path.endswith("/deviceauth/token"):
            self._json({"authorization_code": "code", "code_verifier": "verifier", "code_challenge": "challenge"})
        elif self.path.endswith("/oauth/token"):
            self._json({"id_token": jwt("id"), "access_token": jwt("access"), "refresh_token": "made-up-refresh-token"})
        else:
            self._stream()

    def _stream(self) -> None:
        item = {
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "The file says hello.", "annotations": []}],
        }  # fmt: skip
        whole = {"id": "resp_1", "object": "response", "status": "completed", "created_at": 1, "model": "gpt-5.5"}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        events = (
            {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {**whole, "output": [], "usage": usage}},
        )
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def call(url: str, token: str, body: bytes | None, kind: str = "application/json", method: str = "") -> Any:
    headers = {"authorization": f"Bearer {token}", "content-type": kind}
    request = urllib.request.Request(url, body, headers, method=method or ("POST" if body else "GET"))
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)


def form(name: str, kind: str, content: bytes) -> tuple[bytes, str]:
    head = (
        f'--edge\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        f'--edge\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\ncontent-type: {kind}\r\n\r\n'
    )
    return head.encode() + content + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


def use(v1: str, token: str) -> None:
    """Two files that stay, one that is deleted, and two conversations: one of two turns, one that was only made."""
    ids = []
    for name, kind, content in (
        ("hello.txt", "text/plain", b"hello from AIRelays\n"),
        ("n\xe4chste Woche.csv", "text/csv", b"day,hours\nMonday,8\n"),
        ("gone.txt", "text/plain", b"deleted\n"),
    ):
        body, boundary = form(name, kind, content)
        ids.append(call(f"{v1}/files?purpose=user_data", token, body, boundary)["id"])
    call(f"{v1}/files/{ids[2]}", token, None, method="DELETE")
    seeds = [{"type": "message", "role": "user", "content": "Answer in one sentence."}]
    made = call(f"{v1}/conversations", token, json.dumps({"metadata": {"topic": "greeting"}, "items": seeds}).encode())
    parts = [{"type": "input_file", "file_id": ids[0]}, {"type": "input_text", "text": "What does it say?"}]
    turn = {"model": "gpt-5.5", "conversation": made["id"], "input": [{"role": "user", "content": parts}]}
    call(f"{v1}/responses", token, json.dumps(turn).encode())
    call(f"{v1}/conversations", token, b"{}")


def as_text(home: Path, target: Path) -> None:
    def written(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(str(home), "{home}"), encoding="utf-8")

    data = home / ".airelays"
    written(target / "config.toml", (home / ".config" / "airelays" / "config.toml").read_text(encoding="utf-8"))
    for name in (*KEPT, *(f"uploads/{path.name}" for path in (data / "uploads").iterdir())):
        if (data / name).exists():
            written(target / "data" / name, (data / name).read_text(encoding="utf-8"))
    with closing(sqlite3.connect(data / "state.sqlite3")) as database:
        written(target / "state.sql", "\n".join(database.iterdump()) + "\n")


def main() -> None:
    program, version = Path(sys.argv[1]).absolute(), sys.argv[2]
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{upstream.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        port = upstream.server_port % 10_000 + 20_000
        env = {
            "HOME": str(home), "PATH": os.environ["PATH"], "AIRELAYS_PORT": str(port),
            "AIRELAYS_ISSUER_BASE_URL": base, "AIRELAYS_UPSTREAM_BASE_URL": f"{base}/backend-api/codex",
            "AIRELAYS_ENABLE_CLAUDE": "false", "AIRELAYS_AUTH_STORAGE": "file",
        }  # fmt: skip
        plain = {name: env[name] for name in ("HOME", "PATH")}
        subprocess.run([program, "init"], env=plain, check=True, timeout=60)
        subprocess.run([program, "login", "--device"], env=env, check=True, timeout=60)
        token = (home / ".airelays" / "relay-token").read_text().strip()
        with subprocess.Popen([program, "serve"], env=env) as server:
            try:
                for _ in range(100):
                    time.sleep(0.2)
                    try:
                        call(f"http://127.0.0.1:{port}/healthz", token, None)
                        break
                    except OSError:
                        continue
                use(f"http://127.0.0.1:{port}/v1", token)
            finally:
                server.terminate()
                server.wait(30)
        as_text(home, HERE / version)
    upstream.shutdown()


if __name__ == "__main__":
    main()
