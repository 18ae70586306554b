"""Links in templates."""

from __future__ import annotations

from django.template import Context, Template


def test_parameters_of_a_link_are_quoted_and_escaped() -> None:
    page = Template('{% load links %}<a href="?by=day&amp;{{ filter|query }}">')
    shown = page.render(Context({"filter": {"model": "a b/c&d", "token": 7}}))
    assert shown == '<a href="?by=day&amp;model=a%20b/c%26d&amp;token=7">'
