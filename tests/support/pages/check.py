"""Looks for accessibility faults, console errors and pages that are too wide, on every page.

usage: python -m tests.support.pages.check [--requests N] [--looks light,dark,narrow]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.pages.browser import BrowserFaults, accessibility_faults, chromium, sign_in
from tests.support.pages.pages import ALL_PAGES, PortalPage
from tests.support.pages.seeded import PASSWORD, STAFF_NAME, portal

CUT_OFF: Final = """() => Math.max(0, ...[...document.querySelectorAll("table")].map(table => {
  for (let box = table.parentElement; box; box = box.parentElement) {
    const overflow = getComputedStyle(box).overflowX;
    if (["auto", "scroll", "hidden"].includes(overflow)) return box.scrollWidth - box.clientWidth;
  }
  return 0;
}))"""
"""A script that returns the pixels of the widest table that are visible only by scrolling."""
LOOKS: Final = (("light", 1280, 860), ("dark", 1280, 860), ("narrow", 390, 860))
# What the theme leaves unnamed has a name.
NAMED: Final = "!document.querySelector('script[src*=\"portal/admin\"]') || document.documentElement.dataset.named"


def check_pages(
    base: str, known: dict[str, Any], pages: list[PortalPage], out: Path | None, looks: Sequence[str]
) -> list[str]:
    """Open every page in every look; returns accessibility faults, console errors and pages wider than the window."""
    faults: list[str] = []
    names = {"user": known["name"], "staff": STAFF_NAME, "": ""}
    with chromium() as browser:
        for look, width, height in (one for one in LOOKS if one[0] in looks):
            for role in ("", "user", "staff"):
                mine = [page for page in pages if page.role == role]
                if not mine:
                    continue
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if look == "dark" else "light",
                    locale="en-GB",
                    timezone_id="Europe/Berlin",
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
                        f"{here}: {fault}"
                        for fault in accessibility_faults(tab, ("color-contrast",) if look == "dark" else ())
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--looks", default=",".join(look for look, _width, _height in LOOKS))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="airelays-pages-") as folder,
        portal(Path(folder), options.requests) as (base, known),
    ):
        faults = check_pages(base, known, list(ALL_PAGES), None, options.looks.split(","))
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
