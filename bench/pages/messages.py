"""Collects the texts that are translated into portal/locale, and compiles the translations.

usage: python -m bench.pages.messages [--check]

Needs gettext's xgettext and msgmerge. --check writes nothing: it lists texts that are out of date or not translated,
and exits with 1 if there are any.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import polib

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LOCALE: Final = ROOT / "portal" / "locale"
LANGUAGES: Final = ("zh_Hans",)
FOLDERS: Final = ("portal", "accounts", "relay", "templates")


def write_model_texts(target: Path) -> None:
    """Write the texts of model fields as a module that xgettext can read."""
    from portal.translations import texts

    target.write_text(
        "".join(f"gettext_noop({json.dumps(text, ensure_ascii=False)})\n" for text in texts()), encoding="utf-8"
    )


def collect(folder: Path) -> polib.POFile:
    """Collect the texts of the sources, in a copy of them."""
    from django.core.management import call_command
    from django.test import override_settings

    for name in FOLDERS:
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", "migrations", "*.mo", "bootstrap.py"),
        )
    write_model_texts(folder / "portal" / "model_texts.py")
    before = Path.cwd()
    try:
        os.chdir(folder)
        with override_settings(LOCALE_PATHS=[str(folder / "portal" / "locale")]):  # for texts outside of applications
            call_command(
                "makemessages", locale=["zh_Hans"], verbosity=0, no_location=True, no_wrap=True, no_obsolete=True
            )
    finally:
        os.chdir(before)
    found = polib.pofile(str(folder / "portal" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"))
    found.metadata.pop("POT-Creation-Date", None)
    return found


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    check = "--check" in sys.argv[1:]
    wrong = []
    for language in LANGUAGES:
        path = LOCALE / language / "LC_MESSAGES" / "django.po"
        with tempfile.TemporaryDirectory() as folder:
            collected = collect(Path(folder))
        old = polib.pofile(str(path)) if path.exists() else polib.POFile()
        by_text = {(entry.msgctxt, entry.msgid): entry for entry in old}
        for entry in collected:
            before = by_text.get((entry.msgctxt, entry.msgid))
            entry.flags = [flag for flag in entry.flags if flag != "fuzzy"]
            entry.previous_msgid = None
            if before is not None:
                entry.msgstr, entry.msgstr_plural = before.msgstr, before.msgstr_plural or entry.msgstr_plural
            elif not entry.msgid_plural:
                entry.msgstr = ""
        collected.sort(key=lambda entry: (entry.msgid, entry.msgctxt or ""))
        missing = [entry.msgid for entry in collected if not entry.translated()]
        wrong += [f"{language}: not translated: {text}" for text in missing]
        if check:
            new = {(entry.msgctxt, entry.msgid) for entry in collected}
            wrong += [f"{language}: collect again: {key[1]}" for key in new ^ set(by_text)]
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        collected.metadata = {
            "Content-Type": "text/plain; charset=UTF-8",
            "Content-Transfer-Encoding": "8bit",
            "Language": language,
            "Plural-Forms": "nplurals=1; plural=0;",
        }
        collected.save(str(path))
        collected.save_as_mofile(str(path.with_suffix(".mo")))
    print("\n".join(wrong) or "Every text is translated.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
