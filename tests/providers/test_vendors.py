"""A vendor is described by one file, and known from there only."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Final

import pytest

from relay.billing.list_prices import search_order
from relay.protocols.errors import read_error
from relay.providers.apis import EVERYTHING
from relay.providers.classify import find_rule
from relay.providers.failures import BY_WORD, RULE_CLASSES
from relay.providers.vendors import BUILT_IN, PRIVATE, VENDORS, discover, grouped, offered
from tests.providers.corpus import FAILURES, every_case
from tests.support.portal import Portal, ask
from tests.support.server import ROOT, Server

FILE: Final = '''"""A vendor."""

from relay.providers.vendor import Vendor

VENDOR = Vendor(key="{key}", label="{key} and sons", position={position})
'''


def package(folder: Path, name: str, **files: str) -> tuple[str, list[str]]:
    """A package of its own, to look for vendors in."""
    home = folder / name
    home.mkdir()
    (home / "__init__.py").write_text("")
    for file, content in files.items():
        (home / f"{file}.py").write_text(content)
    return name, [str(home)]


def test_a_file_that_is_added_is_a_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = {key: FILE.format(key=key, position=place) for key, place in (("zeta", 5), ("acme", 7), ("bolt", 7))}
    found = discover(*package(tmp_path, "three_vendors", **files))
    assert list(found) == ["zeta", "acme", "bolt"], "by position, then by key"
    assert found["acme"].label == "acme and sons"


def test_a_file_without_a_vendor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match=r"no_vendor\.acme must have a VENDOR"):
        discover(*package(tmp_path, "no_vendor", acme="VENDOR = 'acme'\n"))


def test_a_copied_file_does_not_take_another_vendors_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="describes the vendor “acme”"):
        discover(*package(tmp_path, "copied_vendor", bolt=FILE.format(key="acme", position=1)))


def test_channels_can_be_made_for_vendors_of_a_known_protocol_only() -> None:
    keys = [vendor.key for vendor in offered()]
    assert keys[:3] == ["demo", "openai", "azure"] and keys[-1] == "relay"
    assert set(VENDORS) == {*keys, *PRIVATE}, "channels of those are made by signing in"
    assert {"demo"} == BUILT_IN


def test_forms_show_every_vendor_once_with_plans_behind_their_vendors_and_own_servers_last() -> None:
    groups = grouped()
    keys = [vendor.key for _title, vendors in groups for vendor in vendors]
    assert keys == [vendor.key for vendor in offered()]
    assert groups[0][0] == "" and [vendor.key for vendor in groups[0][1]] == ["demo"]
    assert all(title for title, _vendors in groups[1:]) and len({title for title, _vendors in groups}) == len(groups)
    for key in keys:
        of, _plan, rest = key.partition("_plan")
        assert rest or of == key or keys.index(key) == keys.index(of) + 1, key
    assert all(not vendor.needs_key for vendor in groups[-1][1] if vendor.key != "relay")


@pytest.mark.parametrize("key", VENDORS)
def test_a_vendor_is_whole(key: str) -> None:
    vendor = VENDORS[key]
    assert vendor.apis <= EVERYTHING and set(vendor.paths) <= vendor.apis
    assert all(rule.kind in RULE_CLASSES and not rule.provider for rule in vendor.failures)
    assert vendor.base_url == "" or re.fullmatch(r"(https|http|demo)://[^/]+(/.*[^/])?", vendor.base_url)
    document = importlib.import_module(f"relay.providers.vendors.{key}").__doc__ or ""
    assert not vendor.address_form or (
        not vendor.base_url
        and re.fullmatch(r"https://[^ ]*{[a-z]+}[^ ]+", vendor.address_form)
        and vendor.address_form.endswith(vendor.version_path)
    )
    sourced = re.search(r"^Source: .+, read in [A-Z][a-z]+ 20\d\d\.$", document, re.M)
    assert sourced or vendor.built_in, "name the source of the facts, and when it was read"


def test_lists_of_prices_are_known_to_the_package_and_searched_in_one_order() -> None:
    from genai_prices.data import providers

    places = [place for vendor in VENDORS.values() for place in vendor.price_search.values()]
    assert len(places) == len(set(places))
    first, *_between, last = search_order()
    assert (first, last) == ("openai", "openrouter"), "makers of models before their resellers"
    named = {vendor.price_list for vendor in VENDORS.values() if vendor.price_list} | set(search_order())
    assert named <= {provider.id for provider in providers}


def test_every_vendor_has_a_fixture_of_failures_and_every_fixture_a_vendor() -> None:
    assert {file.stem for file in FAILURES.iterdir()} == {*VENDORS, "any"}
    cases = every_case()
    assert {case.vendor for case in cases} == {*VENDORS, ""} and {case.kind for case in cases} <= set(BY_WORD)


@pytest.mark.parametrize("key", VENDORS)
def test_every_rule_of_a_vendor_has_a_case(key: str) -> None:
    """But for those that it has from another vendor, whose fixture holds them."""
    cases = [case for case in every_case() if case.vendor == key]
    used = {find_rule(key, case.status, read_error(case.content)) for case in cases}
    others = {rule for other in VENDORS.values() if other.key != key for rule in other.failures}
    assert [rule for rule in VENDORS[key].failures if rule not in used and rule not in others] == []


def test_requests_are_signed_as_the_vendor_wants(live: Portal, server: Server) -> None:
    for provider, name, value in (
        ("openai", "authorization", "Bearer sk-of-openai"),
        ("azure", "api-key", "sk-of-azure"),
    ):
        model = live.model(channels=[live.channel(provider=provider, keys=(f"sk-of-{provider}",))])
        assert server.post(live.token(), ask(model)).status_code == 200
        sent = live.upstream.last(model).headers
        assert sent[name] == value and not {"authorization", "api-key"} - {name} & set(sent)


def test_headers_of_the_vendors_own_are_sent_with_the_key(live: Portal, server: Server) -> None:
    model = live.model(channels=[live.channel(provider="snowflake", keys=("pat-of-snowflake",))])
    assert server.post(live.token(), ask(model)).status_code == 200
    sent = live.upstream.last(model).headers
    assert sent["authorization"] == "Bearer pat-of-snowflake"
    assert sent["x-snowflake-authorization-token-type"] == "PROGRAMMATIC_ACCESS_TOKEN"


@pytest.mark.parametrize(("provider", "sent"), [("openai", True), ("groq", False), ("mistral", False)])
def test_nulls_reach_no_vendor_that_refuses_them(live: Portal, server: Server, provider: str, sent: bool) -> None:
    model = live.model(provider=provider)
    assert server.post(live.token(), ask(model, stop=None)).status_code == 200
    assert ("stop" in live.upstream.last(model).json) is sent


# File: the names of vendors in it that have to be there, and why.
NAMED: Final[dict[str, tuple[set[str], str]]] = {
    "portal/cli/commands/status.py": ({"relay"}, "a key of the command's JSON"),
    "portal/clients/claude_code.py": ({"anthropic"}, "how names begin that the app takes for its own models"),
    "portal/clients/gemini_cli.py": ({"gemini"}, "the name of a client app"),
    "portal/clients/opencode.py": ({"opencode", "https://opencode.ai/config.json"}, "the name of a client app"),
    "portal/pages/shared/agents.py": ({"gemini"}, "the name of a client app, and a part of models' names"),
    "portal/settings.py": ({"relay", "google"}, "the Django application, and a provider of sign-in"),
    "portal/translations.py": ({"relay"}, "the Django application"),
    "relay/apps.py": ({"relay"}, "the Django application"),
    "relay/roles.py": ({"relay"}, "the Django application"),
    "relay/channels/local/servers.py": (
        {"ollama", "vllm", "llamacpp", "lmstudio"},
        "which vendor's file serves a program that is found on this machine",
    ),
    "relay/api/paths.py": ({"openai", "anthropic"}, "first parts of paths that clients ask for"),
    "relay/api/urls.py": ({"relay"}, "the namespace of URLs"),
    "relay/manage/oneapi/channels.py": (
        {
            "openai",
            "azure",
            "relay",
            "anthropic",
            "zhipu",
            "dashscope",
            "openrouter",
            "tencent",
            "gemini",
            "moonshot",
            "minimax",
            "mistral",
            "groq",
            "ollama",
            "stepfun",
            "cohere",
            "deepseek",
            "cloudflare",
            "together",
            "volcengine",
            "novita",
            "siliconflow",
            "xai",
            "qianfan",
            "spark",
        },
        "which vendor each of one-api's kinds of channels is",
    ),
    "portal/backup/about.py": ({"relay"}, "the name of the app of the relay's tables"),
    "portal/relay_only/settings.py": ({"relay"}, "the name of the app"),
    "relay/models/channel.py": (
        {"openai", "With the version path, such as https://api.openai.com/v1. Empty: the vendor's own address."},
        "a default and an example of the model, which its migrations record",
    ),
    "relay/providers/demo.py": ({"demo"}, "the name of the model that the demo offers"),
    "relay/protocols/naming/client_apps.py": ({"opencode"}, "the name of a client app"),
    "relay/protocols/gemini/contents/signatures.py": (
        {"gemini", "google"},
        "who can read its signatures, a part of its models' names, and a member of Google's",
    ),
    "relay/protocols/chat_completions/signatures/sealed.py": ({"google"}, "a member of calls, with their signature"),
    "relay/providers/vendor.py": ({"openai", "anthropic", "gemini", "ollama", "cohere"}, "the families of APIs"),
    "relay/providers/credentials/aws.py": ({"bedrock"}, "the service that a signature is for"),
    "relay/protocols/passthrough/answers.py": ({"meta"}, "a member of rerank answers"),
    "relay/usage/demo_data.py": (
        {
            "openai",
            "deepseek",
            "DeepSeek",
            "groq",
            "Groq",
            "mistral",
            "Mistral",
            "openrouter",
            "OpenRouter",
            "opencode",
        },
        "made-up channels, and the name of a client app",
    ),
}


# What other programs call vendors, in tables of theirs: adding a vendor here changes nothing there.
OTHER_PROGRAMS: Final = "relay/importers/"


def test_no_vendor_is_named_outside_its_file() -> None:
    """By its key, its label, its name in the list of prices or its public address."""
    names = {name for vendor in VENDORS.values() for name in (vendor.key, vendor.label, vendor.price_list)} - {""}
    names.update(search_order())
    hosts = [vendor.base_url.split("/")[2] for vendor in VENDORS.values() if vendor.base_url.startswith("https:")]
    found: dict[str, set[str]] = {}
    for file in [*(ROOT / "relay").rglob("*.py"), *(ROOT / "portal").rglob("*.py")]:
        path = file.relative_to(ROOT).as_posix()
        if "/migrations/" in path or path.startswith(OTHER_PROGRAMS):
            continue
        if re.fullmatch(r"relay/providers/vendors/\w+\.py", path):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and (text in names or any(host in text for host in hosts)):
                found.setdefault(path, set()).add(text)
    assert found == {path: texts for path, (texts, _why) in NAMED.items()}
