"""What `airelays doctor` and the admin's page find, subject by subject."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portal import config
from portal.doctor import clock, configuration, data_folder, database, port, records, response, run, upstreams
from portal.doctor.report import Check, Report
from portal.lib import clock as clocks
from tests.support.load.targets import started
from tests.support.portal import Portal
from tests.support.server import Server, free_port
from tests.support.sessions import with_config
from tests.support.upstream import Call, Script, Upstream, hello


def settings_of(**env: str) -> config.Config:
    return config.load({}, {"AIRELAYS_CONFIG": "", **{f"AIRELAYS_{name}": value for name, value in env.items()}})


def only(checks: Iterator[Check]) -> Check:
    (found,) = checks
    return found


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of a test may be busy."""
    for name in ("PHASE_SECONDS", "ANSWER_SECONDS", "ALL_SECONDS"):
        monkeypatch.setattr(upstreams, name, 60.0)
    monkeypatch.setattr(port, "_SECONDS", 30.0)


# -- settings, data folder, port -------------------------------------------------------------------------------------


def test_settings_without_effect_are_a_warning_that_names_them() -> None:
    check = only(configuration.environment(settings_of(HOSST="x", CLAUDE_BIN="/x")))
    assert check.status == "warn" and "AIRELAYS_HOST" in check.message and check.data["names"] == ["AIRELAYS_HOSST"]
    assert only(configuration.environment(settings_of())).status == "pass"


def test_a_configuration_file_with_secrets_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("AIRELAYS_CONFIG", str(path))

    def result() -> Check:
        return next(configuration.configuration(config.load({}, {"AIRELAYS_CONFIG": str(path)})))

    path.write_text('[server]\nport = 9000\nemail_password = "hunter2"\n')
    path.chmod(0o644)
    check = result()
    assert check.status == "warn" and check.next_steps == (f"Run: chmod 600 {path}",) and "hunter2" not in str(check)
    path.chmod(0o600)
    assert result().status == "pass"
    path.write_text("[server]\nport = 9000\n")
    path.chmod(0o644)
    assert result().status == "pass", "a port is no secret"
    path.write_text('public_url = "https://ai.example.org"\n# email_password = "none"\n')
    assert result().status == "pass"


def test_a_dotenv_file_with_secrets_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("AIRELAYS_PORT=9000\nexport AIRELAYS_DATABASE_URL=postgresql://a:hunter2@db/a\n")
    path.chmod(0o644)
    found = config.load({}, {"AIRELAYS_CONFIG": ""}, tmp_path)
    assert path in found.files
    check = next(configuration.configuration(found))
    assert check.status == "warn" and "hunter2" not in str(check)


def test_the_portals_own_checks_are_among_the_results(settings: Any) -> None:
    with_config(settings, require_bearer_auth=False, open_relay_on_network=True)
    found = [check for check in configuration.configuration(settings.CONFIG) if check.status == "warn"]
    assert [check.data["id"] for check in found] == ["portal.W011"]


def test_a_data_folder_that_others_may_read(tmp_path: Path, settings: Any) -> None:
    folder = tmp_path / "data"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "token_key").write_text("x")
    settings.DATA_DIR = folder
    wanted = settings_of(DATA_DIR=str(folder))
    for path, mode in ((folder, 0o700), (folder / "keys", 0o700), (folder / "keys" / "token_key", 0o600)):
        path.chmod(mode)
    found = list(data_folder.data_folder(wanted))
    assert [(check.name, check.status) for check in found] == [("data_dir", "pass"), ("disk", "pass")]
    (folder / "keys" / "token_key").chmod(0o644)
    check = next(data_folder.data_folder(wanted))
    assert check.status == "fail" and check.next_steps == (f"Run: chmod 600 {folder}/keys/token_key",)
    (folder / "keys" / "token_key").chmod(0o600)
    folder.chmod(0o755)
    assert next(data_folder.data_folder(wanted)).status == "warn"


