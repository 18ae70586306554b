"""What `airelays import` says on a terminal: what would be done, what was, what was taken back, what to do next."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from relay.importers.description import SourceUnreadable
from relay.importers.reading.database import open_database
from relay.importers.report import Report
from relay.importers.undo import take_back
from relay.models import ApiKey
from tests.support.importers.old import Old, unpack
from tests.support.money import record

pytestmark = [pytest.mark.django_db]


@pytest.fixture
def one_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Old:
    monkeypatch.setattr("relay.channels.urls._check_resolved", lambda *_: None)  # names are looked up nowhere
    return unpack("one-api", tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """The text of a report; `undone`: of an undo."""

    def tell(report: Report, undone: bool = False) -> str:
        import_module("portal.cli.commands.import")._tell(report, False, undone)
        return capsys.readouterr().out

    return tell


def test_a_second_run_says_that_all_is_here(one_api: Old, said: Any) -> None:
    planned = said(one_api.imported(apply=False))
    assert "added" in planned and "with --apply" in planned
    done = said(one_api.imported())
    assert "import undo one-api" in done and "doctor" in done and "with --apply" not in done
    again = said(one_api.imported(apply=False))
    assert "Balances:       as they were" in again and "$0.00" not in again
    assert "Nothing to do: all of it is here." in again and "with --apply" not in again


def test_an_undo_says_what_stays_by_its_name(one_api: Old, said: Any) -> None:
    one_api.imported(usage=True)
    bob = User.objects.get(username="bob")
    token = bob.tokens.order_by("pk")[0]
    record(bob, token=token)
    text = said(take_back("one-api", apply=False), True)
    assert "Undo of an Import (nothing is written)" in text and "Database" not in text
    assert "new" not in text.split("Stays Here")[0] and "1 stays" in text and "116 taken back" in text
    assert f"token {token.name}: It was used since" in text and "user bob: It was used since" in text
    done = said(take_back("one-api", apply=True), True)
    assert "Next Steps" not in done
    rest = said(take_back("one-api", apply=False), True)
    assert "Nothing to do: all that can be is taken back." in rest and "as they were" in rest


def test_it_names_the_program_that_had_disabled_a_key(one_api: Old) -> None:
    one_api.imported()
    assert ApiKey.objects.filter(auto_disabled_reason__contains="disabled by one-api").exists()


def test_that_costs_are_not_known_is_told_once_and_only_when_prices_come(one_api: Old) -> None:
    def told(report: Report) -> int:
        return sum("below cost" in line.text for line in report.lines)

    assert told(one_api.imported()) == 1
    assert told(one_api.imported()) == 0


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="is a folder: name the file"):
        open_database(str(tmp_path))
