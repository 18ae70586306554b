"""Work in a fork of a command."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from django.core.management.base import CommandError
from django.db import OperationalError

from portal.management.apart import apart

_LEFT: list[int] = []


def test_what_is_returned_comes_back_and_nothing_else_does() -> None:
    def work() -> list[int]:
        _LEFT.append(os.getpid())
        return list(_LEFT)

    assert apart(work) != [os.getpid()]
    assert sys.platform != "linux" or not _LEFT


@pytest.mark.parametrize("error", [CommandError("no room", returncode=75), OperationalError("locked"), SystemExit(3)])
def test_errors_are_raised_as_they_were(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        apart(work)
    assert str(raised.value) == str(error)
    assert getattr(raised.value, "returncode", 0) == getattr(error, "returncode", 0)


def test_an_error_that_cannot_be_sent_is_told_with_its_traceback() -> None:
    class Own(Exception):
        pass

    def work() -> None:
        raise Own("here")

    with pytest.raises(Exception, match="here"):
        apart(work)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork elsewhere")
def test_a_fork_that_is_killed_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended with -9"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))