@pytest.mark.parametrize(
    ("free", "files", "status"),
    [(1 << 40, 10**9, "pass"), (1 << 29, 10**9, "warn"), (1 << 20, 10**9, "fail"), (1 << 40, 3, "fail")],
)
def test_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, files: int, status: str
) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=10**9, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda place: disk)
    found = {check.name: check.status for check in data_folder.data_folder(settings_of(DATA_DIR=str(tmp_path)))}
    assert found["disk"] == status
    monkeypatch.setattr(
        os, "statvfs", lambda place: SimpleNamespace(f_bavail=1 << 40, f_frsize=1, f_files=0, f_favail=0)
    )
    found = {check.name: check.status for check in data_folder.data_folder(settings_of(DATA_DIR=str(tmp_path)))}
    assert found["disk"] == "pass", "btrfs has no fixed number of files"


def test_a_port_that_is_free_and_one_that_another_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number = listener.getsockname()[1]
        listener.listen()
        monkeypatch.setattr(port, "_SECONDS", 0.2)  # it says nothing
        check = only(port.port(settings_of(PORT=str(number))))
        assert check.status == "fail" and f"(process {os.getpid()})" in check.message
        assert "AIRELAYS_PORT" in check.next_steps[-1]
    assert only(port.port(settings_of(PORT=str(number)))).status == "pass"


def test_a_port_that_this_portal_has_is_asked_how_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = settings_of(PORT=str(server.port))
    check = only(port.port(wanted))
    assert check.status == "pass" and "serves requests" in check.message
    monkeypatch.setattr(port, "__version__", "99")
    check = only(port.port(wanted))
    assert check.status == "warn" and check.next_steps == ("Restart the portal.",)


def test_an_address_that_is_not_this_machines() -> None:
    assert only(port.port(settings_of(HOST="203.0.113.9", PORT="23456"))).status == "fail"


# -- database, books, tokens, clock ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_database_is_reached_migrated_and_whole(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = only(database.database(settings.CONFIG))
    assert (check.status, check.data["integrity"]) in {("pass", "ok"), ("pass", "not checked")}
    monkeypatch.setattr(database, "missing_migrations", lambda: 3)
    check = only(database.database(settings.CONFIG))
    assert check.status == "fail" and "3 migrations" in check.message


def test_redis_that_is_away(settings: Any) -> None:
    assert list(database.shared_state(settings_of())) == []
    check = only(database.shared_state(settings_of(REDIS_URL="redis://user:hunter2@127.0.0.1:1/0")))
    assert check.status == "fail" and "hunter2" not in str(check)


@pytest.mark.parametrize(
    ("size", "policy", "status"),
    [("0", "allkeys-lru", "pass"), ("100mb", "noeviction", "pass"), ("100mb", "allkeys-lru", "warn")],
)
def test_redis_that_drops_what_it_holds(tmp_path: Path, size: str, policy: str, status: str) -> None:
    program, port = shutil.which("redis-server"), free_port()
    if program is None:
        pytest.skip("no redis-server here; “make services” installs it")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    command += ["--maxmemory", size, "--maxmemory-policy", policy]
    with started(command, port, tmp_path / "log"):
        check = only(database.shared_state(settings_of(REDIS_URL=f"redis://127.0.0.1:{port}/0")))
    assert check.status == status and check.data["maxmemory_policy"] == policy


@pytest.mark.django_db
def test_books_that_do_not_balance(live_free: Portal, settings: Any) -> None:
    from relay.models import BooksProof, LedgerAccount

    user = live_free.user(balance=5_000_000_000)
    assert only(records.books(settings.CONFIG)).status == "pass"
    LedgerAccount.objects.filter(user=user, kind="wallet").update(granted=7)
    check = only(records.books(settings.CONFIG))
    assert check.status == "fail" and check.data["differing"] == 1 and "$" not in check.message
    BooksProof.objects.create(finished_at=clocks.now(), differing=2)


