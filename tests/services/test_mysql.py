"""MySQL and MariaDB: what their addresses may say, waits that end, and texts that are compared by their bytes."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connection,
    transaction,
)

from accounts.models import User
from accounts.transactions import patient_read
from portal.management.command_line import unhurried
from portal.services.database_errors import fault_of
from portal.services.databases import check_database_url, from_url
from portal.services.mysql.driver import BoundedConnection, tls_context
from portal.services.timeouts import statement_timeout
from relay.models import Model
from tests.services.stalled import Stalled, stalled
from tests.support.environment import DATABASE_URL, IS_MARIADB, OwnDatabase
from tests.support.portal import Portal

pytestmark = pytest.mark.shared
needs_mariadb = pytest.mark.skipif(not IS_MARIADB, reason="asks MariaDB")
URL = "mysql://airelays:secret@db.example.com:3307/airelays"


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql2"])
def test_an_address_is_all_that_it_takes(scheme: str) -> None:
    url = URL.replace("mysql:", f"{scheme}:")
    assert check_database_url(url) == url
    found = from_url(url, 4)
    assert found["ENGINE"] == "portal.services.mysql" and (found["PORT"], found["NAME"]) == (3307, "airelays")
    assert found["OPTIONS"]["charset"] == "utf8mb4" and found["OPTIONS"]["isolation_level"] == "read committed"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("charset=latin1", "charset=utf8mb4"),
        ("charset=utf8", "charset=utf8mb4"),
        ("init_command=DROP", "no option init_command"),
        ("ssl-mode=sometimes", "ssl-mode as one of DISABLED, PREFERRED"),
        ("ssl-ca=/no/such/file.pem", "ssl-ca names no file"),
        ("connect_timeout=0", "whole seconds"),
        ("connect_timeout=soon", "whole seconds"),
        ("connect_timeout=true", "whole seconds"),
    ],
)
def test_options_of_an_address_that_are_refused(options: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        check_database_url(f"{URL}?{options}")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_options_of_tls(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text(Path(importlib.import_module("certifi").where()).read_text())
    read = {
        f"ssl-ca={authorities}": "VERIFY_CA",
        f"ssl_ca={authorities}&ssl-mode=verify_identity": "VERIFY_IDENTITY",
        "ssl_mode=REQUIRED": "REQUIRED",
        "charset=UTF8MB4": "PREFERRED",
    }
    for options, mode in read.items():
        assert from_url(f"{URL}?{options}", 4)["OPTIONS"]["ssl_mode"] == mode
    # The driver alone compares no names without a file of authorities.
    strict = tls_context("VERIFY_IDENTITY", "", "", "")
    assert strict.check_hostname and strict.verify_mode is ssl.CERT_REQUIRED
    assert tls_context("VERIFY_CA", str(authorities), "", "").verify_mode is ssl.CERT_REQUIRED
    assert tls_context("REQUIRED", "", "", "").verify_mode is ssl.CERT_NONE


def test_what_the_driver_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    base: Any = importlib.import_module("portal.services.mysql.base")

    def params(url: str) -> dict[str, Any]:
        settings = from_url(url, 4) | {"TIME_ZONE": None, "AUTOCOMMIT": True}
        found: dict[str, Any] = base.DatabaseWrapper(settings).get_connection_params()
        return found

    assert params(URL.replace("secret", "p%C3%A4ss%F0%9F%94%91"))["password"] == "päss🔑".encode()
    assert params(f"{URL}?ssl-mode=DISABLED")["ssl_disabled"] is True
    assert params(f"{URL}?ssl-mode=REQUIRED")["ssl"] is tls_context("REQUIRED", "", "", "")
    tls_context("PREFERRED", "", "", "")
    monkeypatch.setattr(ssl, "create_default_context", None)  # reads the certificates of the world, in 20 ms
    assert BoundedConnection(**params(URL), defer_connect=True).ctx is tls_context("PREFERRED", "", "", "")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OperationalError(2003, "Can't connect to MySQL server on 'db' ([Errno 111] Connection refused)"), "Start it"),
        (OperationalError(1045, "Access denied for user 'u'@'h' (using password: YES)"), "user and password"),
        (OperationalError(1049, "Unknown database 'nope'"), "CREATE DATABASE"),
        (OperationalError(1044, "Access denied for user 'u'@'%' to database 'two'"), "GRANT"),
        (OperationalError(1040, "Too many connections"), "max_connections"),
        (OperationalError(2026, "SSL is required but the server doesn't support it"), "TLS"),
        (NotSupportedError("MariaDB 10.6 or later is required (found 10.3.39)."), "Upgrade"),
        (OperationalError("unable to open database file"), "Check that it runs"),
    ],
)
def test_every_fault_has_its_remedy(error: DatabaseError, remedy: str) -> None:
    fault = fault_of(error)
    assert remedy in fault.remedy and not fault.reason.endswith(".")
    assert "Errno" not in fault.reason and not fault.reason.startswith("(")


def test_a_server_that_accepts_and_says_nothing() -> None:
    with stalled() as server, pytest.raises(pymysql.OperationalError, match="timed out"):
        BoundedConnection(host="127.0.0.1", port=server.port, connect_timeout=1)


@pytest.fixture
def behind() -> Iterator[tuple[Stalled, dict[str, Any]]]:
    """A way to the suite's server that can be frozen, and how to connect through it."""
    parts = urlsplit(DATABASE_URL)
    with stalled((parts.hostname or "", parts.port or 3306)) as way:
        yield way, {"host": "127.0.0.1", "port": way.port, "user": parts.username, "ssl_disabled": True}


