"""`airelays doctor` as it is run in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from portal.cli import reports
from portal.cli.commands.doctor import command
from tests.support import environment
from tests.support.server import ROOT, free_port


def shell(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRELAYS_")}
    environ = {**own, "HOME": str(home), "AIRELAYS_PORT": str(free_port()), **env}
    command = [sys.executable, "-m", "portal.cli", "doctor", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)


def test_an_empty_home_is_left_empty(tmp_path: Path) -> None:
    done = shell(tmp_path)
    assert done.returncode == 1 and "airelays init" in done.stdout and "~/.airelays" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_a_result(tmp_path: Path) -> None:
    done = shell(tmp_path, "--json", AIRELAYS_PORT="abc")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and [check["name"] for check in report["checks"]] == ["config"]
    assert "AIRELAYS_PORT" in report["checks"][0]["message"] and "Traceback" not in done.stderr


def test_a_portal_without_a_token_fails_with_what_to_do_and_nothing_secret(tmp_path: Path) -> None:
    environment.new_sqlite(tmp_path / ".airelays")
    done = shell(tmp_path, "--json", "--skip-response")
    report = json.loads(done.stdout)
    found = {check["name"]: check["status"] for check in report["checks"]}
    assert done.returncode == 1 and report["ok"] is False
    assert [*report] == ["ok", "summary", "checks", "next_steps"]
    assert found == {
        "config": "pass", "environment": "pass", "data_dir": "pass", "disk": found["disk"], "port": "pass",
        "database": "pass", "workers": "skip", "relay_token": "fail", "books": "pass", "upstream_auth": "skip",
        "plan_sign_ins": "skip", "clock": "skip",
        "response": "skip",
    }  # fmt: skip
    step = report["next_steps"][0]
    assert step.startswith("Create one: ") and step.endswith(" token create 'My token'")
    keys = [path.read_text().strip() for path in (tmp_path / ".airelays" / "keys").iterdir()]
    assert keys and not any(key in done.stdout + done.stderr for key in keys)
    assert str(tmp_path) not in done.stdout
    assert shell(tmp_path, "--skip-response", AIRELAYS_REQUIRE_BEARER_AUTH="false").returncode == 0


def test_people_read_a_summary_the_checks_and_next_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {
        "ok": True,
        "summary": {"passed": 1, "warnings": 1, "failed": 0, "skipped": 0},
        "checks": [
            {"name": "port", "status": "pass", "message": "It is free."},
            {"name": "clock", "status": "warn", "message": "It is late.", "next_steps": ["Set it."]},
        ],
        "next_steps": ["Set it."],
    }
    monkeypatch.setattr(reports, "_without_settings", lambda: report)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0
    words = (
        "Doctor",
        "Summary",
        "  Passed:         1",
        "Checks",
        "pass  port: It is free.",
        "Next Steps",
        "  1. Set it.",
    )
    assert [done.output.index(word) for word in words] == sorted(done.output.index(word) for word in words)