@pytest.mark.django_db
def test_large_books_are_not_read_but_their_last_proof_is_told(
    live_free: Portal, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.models import BooksProof

    live_free.user(balance=5_000_000_000)
    monkeypatch.setattr(records, "_READ_AT_ONCE", 0)
    assert only(records.books(settings.CONFIG)).status == "warn"
    BooksProof.objects.create(finished_at=clocks.now())
    assert only(records.books(settings.CONFIG)).status == "pass"
    BooksProof.objects.create(finished_at=clocks.now(), differing=2)
    assert only(records.books(settings.CONFIG)).status == "fail"


@pytest.mark.django_db
def test_a_token_that_clients_can_use(live_free: Portal, settings: Any) -> None:
    assert only(records.tokens(settings.CONFIG)).status == "fail"
    user = live_free.user()
    live_free.token(user, expires_at=clocks.now() - timedelta(days=1))
    assert "expired" in only(records.tokens(settings.CONFIG)).message
    live_free.token(user)
    assert only(records.tokens(settings.CONFIG)).status == "pass"
    user.is_active = False
    user.save()
    assert only(records.tokens(settings.CONFIG)).status == "fail"
    with_config(settings, require_bearer_auth=False)
    assert only(records.tokens(settings.CONFIG)).status == "skip"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("skews", "status"),
    [([], "skip"), ([0.4, -1.0], "pass"), ([-100.0], "warn"), ([3600.0], "fail"), ([9e5, 0, 0], "pass")],
)
def test_the_clock_against_those_of_upstreams(skews: list[float], status: str) -> None:
    assert only(clock.clock(clock.Beginning(), skews)).status == status


@pytest.mark.django_db
def test_a_clock_that_is_set_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    beginning, now = clock.Beginning(), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    check = only(clock.clock(beginning, [0.0]))
    assert check.status == "warn" and "+3600" in check.message


# -- channels --------------------------------------------------------------------------------------------------------


@pytest.fixture
def live_free(upstream: Upstream, db: None) -> Portal:
    """Makes what tests need in a database that is rolled back."""
    return Portal(upstream)


def checked(settings: Any) -> tuple[dict[str, Check], upstreams.Found]:
    found, told = upstreams.Found(), list[str]()
    checks = {check.name: check for check in upstreams.upstreams(settings.CONFIG, found, told.append)}
    return checks, found


@pytest.fixture
def silent_script(upstream: Upstream) -> Iterator[Any]:
    """Sets what the upstream does with requests that name no model, such as for its list."""

    def choose(script: Script) -> None:
        upstream.scripts[""] = script

    yield choose
    upstream.scripts.pop("", None)


def test_each_phase_of_the_way_is_measured(live_free: Portal, settings: Any, silent_script: Any) -> None:
    async def early(call: Call) -> None:
        await call.reply(200, {"data": []}, {"date": formatdate(time.time() - 3600, usegmt=True)})

    silent_script(early)
    channel = live_free.channel(live_free.upstream.base_url.replace("127.0.0.1", "localhost"))
    live_free.model(channels=[channel])
    checks, found = checked(settings)
    check = checks[f"channel:{channel.pk}"]
    assert check.status == "pass" and channel.name in check.message
    assert {"name_ms", "tcp_ms", "http_ms"} <= {name for name, value in check.data.items() if value is not None}
    assert check.data["tls_ms"] is None and check.data["status"] == 200
    assert "sk-" not in str(check) and "127.0.0.1" not in str(check.data)
    assert len(found.skews) == 1 and -3660 < found.skews[0] < -3540
    assert [one.pk for one in found.working] == [channel.pk]


@pytest.mark.parametrize(
    ("url", "phase", "step"),
    [
        ("http://127.0.0.1:1/v1", "tcp", "firewall"),
        ("http://nowhere.invalid/v1", "name", "name server"),
        ("https://127.0.0.1:{port}/v1", "tls", "CA_FILE"),
    ],
)
def test_the_phase_that_fails_is_named_with_what_to_do(
    live_free: Portal,
    settings: Any,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    phase: str,
    step: str,
) -> None:
    monkeypatch.setattr(upstreams, "PHASE_SECONDS", 3.0)  # what speaks no TLS waits for the rest of a request
    channel = live_free.channel(url.format(port=upstream.port))
    live_free.model(channels=[channel])
    checks, found = checked(settings)
    check = checks[f"channel:{channel.pk}"]
    assert (check.status, check.data["failed"]) == ("fail", phase)
    assert step in check.next_steps[0] and found.working == []


