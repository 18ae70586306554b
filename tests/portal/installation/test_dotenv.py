"""`.env` files: which are read, what of them, and what they stand behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal import config
from portal.installation.sources import ConfigError
from tests.support.server import ROOT


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The working folder and the data folder."""
    made = tmp_path / "work", tmp_path / "data"
    for place in made:
        place.mkdir()
    return made


def test_the_order_of_what_names_a_setting(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / "config.toml").write_text("port = 7001\nworkers = 2\nmax_attempts = 5\n[server]\nhost = '127.0.0.5'\n")
    (data / ".env").write_text("AIRELAYS_PORT=7002\nAIRELAYS_WORKERS=3\nAIRELAY_HOST=127.0.0.4\n")
    (work / ".env").write_text("AIRELAYS_PORT=7003\nOPENAI_ENDPOINT_HOST=127.0.0.3\n")
    env = {"AIRELAYS_CONFIG": str(work / "config.toml"), "AIRELAYS_DATA_DIR": str(data)}
    found = config.load({}, env, work)
    assert (found.port, found.workers, found.max_attempts, found.host) == (7003, 3, 5, "127.0.0.3")
    assert config.load({}, {**env, "OPENAI_ENDPOINT_PORT": "7004"}, work).port == 7004
    assert config.load({}, {**env, "AIRELAYS_PORT": " "}, work).port == 7003, "an empty variable is none"
    assert config.load({"port": 7005}, {**env, "AIRELAYS_PORT": "7004"}, work).port == 7005
    assert found.files == [work / ".env", work / "config.toml", data / ".env"]


def test_what_one_names_is_found_and_the_other_names_nothing(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / "config.toml").write_text("max_attempts = 5\n")
    (work / ".env").write_text(f"AIRELAYS_DATA_DIR='{data}'\nexport AIRELAYS_CONFIG=\"{work}/config.toml\"  # ours\n")
    (data / ".env").write_text("AIRELAYS_DATA_DIR=/elsewhere\nAIRELAYS_CONFIG=/nonexistent\nAIRELAYS_MAX_ATTEMPTS=6\n")
    found = config.load({}, {}, work)
    assert (found.data_dir, found.max_attempts) == (data, 6)
    assert sorted(str(notice).partition(" has no effect in ")[0] for notice in found.notices) == [
        "AIRELAYS_CONFIG",
        "AIRELAYS_DATA_DIR",
    ]


def test_nothing_else_of_it_is_read_or_gets_into_the_environment(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").write_text(
        "OPENAI_API_KEY=sk-of-another-program\nPATH=/nowhere\nAIRELAYS_API_KEY=sk-of-a-client\n"
        "AIRELAYS_PUBLIC_URL=https://${HOME}.example.org\nbroken line\n"
    )
    before = dict(os.environ)
    with pytest.raises(ConfigError, match=r"AIRELAYS_PUBLIC_URL in .*\.env"):
        config.load({}, {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}, work)
    assert dict(os.environ) == before


def test_a_file_that_somebody_else_can_write_is_left_alone(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").write_text("AIRELAYS_PORT=7003\n")
    (work / ".env").chmod(0o666)
    found = config.load({}, {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}, work)
    assert found.port == 8080 and found.files == []
    assert [str(notice) for notice in found.notices] == [f"{work / '.env'} is not read: another user can write it."]


def test_a_folder_of_this_name_is_no_file(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").mkdir()
    (data / ".env").symlink_to(data / "gone")
    assert config.load({}, {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}, work).port == 8080


def test_old_settings_in_it_count_as_those_of_the_environment(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").write_text("AIRELAY_REQUEST_TIMEOUT_SECONDS=9\nAIRELAYS_TRUST_X_FORWARDED_FOR=perhaps\n")
    env = {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}
    with pytest.raises(ConfigError, match="trust_x_forwarded_for"):
        config.load({}, env, work)
    found = config.load({}, {**env, "AIRELAY_TRUST_X_FORWARDED_FOR": "no"}, work)
    assert (found.idle_timeout, found.trusted_proxies) == (9, [])


def test_the_working_folder_is_that_of_the_command(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").write_text("AIRELAYS_PORT=eighty\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRELAYS_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "check"],
        cwd=work,
        env={**env, "AIRELAYS_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"airelays: AIRELAYS_PORT in {work / '.env'} ('eighty'): ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("mark", [".git", ".hg", ".svn", ".jj"])
@pytest.mark.parametrize("below", ["", "deep/inside"])
def test_one_in_a_checkout_of_another_project_is_not_read_unless_it_is_named(
    places: tuple[Path, Path], mark: str, below: str
) -> None:
    """Whoever clones a project has not read its `.env`, which could send keys and requests anywhere."""
    work, data = places
    folder = work / below
    folder.mkdir(parents=True, exist_ok=True)
    (work / mark).touch()  # a file, as in worktrees and submodules
    (folder / ".env").write_text("AIRELAYS_UPSTREAM_BASE_URL=https://evil.example\nAIRELAYS_PORT=7003\n")
    env = {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}
    found = config.load({}, env, folder)
    assert (found.port, found.upstream_base_url, found.files) == (8080, "", [])
    (notice,) = map(str, found.notices)
    assert str(folder / ".env") in notice and str(work) in notice and "--env-file" in notice
    named = config.load({}, {**env, "AIRELAYS_ENV_FILE": str(folder / ".env")}, folder)
    assert (named.port, named.notices) == (7003, []) and named.files == [folder / ".env"]


def test_what_no_setting_is_in_or_nobody_can_read_is_not_told_there(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".git").mkdir()
    env = {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": ""}
    for content in (b"DATABASE_URL=x\n", b"\xff\xfe"):
        (work / ".env").write_bytes(content)
        assert config.load({}, env, work).notices == []


def test_the_portals_own_checkout_is_none_of_another_project() -> None:
    from portal.installation.sources import _checkout_of

    assert _checkout_of(ROOT) is None and _checkout_of(ROOT / "docs") is None


def test_a_file_that_is_named_stands_in_the_place_of_the_folders(places: tuple[Path, Path]) -> None:
    work, data = places
    (work / ".env").write_text("AIRELAYS_PORT=7003\nAIRELAYS_WORKERS=2\n")
    (work / "own").write_text("AIRELAYS_PORT=7004\nAIRELAYS_ENV_FILE=/nonexistent\n")
    (data / ".env").write_text("AIRELAYS_PORT=7005\nAIRELAYS_MAX_ATTEMPTS=6\n")
    env = {"AIRELAYS_DATA_DIR": str(data), "AIRELAYS_CONFIG": "", "AIRELAYS_ENV_FILE": str(work / "own")}
    found = config.load({}, env, work)
    assert (found.port, found.workers, found.max_attempts) == (7004, 1, 6)
    for missing in (work / "gone", work):
        with pytest.raises(ConfigError, match="there is no file"):
            config.load({}, {**env, "AIRELAYS_ENV_FILE": str(missing)}, work)
    (work / "own").chmod(0o666)
    assert config.load({}, env, work).port == 7005
