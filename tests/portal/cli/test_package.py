"""The package, installed into an empty environment, in an empty home: set up, served, a streamed answer, stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support.server import ROOT, free_port

pytestmark = pytest.mark.timeout(600)


def wheel_of(sources: Path, folder: Path) -> Path:
    """Build the package. Without the packages that build it, pip takes them from the index."""
    own = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *own, "-w", str(folder), str(sources)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_package_serves_from_an_empty_environment(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("accounts", "portal", "relay", "static", "templates", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", *(["*"] if name == "tests" else []))
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.in"):
        shutil.copy(ROOT / name, sources)
    wheel = wheel_of(sources, tmp_path / "wheel")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"accounts", "portal", "relay"}
    for wanted in ("locale/zh_Hans/LC_MESSAGES/django.mo", "assets/static/portal/portal.css"):
        assert f"portal/{wanted}" in names
    assert "relay/migrations/0001_initial.py" in names
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--prefix", str(environment), str(wheel)],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    # What the package depends on is that of the environment of the tests.
    own = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(own + "\n")
    script = environment / "bin" / "airelays"
    lines = script.read_text().splitlines()
    script.write_text("\n".join([f"#!{environment / 'bin' / 'python'}", *lines[1:]]) + "\n")
    _use(script, tmp_path / "home")


def _use(script: Path, home: Path) -> None:
    home.mkdir()
    env = {"HOME": str(home), "PATH": f"{script.parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def airelays(*words: str) -> str:
        done = subprocess.run([script, *words], cwd=home, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    port = free_port()
    made = json.loads(airelays("init", "--port", str(port), "--json"))
    assert made["next_steps"][0] == "Start the relay: airelays serve"
    token = json.loads(airelays("token", "show", "--json"))["relay_token"]
    assert token == made["relay_token"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([script, "serve"], cwd=home, env=env, stdout=log, stderr=log)
    try:
        base = made["client"]["base_url"].removesuffix("/v1")
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            _wait(client, server, home / "log")
            body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
            headers = {"authorization": f"Bearer {token}"}
            answer = client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.text.count("data:") > 20 and answer.text.endswith("data: [DONE]\n\n")
            assert client.get("/static/portal/portal.css").status_code == 200
            page = client.get("/accounts/login/", headers={"accept-language": "zh-hans"})
            assert page.status_code == 200 and "登录" in page.text
        assert json.loads(airelays("status", "--json"))["relay"]["running"]
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 143
    assert token not in (home / "log").read_text()
    assert not [path for path in script.parent.parent.rglob("*.sqlite3")]


def _wait(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        assert server.poll() is None, log.read_text()
        try:
            client.get("/healthz")
            return
        except httpx.ConnectError:
            os.sched_yield()