def test_a_key_that_is_refused_fails_its_own_channel_only(live_free: Portal, settings: Any, silent_script: Any) -> None:
    async def refuse(call: Call) -> None:
        await call.error(401, "Incorrect API key provided: sk-upstream-secret-0123456789", "invalid_api_key")

    silent_script(refuse)
    first, second = live_free.channel(priority=2), live_free.channel()
    for channel in (first, second):
        live_free.model(channels=[channel])
    checks, _found = checked(settings)
    check = checks[f"channel:{first.pk}"]
    assert check.status == "fail" and "key" in check.next_steps[0] and "0123456789" not in str(check)
    assert checks[f"channel:{second.pk}"].status == "pass", "its key was not asked about"


def test_a_channel_that_may_not_be_used_is_not_reached(live_free: Portal, settings: Any, upstream: Upstream) -> None:
    forbidden = live_free.channel("http://10.1.2.3/v1")
    keyless = live_free.channel(keys=())
    for channel in (forbidden, keyless):
        live_free.model(channels=[channel])
    calls = len(upstream.calls)
    checks, _found = checked(settings)
    assert checks["upstream_auth"].status == "fail" and len(upstream.calls) == calls
    assert {checks[f"channel:{one.pk}"].status for one in (forbidden, keyless)} == {"fail"}


def test_a_plan_of_one_person_is_counted_and_not_reached(live_free: Portal, settings: Any, upstream: Upstream) -> None:
    from relay.models import ChatGPTAccount

    assert only(records.plans(settings.CONFIG)).status == "skip"
    user, channel = live_free.user(), live_free.channel(keys=())
    live_free.model(channels=[channel])
    ChatGPTAccount.objects.create(user=user, channel=channel, state="signed_in", email="alice@example.org")
    calls = len(upstream.calls)
    checks, found = checked(settings)
    assert found.working == [] and len(upstream.calls) == calls and f"channel:{channel.pk}" not in checks
    assert only(records.plans(settings.CONFIG)).status == "pass"
    ChatGPTAccount.objects.update(state="expired")
    check = only(records.plans(settings.CONFIG))
    assert check.status == "warn" and "alice" not in str(check)


def test_many_channels_of_one_upstream_are_measured_once(live_free: Portal, settings: Any, upstream: Upstream) -> None:
    from relay.models import ApiKey, Channel, ChannelModel, Model

    model = Model.objects.get(name=live_free.model(channels=[]))
    made = Channel.objects.bulk_create(
        Channel(name=f"many {number}", provider="openai", base_url=upstream.base_url) for number in range(300)
    )
    ChannelModel.objects.bulk_create(ChannelModel(channel=channel, model=model) for channel in made)
    keys = []
    for channel in made:
        key = ApiKey(channel=channel)
        key.set_secret("sk-0123456789abcdef")
        keys.append(key)
    ApiKey.objects.bulk_create(keys)
    calls = len(upstream.calls)
    checks, found = checked(settings)
    assert len(upstream.calls) == calls + 1
    assert checks["channels"].data["channels"] == 100 and len(found.working) == 300
    assert sum(name.startswith("channel:") for name in checks) == 200


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (200, 200), (201, 201), (10_000, 201)])
def test_very_many_faults_are_counted_after_the_first(count: int, listed: int) -> None:
    bad = [Check("channel", "fail" if number == count - 1 else "warn", "x") for number in range(count)]
    found = list(upstreams._summed_bad(bad))
    assert len(found) == listed
    if count > 200:
        assert found[-1].status == "fail" and found[-1].data["channels"] == count - 200


