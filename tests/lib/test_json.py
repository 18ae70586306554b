"""Documents that have one reading: the fast check finds what the standard library's pairs find."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.lib import json as subject
from portal.lib.json import Repeated, has_more_values, strict_decode, without_long_strings

pytestmark = pytest.mark.shared

NAMES = st.sampled_from(["model", "a", "b:", ":", "", "é", '"', "\\u003a"])
TEXTS = st.sampled_from(
    ["", ":", '":', "\\", "x" * 40, "é" * 40, " " + "x" * 40, "x" * 40 + '"', "x" * 40 + "\\", "😀"]
)


class Pairs(list[tuple[str, Any]]):
    """An object whose members may repeat."""


DOCUMENTS = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(NAMES, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(value: Any, style: tuple[str, str, bool, bool]) -> str:
    comma, colon, plain_ascii, escape = style
    if isinstance(value, Pairs):
        members = (written(name, style) + colon + written(inner, style) for name, inner in value)
        return "{" + comma.join(members) + "}"
    if isinstance(value, list):
        return "[" + comma.join(written(inner, style) for inner in value) + "]"
    text = json.dumps(value, ensure_ascii=plain_ascii)
    return text.replace(":", "\\u003A") if escape and isinstance(value, str) and "\\" not in value else text


def repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) != len(names) or any(repeats(inner) for _, inner in value)
    return isinstance(value, list) and any(map(repeats, value))


@settings(max_examples=500, deadline=None)
@given(
    DOCUMENTS,
    st.tuples(st.sampled_from([",", " , "]), st.sampled_from([":", " :", ": "]), st.booleans(), st.booleans()),
)
def test_a_member_twice_is_found_at_any_depth_however_it_is_written(
    document: Any, style: tuple[str, str, bool, bool]
) -> None:
    text = written(document, style).encode()
    found = strict_decode(text)
    assert isinstance(found, Repeated) is repeats(document)
    if not repeats(document):
        assert found == json.loads(text)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.tuples(st.just(","), st.sampled_from([":", " : "]), st.booleans(), st.booleans()))
def test_emptying_long_strings_leaves_the_rest(document: Any, style: tuple[str, str, bool, bool]) -> None:
    text = written(Pairs([("x", document), ("pad", "p" * 200)]), style).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_LARGE", 0)
        patch.setattr(subject, "_SPARSE", 30)
        patch.setattr(subject, "_DENSITY", 1)
        shorter = without_long_strings(text)
    assert len(shorter) < len(text) - 190

    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: emptied(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [emptied(inner) for inner in value]
        return "" if isinstance(value, str) else value

    assert emptied(json.loads(shorter)) == emptied(json.loads(text))
    assert isinstance(strict_decode(shorter), Repeated) is repeats(document)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"a":{"b":[0,[{"c":1,"c":2}]]}}', "a.b[1][0].c"),
        (b'[{"x":1,"x":1}]', "[0].x"),
        (b'{"":1,"":2}', ""),
        (b'{"mo\\u0064el":1,"model":2}', "model"),
        (b'{"a":"\\u003a","b":1,"b":1}', "b"),
    ],
)
def test_the_place_is_named(text: bytes, path: str) -> None:
    assert strict_decode(text) == Repeated(path)


# -- how many values a text has --------------------------------------------------------------------------------------


def counted(value: Any) -> tuple[int, int]:
    """The members of a document, and its objects, lists, and what has a comma before it."""
    if not isinstance(value, list):
        return 0, 0
    inner = [counted(entry[1] if isinstance(value, Pairs) else entry) for entry in value]
    members = len(value) if isinstance(value, Pairs) else 0
    return members + sum(one for one, _ in inner), 1 + max(0, len(value) - 1) + sum(other for _, other in inner)


@settings(max_examples=500, deadline=None)
@given(
    DOCUMENTS,
    st.tuples(st.sampled_from([",", " , "]), st.sampled_from([":", " :", ": "]), st.booleans(), st.booleans()),
)
def test_values_are_counted_outside_strings(document: Any, style: tuple[str, str, bool, bool]) -> None:
    members, values = counted(document)
    text = written([document, "[{,:" * 9, document], style).encode()
    members, values = 2 * members, 2 * values + 3
    assert not has_more_values(text, members, values)
    assert not members or has_more_values(text, members - 1, values)
    assert has_more_values(text, members, values - 1)


@pytest.mark.parametrize(
    "text", [b'["a', b'["\\', b'"\\"', b'["' + b"\\" * 9 + b'"', b'"' + b"\\\\" * 5 + b'"', b'{"a' + b'"' * 7]
)
def test_values_of_what_is_no_json_are_counted_without_error(text: bytes) -> None:
    assert has_more_values(b"[" * 200 + text, 100, 100)
    assert not has_more_values(text * 2, 8, 8)


def test_texts_that_are_too_short_are_not_looked_at() -> None:
    class Unread(bytes):
        def count(self, *_: Any) -> int:
            raise AssertionError

    assert not has_more_values(Unread(b"[]"), 2, 2)
