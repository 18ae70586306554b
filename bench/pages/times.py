"""Measures the time of every page on a portal with five million requests, 50,000 tokens, 10,000 users and a
channel with 5,000 models and 5,000 keys.

usage: python -m bench.pages.times [--requests N] [--tokens N] [--users N] [--folder FOLDER] [--json]

Seeds a new portal (in --folder, where it is used again the next time; otherwise in a temporary folder) and requests
every page five times over HTTP, signed in. AIRELAYS_DATABASE_URL selects another database than SQLite; it must be
empty.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.pages.pages import ALL_PAGES, FILTERED_PAGES
from tests.support.pages.seeded import add_big_channel

TIMES: Final = 5
PASSWORD: Final = "a long password"  # noqa: S105  # of a portal that nobody else reaches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("requests", 5_000_000), ("tokens", 50_000), ("users", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--folder", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airelays-pages-") as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder, options)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, milliseconds in sorted(found.items(), key=lambda pair: -pair[1]):
            print(f"{milliseconds:7.0f} ms  {name}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The median milliseconds of each page."""
    os.environ.update(
        AIRELAYS_DATA_DIR=str(folder),
        AIRELAYS_CONFIG="",
        AIRELAYS_STATUS_PAGE="public",
        AIRELAYS_SIGNUP="open",
        AIRELAYS_EMAIL_HOST="127.0.0.1",
        AIRELAYS_JOBS="false",
        NO_PROXY="127.0.0.1,localhost",
    )
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from accounts.models import User
    from portal.serving.first_run import first_run
    from relay.models import UsageRecord
    from tests.support.pages.pages import ids
    from tests.support.server import serving

    call_command("migrate", verbosity=0)
    first_run()
    admin = User.objects.get(username="admin")
    admin.set_password(PASSWORD)
    admin.save()
    if not UsageRecord.objects.exists():
        call_command(
            "seed", users=options.users, tokens=options.tokens, requests=options.requests, days=90, password=PASSWORD
        )
    add_big_channel()
    known = ids()
    connection.close()
    found: dict[str, float] = {}
    with serving(folder / "log", env={}) as server:
        browsers = {
            "": httpx.Client(base_url=server.url, trust_env=False),
            "user": _signed_in(server.url, known["name"]),
            "staff": _signed_in(server.url, "admin"),
        }
        for place in (*ALL_PAGES, *FILTERED_PAGES):
            times = []
            for _ in range(TIMES + 1):
                began = time.perf_counter()
                answer = browsers[place.role].get(place.path.format(**known), timeout=120)
                times.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (place, answer.status_code)  # noqa: S101
            found[f"{place.name} {place.path}"] = statistics.median(times[1:])
    return found


def _signed_in(base: str, name: str) -> httpx.Client:
    client: Any = httpx.Client(base_url=base, trust_env=False, timeout=60)
    page = client.get("/accounts/login/").text
    csrf = page.split('name="csrfmiddlewaretoken" value="', 1)[1].split('"', 1)[0]
    answer = client.post("/accounts/login/", data={"login": name, "password": PASSWORD, "csrfmiddlewaretoken": csrf})
    assert answer.status_code == 302, answer.status_code  # noqa: S101
    found: httpx.Client = client
    return found


if __name__ == "__main__":
    sys.exit(main())