def test_the_time_for_all_upstreams_is_limited(
    live_free: Portal, settings: Any, silent_script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(call: Call) -> None:
        await call.closed_event()

    silent_script(silence)
    channel = live_free.channel()
    live_free.model(channels=[channel])
    monkeypatch.setattr(upstreams, "ALL_SECONDS", 0.3)
    checks, _found = checked(settings)
    assert checks[f"channel:{channel.pk}"].status == "warn"
    monkeypatch.setattr(upstreams, "ALL_SECONDS", 60.0)
    monkeypatch.setattr(upstreams, "ANSWER_SECONDS", 0.1)
    checks, _found = checked(settings)
    assert checks[f"channel:{channel.pk}"].data["failed"] == "http"


# -- one request, the whole ------------------------------------------------------------------------------------------


def test_one_small_request_says_what_it_costs(live_free: Portal) -> None:
    from relay.models import Model, ModelPrice

    channel = live_free.channel()
    name = live_free.model(hello, channels=[channel], price={"input": 1, "output": 2})
    check = only(response.response([channel], True, True))
    assert check.status == "pass" and check.data["cost_usd"] == "0.000023" and "$0.000023" in check.message
    model = Model.objects.get(name=name)
    ModelPrice.objects.create(model=model, channel=channel, purpose="cost", input=10, output=20)
    assert only(response.response([channel], True, True)).data["cost_usd"] == "0.00023"
    assert only(response.response([channel], True, False)).data["cost_usd"] == "0.000023", (
        "what upstreams charge is not told"
    )
    calls = live_free.upstream.count(name)
    assert only(response.response([channel], False, True)).status == "skip"
    assert live_free.upstream.count(name) == calls


def test_a_request_that_fails(live_free: Portal) -> None:
    async def broken(call: Call) -> None:
        await call.error(500)

    channel = live_free.channel()
    live_free.model(broken, channels=[channel])
    check = only(response.response([channel], True, True))
    assert check.status == "fail" and check.next_steps
    assert only(response.response([], True, True)).status == "skip"


def test_a_new_portal_with_the_demo_is_green(db: None, settings: Any, tmp_path: Path) -> None:
    from portal.serving.first_run import first_run

    first = first_run()
    assert first is not None
    with_config(settings, port=1, data_dir=settings.CONFIG.data_dir)
    told: list[tuple[str, int]] = []
    report = run.run(settings.CONFIG, run.Wish(), lambda stage, done: told.append((stage, done)))
    found = {check.name: check.status for check in report.checks}
    assert found.pop("port") in {"pass", "fail"}, "whoever runs the tests may be allowed to listen there"
    assert set(found.values()) <= {"pass", "skip"}, report.as_json()
    assert found["response"] == "pass" and found["relay_token"] == "pass"
    assert told[-1][1] == len(report.checks) - 1 or told[-1][1] == len(report.checks)
    text = str(report.as_json())
    assert first.token not in text and first.password not in text
    assert [*report.as_json()] == ["ok", "summary", "checks", "next_steps"]
    assert [*report.as_json()["summary"]] == ["passed", "warnings", "failed", "skipped"]


def test_a_check_that_breaks_hides_no_other(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: object) -> Iterator[Check]:
        raise RuntimeError("oops with sk-0123456789abcdefghij")

    monkeypatch.setattr(data_folder, "data_folder", broken)
    report = run.run(settings.CONFIG, run.Wish(response=False))
    found = {check.name: check for check in report.checks}
    assert found["data_dir"].status == "fail" and "0123456789" not in found["data_dir"].message
    assert found["books"].status == "pass"


def test_a_report_for_support_has_no_name_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    check = Check("data_dir", "warn", "/home/alice/.airelays is open", ("Run: chmod 700 /home/alice/.airelays",))
    found = Report([check, Check("x", "pass", "fine")]).as_json()
    assert "alice" not in str(found) and found["ok"] and found["summary"]["warnings"] == 1
    assert found["next_steps"] == ["Run: chmod 700 ~/.airelays"]
    assert found["checks"][1] == {"name": "x", "status": "pass", "message": "fine"}
