"""Every text is translated."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.shared


def test_texts_are_all_translated_and_their_compiled_form_is_current() -> None:
    import polib

    from bench.messages import LANGUAGES, LOCALE

    for language in LANGUAGES:
        folder = LOCALE / language / "LC_MESSAGES"
        source, compiled = polib.pofile(str(folder / "django.po")), polib.mofile(str(folder / "django.mo"))
        assert [entry.msgid for entry in source if not entry.translated()] == []
        assert {entry.msgid: entry.msgstr for entry in source if not entry.msgid_plural} == {entry.msgid: entry.msgstr for entry in compiled if not entry.msgid_plural}
        for entry in source:
            if not entry.msgid_plural:
                names = re.findall(r"%\(\w+\)[sd]", entry.msgid)
                assert sorted(names) == sorted(re.findall(r"%\(\w+\)[sd]", entry.msgstr)), entry.msgid
                assert not names or not re.search(r"%(?!\()", entry.msgstr.replace("%%", "")), entry.msgid
