"""Takes pictures of every page, light, dark and 390 pixels wide, and writes docs/tour.md.

usage: python -m bench.pages.tour [--only NAME] [--check] [--requests N] [--looks light,dark,narrow] [--out FOLDER]

Serves a new portal with seeded data from a temporary folder; --check looks for accessibility faults and console errors
instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.pages.pages import ALL_PAGES, PortalPage

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PASSWORD: Final = "a long password"  # noqa: S105  # of a portal that lives for a minute
CUT_OFF: Final = """() => Math.max(0, ...[...document.querySelectorAll("table")].map(table => {
  for (let box = table.parentElement; box; box = box.parentElement) {
    const overflow = getComputedStyle(box).overflowX;
    if (["auto", "scroll", "hidden"].includes(overflow)) return box.scrollWidth - box.clientWidth;
  }
  return 0;
}))"""
"""A script that returns the pixels of the widest table that are visible only by scrolling."""
LOOKS: Final = (("light", 1280, 860), ("dark", 1280, 860), ("narrow", 390, 860))
STAFF_NAME: Final = "admin"
# What the theme leaves unnamed has a name.
NAMED: Final = "!document.querySelector('script[src*=\"portal/admin\"]') || document.documentElement.dataset.named"


@contextmanager
def portal(folder: Path, requests: int = 20_000) -> Iterator[tuple[str, dict[str, Any]]]:
    """Start a seeded portal; yields its address and the ids for paths."""
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

    from accounts.models import AuditEvent, User
    from portal.serving.first_run import first_run
    from relay.billing import redemption
    from relay.billing.ledger import movements
    from tests.support.pages.pages import ids
    from tests.support.server import serving

    call_command("migrate", verbosity=0)
    first_run()
    admin = User.objects.get(username=STAFF_NAME)
    admin.set_password(PASSWORD)
    admin.save()
    call_command("seed", password=PASSWORD, requests=requests, stdout=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    known = ids()
    user = User.objects.get(pk=known["user"])
    movements.set_unlimited(user, False)
    movements.top_up(user, 40_000_000_000, actor=admin, reason="Welcome")
    redemption.create_codes("Spring", 10_000_000_000, 20, actor=admin)
    AuditEvent.write("wallet.top-up", admin, user, "203.0.113.9", usd="40", reason="Welcome")
    add_typical_problems()
    connection.close()
    with serving(folder / "log", env={}) as server:
        yield server.url.replace("127.0.0.1", "localhost"), known


def add_typical_problems() -> None:
    """Add what a portal has on an ordinary day: a disabled key, a channel that is cooling down, a proof of
    the ledger.
    """
    from portal.lib import clock
    from relay.billing.ledger import proofs
    from relay.channels import cooldowns
    from relay.channels import keys as upstream_keys
    from relay.models import Channel

    now = clock.now().timestamp()
    key = Channel.objects.get(name="OpenAI main").keys.order_by("pk")[2]
    upstream_keys.take_out(key.pk, "key_dead", "401 Incorrect API key provided")
    groq = Channel.objects.get(name="Groq")
    cooldowns.save_circuits([((groq.pk, 0, 0), cooldowns.StoredCircuit(now, now + 3600, "overload", "503 over capacity", 1, False, "tour"))], "tour")
    proofs.prove(proofs.begin_proof()[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--looks", default=",".join(look for look, _width, _height in LOOKS))
    parser.add_argument("--out", default=str(ROOT / "docs" / "tour"))
    options = parser.parse_args()
    pages = [page for page in ALL_PAGES if options.only in {"", page.name}]
    with tempfile.TemporaryDirectory(prefix="airelays-tour-") as folder, portal(Path(folder), options.requests) as (base, known):
        faults = check_pages(base, known, pages, None if options.check else Path(options.out), options.looks.split(","))
    if not options.check and not options.only:
        (ROOT / "docs" / "tour.md").write_text(tour_markdown(pages), encoding="utf-8")
    print("\n".join(faults) or f"{len(pages)} pages, no fault.")
    return 1 if faults else 0


def check_pages(base: str, known: dict[str, Any], pages: list[PortalPage], out: Path | None, looks: Sequence[str]) -> list[str]:
    """Open every page in every look; returns accessibility faults, console errors and pages wider than the window."""
    from tests.support.pages.browser import BrowserFaults, accessibility_faults, chromium, sign_in

    faults: list[str] = []
    names = {"user": known["name"], "staff": STAFF_NAME, "": ""}
    with chromium() as browser:
        for look, width, height in (one for one in LOOKS if one[0] in looks):
            for role in ("", "user", "staff"):
                mine = [page for page in pages if page.role == role]
                if not mine:
                    continue
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light", locale="en-GB", timezone_id="Europe/Berlin"
                )
                watch = BrowserFaults(context)
                tab = context.new_page()
                if role:
                    sign_in(tab, base, names[role], PASSWORD)
                for page in mine:
                    answer = tab.goto(base + page.path.format(**known), wait_until="load")
                    tab.wait_for_function(NAMED, timeout=20_000)
                    tab.wait_for_timeout(250 if out is not None else 60)
                    here = f"{page.name} ({look})"
                    if answer is None or answer.status != 200:
                        faults.append(f"{here}: answered {answer.status if answer else 'nothing'}")
                    if out is not None:
                        out.mkdir(parents=True, exist_ok=True)
                        tab.screenshot(path=str(out / f"{page.name}-{look}.jpg"), type="jpeg", quality=40)
                    faults += [
                        f"{here}: {fault}" for fault in accessibility_faults(tab, ("color-contrast",) if look == "dark" else ())
                    ]  # all other rules give the same result as in light
                    wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    if wide > 1:
                        faults.append(f"{here}: {wide} pixels wider than the window")
                    elif look != "narrow" and (hidden := tab.evaluate(CUT_OFF)) > 1:
                        faults.append(f"{here}: {hidden} pixels of a table are out of sight")
                    faults += [f"{here}: {fault}" for fault in watch.faults]
                    watch.faults.clear()
                context.close()
    return faults


def tour_markdown(pages: list[PortalPage]) -> str:
    lines = ["# A tour of every page", "", "Made by `make tour`, on a portal with made-up use: light, dark, and as a phone shows it.", ""]
    for title, role in (("Before signing in", ""), ("For users", "user"), ("For staff", "staff")):
        lines += [f"## {title}", ""]
        for page in pages:
            if page.role != role:
                continue
            lines += [f"### {page.title}", ""]
            lines += [page.about, ""] if page.about else []
            alt = page.title.lower()
            lines += [f'<img src="tour/{page.name}-{look}.jpg" width="{12 if look == "narrow" else 43}%" alt="{alt}, {look}">' for look, _width, _height in LOOKS]

            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
