"""Runs a real browser on a real portal, for the tour and the tests of pages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM: Final = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium-headless-shell")  # draws no windows
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
    or ""
)
FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium. Raises RuntimeError when it is not installed."""
    if not CHROMIUM:
        raise RuntimeError("There is no chromium. Install it (apt install chromium), or name it in CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, base: str, name: str, password: str) -> None:
    page.goto(f"{base}/accounts/login/")
    page.fill("#id_login", name)
    page.fill("#id_password", password)
    page.click("main form.card button")
    page.wait_for_url(lambda url: "/accounts/login" not in url)


class BrowserFaults:
    """Collects invisible faults in a browser: console errors, exceptions, refused resources, answers of 500
    and above.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.faults: list[str] = []
        context.on(
            "console", lambda message: self._say(message.text, message.location) if message.type == "error" else None
        )
        context.on("weberror", lambda error: self.faults.append(f"exception: {error.error}"))
        context.on(
            "response",
            lambda answer: self.faults.append(f"{answer.status} {answer.url}") if answer.status >= 500 else None,
        )

    def _say(self, text: str, where: Any) -> None:
        if "the server responded with a status of 4" not in text:  # tests check refused pages themselves
            self.faults.append(f"console: {text} ({where.get('url', '') if isinstance(where, dict) else where})")


def accessibility_faults(page: Page, only: tuple[str, ...] = ()) -> list[str]:
    """The serious and critical faults that axe-core finds on a page. `only`: the rules to check, empty: all."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], **({"runOnly": list(only)} if only else {})}
    found = Axe().run(page, options=options).response["violations"]
    return [
        (
            f"{fault['impact']}: {fault['id']}: {fault['help']}: "
            f"{json.dumps([node['html'][:160] for node in fault['nodes'][:3]])}"
        )
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    ]