@needs_mariadb
def test_a_server_that_stops_in_the_middle(behind: tuple[Stalled, dict[str, Any]]) -> None:
    way, address = behind
    database = BoundedConnection(**address)
    with statement_timeout(0.2):
        database.query("SELECT 1")
        way.freeze()
        with pytest.raises(pymysql.OperationalError, match="timed out"):
            database.query("SELECT 1")
    assert not database.open, "an old answer may still come on it"
    way.thaw()
    BoundedConnection(**address).close()


@needs_mariadb
def test_a_statement_that_is_too_large_is_refused_and_breaks_nothing_off(live: Portal) -> None:
    """The server would end the connection, as if it were away, and what writes records would try for ever."""
    user = live.user()
    with pytest.raises(DatabaseError, match="more than max_allowed_packet"):
        User.objects.filter(pk=user.pk).update(notes="x" * 17_000_000)
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(notes="y" * 12_000_000)
        with pytest.raises(DataError), transaction.atomic():
            User.objects.filter(pk=user.pk).update(notes="'" * 12_000_000)
    user.refresh_from_db()
    assert user.notes == "y" * 12_000_000


def _variable(name: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT @@{name}")
        return cursor.fetchone()[0]


@needs_mariadb
def test_a_command_may_take_its_time_and_what_serves_may_not(live: Portal) -> None:
    names = ("innodb_lock_wait_timeout", "lock_wait_timeout", "max_statement_time", "idle_transaction_timeout")
    usual = [10, 10, 30.0, 60]
    assert [_variable(name) for name in names] == usual
    with unhurried():
        assert [_variable(name) for name in names] == [3600] * 4 and _variable("wait_timeout") == 3600
        with patient_read():  # beside a copy that takes longer
            assert _variable("idle_transaction_timeout") == 0 and _variable("wait_timeout") > 86_400
    assert [_variable(name) for name in names] == usual


def test_texts_are_the_same_only_where_their_bytes_are(db: None) -> None:
    """Names of models, and everything else that is unique; as in SQLite and PostgreSQL."""
    names = ["gpt-4o", "GPT-4o", "gpt-4ö", "gpt-4o ", "gpt-4\U0001f600", "gpt-4\U0001f601"]
    for name in names:
        Model.objects.create(name=name)
    for name in names:
        assert Model.objects.get(name=name).name == name
    with pytest.raises(IntegrityError), transaction.atomic():
        Model.objects.create(name="gpt-4o")
    assert set(Model.objects.filter(name__in=["GPT-4O", "gpt-4o"]).values_list("name", flat=True)) == {"gpt-4o"}
    assert Model.objects.filter(name__icontains="PT-4O").count() == 3
    assert Model.objects.filter(name__istartswith="GPT-4").count() == len(names)
    assert Model.objects.filter(name__iexact="gPT-4O").count() == 2
    assert not Model.objects.filter(name__icontains="g_t").exists() and not Model.objects.filter(name__iexact="%")
    user = User.objects.create_user("Anna", email="Anna@Example.org")
    assert User.objects.named("anna") == user and User.objects.named("anna@example.ORG") == user


@needs_mariadb
def test_a_value_that_its_column_does_not_take_is_refused_and_not_changed(db: None) -> None:
    """Also where rows that are there already are left out, and with a server that changes values by default."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@sql_mode, @@time_zone")
        mode, zone = cursor.fetchone()
    assert "STRICT_TRANS_TABLES" in mode and "NO_AUTO_VALUE_ON_ZERO" in mode and zone == "+00:00"
    with pytest.raises(DatabaseError), transaction.atomic():
        Model.objects.bulk_create([Model(name="m" * 500)], ignore_conflicts=True)
    Model.objects.create(name="there", description="first")
    Model.objects.bulk_create([Model(name="there", description="again"), Model(name="new")], ignore_conflicts=True)
    assert Model.objects.get(name="there").description == "first" and Model.objects.filter(name="new").exists()


@needs_mariadb
def test_every_table_compares_bytes_whatever_its_database_does(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database, @@character_set_connection")
        assert cursor.fetchone() == ("latin1", "utf8mb4")
        cursor.execute(
            "SELECT table_name, table_collation, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
        tables = list(cursor.fetchall())
    assert len(tables) > 50
    assert not [row for row in tables if row[1:] != ("utf8mb4_nopad_bin", "InnoDB")]


@needs_mariadb
def test_tables_of_before_are_converted_once(own_database: OwnDatabase, live: Portal) -> None:
    convert = importlib.import_module("relay.migrations.0040_binary_collations")._convert

    def of_models() -> str:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
                " AND table_name = %s AND column_name = 'name'",
                [Model._meta.db_table],
            )
            return str(cursor.fetchone()[0])

    model = Model.objects.create(name="naïve-🤖")
    with connection.cursor() as cursor:
        cursor.execute(
            f"ALTER TABLE {Model._meta.db_table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        )
        cursor.execute("CREATE TABLE somebody_elses (name varchar(10)) CHARACTER SET latin1")
    assert of_models() == "utf8mb4_general_ci"
    for _ in range(2):
        with connection.schema_editor(atomic=False) as editor:
            convert(None, editor)
        assert of_models() == "utf8mb4_nopad_bin"
    assert Model.objects.get(pk=model.pk).name == "naïve-🤖"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT @@foreign_key_checks, character_set_name FROM information_schema.columns"
            " WHERE table_name = 'somebody_elses' AND table_schema = DATABASE()"
        )
        assert cursor.fetchone() == (1, "latin1"), "tables of others are left alone"
