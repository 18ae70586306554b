"""What is measured is what users run: settings that tests make for themselves are not handed on."""

from __future__ import annotations

import os

from tests.support.environment import as_users_run


def test_a_measured_portal_has_the_defaults() -> None:
    assert os.environ["AIRELAYS_JOBS"] == "false", "of tests"
    found = as_users_run({"AIRELAYS_DATA_DIR": "/srv/measured"})
    assert found["AIRELAYS_DATA_DIR"] == "/srv/measured" and found["PATH"] == os.environ["PATH"]
    assert not {"AIRELAYS_JOBS", "AIRELAYS_FIRST_BYTE_TIMEOUT", "AIRELAYS_DISCONNECT_READ_SECONDS"} & found.keys()
    assert as_users_run({"AIRELAYS_JOBS": "false"})["AIRELAYS_JOBS"] == "false"
