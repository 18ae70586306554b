"""`make run` on a machine that lacks something."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT, free_port


def old_python(tmp_path: Path, version: str, has_venv: bool) -> dict[str, str]:
    """Runs the bootstrap as if the interpreter were another one: sitecustomize changes what it sees."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.version_info = type('V', (tuple,), {{'__new__': tuple.__new__}})(({version}, 0, 'final', "
        "0))\n" + ("" if has_venv else "sys.modules['ensurepip'] = None\n")
    )
    return {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PATH": "/nonexistent",
        "AIRELAYS_PORT": str(free_port()),
        "AIRELAYS_DATA_DIR": str(tmp_path / "d"),
    }


def copy_of_bootstrap(tmp_path: Path) -> Path:
    """In a folder without an environment, as after a clone."""
    target = tmp_path / "clone" / "portal" / "serving"
    target.mkdir(parents=True)
    (target / "bootstrap.py").write_bytes((ROOT / "portal" / "serving" / "bootstrap.py").read_bytes())
    return target / "bootstrap.py"


def test_too_old_python_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(copy_of_bootstrap(tmp_path)), "run"],
        env=old_python(tmp_path, "3, 9", True),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        done.returncode == 1
        and "Python 3.11 or newer is needed" in done.stderr
        and len(done.stderr.strip().splitlines()) == 1
    )
    assert not (tmp_path / "clone" / ".venv").exists()


def test_debian_without_venv_is_told(tmp_path: Path) -> None:
    env = old_python(tmp_path, "3, 11", False)
    done = subprocess.run(
        [sys.executable, str(copy_of_bootstrap(tmp_path)), "run"], env=env, capture_output=True, text=True, timeout=60
    )
    assert (
        done.returncode == 1
        and "apt install python3.11-venv" in done.stderr
        and len(done.stderr.strip().splitlines()) == 1
    )
    assert not (tmp_path / "clone" / ".venv").exists()


def test_failed_installation_leaves_nothing_behind(tmp_path: Path) -> None:
    bootstrap = copy_of_bootstrap(tmp_path)
    (tmp_path / "clone" / "requirements.txt").write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    env = {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "AIRELAYS_PORT": str(free_port()),
        "AIRELAYS_DATA_DIR": str(tmp_path / "d"),
    }
    done = subprocess.run([sys.executable, str(bootstrap), "run"], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "the installation failed" in done.stderr
    assert not (tmp_path / "clone" / ".venv").exists()


def test_the_command_is_written_into_the_environment_wherever_that_is(tmp_path: Path) -> None:
    bootstrap = copy_of_bootstrap(tmp_path / "my $portal's `folder`")
    root = bootstrap.parents[2]
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (root / "portal" / "cli").mkdir()
    (root / "portal" / "cli" / "main.py").write_text("import sys\n\n\ndef main():\n    print(sys.argv[1:])\n")
    for _ in range(2):
        runpy.run_path(str(bootstrap))["write_command"]()
    done = subprocess.run(
        [root / ".venv" / "bin" / "airelays", "token", "a b"], cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "['token', 'a b']\n", done.stderr


def test_a_port_that_a_file_may_change_is_not_looked_at_before_the_file_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = runpy.run_path(str(copy_of_bootstrap(tmp_path)))["check_port"]
    for name in [name for name in os.environ if name.startswith("AIRELAY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("AIRELAYS_PORT", port)
        with pytest.raises(SystemExit):
            check()
    (tmp_path / ".config" / "airelays").mkdir(parents=True)
    (tmp_path / ".config" / "airelays" / "config.toml").write_text("port = 9000\n")
    monkeypatch.delenv("AIRELAYS_PORT")
    assert runpy.run_path(str(tmp_path / "clone" / "portal" / "serving" / "bootstrap.py"))["has_settings_file"]()
    check()
