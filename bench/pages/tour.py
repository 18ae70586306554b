"""Takes pictures of every page, light, dark and 390 pixels wide, and writes docs/tour.md.

usage: python -m bench.pages.tour [--only NAME] [--check] [--requests N] [--looks light,dark,narrow] [--out FOLDER]

Serves a new portal with seeded data from a temporary folder; --check looks for accessibility faults and console errors
instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.pages.check import LOOKS, check_pages
from tests.support.pages.pages import ALL_PAGES, PortalPage
from tests.support.pages.seeded import portal
from tests.support.server import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--looks", default=",".join(look for look, _width, _height in LOOKS))
    parser.add_argument("--out", default=str(ROOT / "docs" / "tour"))
    options = parser.parse_args()
    pages = [page for page in ALL_PAGES if options.only in {"", page.name}]
    with (
        tempfile.TemporaryDirectory(prefix="airelays-tour-") as folder,
        portal(Path(folder), options.requests) as (base, known),
    ):
        faults = check_pages(base, known, pages, None if options.check else Path(options.out), options.looks.split(","))
    if not options.check and not options.only:
        (ROOT / "docs" / "tour.md").write_text(tour_markdown(pages), encoding="utf-8")
    print("\n".join(faults) or f"{len(pages)} pages, no fault.")
    return 1 if faults else 0


def tour_markdown(pages: list[PortalPage]) -> str:
    lines = [
        "# A tour of every page",
        "",
        "Made by `make tour`, on a portal with made-up use: light, dark, and as a phone shows it.",
        "",
    ]
    for title, role in (("Before signing in", ""), ("For users", "user"), ("For staff", "staff")):
        lines += [f"## {title}", ""]
        for page in pages:
            if page.role != role:
                continue
            lines += [f"### {page.title}", ""]
            lines += [page.about, ""] if page.about else []
            alt = page.title.lower()
            lines += [
                f'<img src="tour/{page.name}-{look}.jpg" width="{12 if look == "narrow" else 43}%" alt="{alt}, {look}">'
                for look, _width, _height in LOOKS
            ]

            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
