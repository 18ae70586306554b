"""Hosts, addresses and accounts in messages of upstreams: what tells where a request went, and who pays for it there.

What they look like in messages of Go, Python (requests, httpx, aiohttp, urllib3), Node.js, Java, gRPC, nginx and Envoy,
and of the vendors. A message also repeats the client's words, such as names of parameters and functions: what may be
one of these stays, unless something beside it tells what it is.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from portal.lib.redaction.rules import ACCOUNT, ADDRESS, HOST, LINK, apply, rule
from portal.lib.redaction.words import is_random

_UUID: Final = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_REST: Final = r"[^\s'\"`,;)\]}<>]"  # of a path
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME: Final = rf"{_LABEL}(?:\.{_LABEL})*\.?"
# Last labels of names that are hosts wherever they stand.
_CERTAIN: Final = "com|net|org|cn|internal|local|azure|lan|svc|corp|intranet|localdomain"
# Those that names in programs have as well, such as `web.app`.
_LIKELY: Final = "io|ai|dev|app|cloud"
_LONGER: Final = rf"{_LIKELY}|top|xyz|site|online|tech|club|vip|icu|fun|de|fr|uk|us|eu|ru|jp|kr|tw|hk|sg"
# Last labels that are endings of files, in front of the number of a line.
_FILES: Final = "py|pyx|js|mjs|cjs|ts|tsx|go|rs|c|cc|cpp|h|java|kt|php|rb|json|jsonl|yaml|yml|toml|txt|md|html|sql|sh"
# Words before a number that is no port.
_NO_HOST: Final = r"(?!(?:line|column|col|position|pos|index|row|char|offset|byte|step|token|tokens|least|most)\b)"

_RELEASE: Final = re.compile(r"[A-Za-z]/$")  # before `120.0.0.0`, as in `Chrome/120.0.0.0`
_PORT: Final = r"(?![\w.]?\w)"  # the end of one


def _address(match: re.Match[str]) -> str:
    """What replaces four numbers: themselves if they are the version of something."""
    if any(int(part) > 255 for part in match[1].split(".")):
        return match[0]
    if match[1].endswith(".0.0.0") and _RELEASE.search(match.string[: match.start()][-2:]):
        return match[0]
    return ADDRESS


def _long_address(match: re.Match[str]) -> str:
    """What replaces groups between colons: themselves unless they are an address, and not such as `a::b` or `[::2]`."""
    found = match[1]
    try:
        address = ipaddress.IPv6Address(found)
    except ValueError:
        return match[0]
    small = int(address) < 1 << 16 and address != ipaddress.IPv6Address("::1")
    if (small and not match[2]) or (found.count(":") < 4 and not any(map(str.isdigit, found))):
        return match[0]
    return ADDRESS


def _account(match: re.Match[str]) -> str:
    """What replaces an id with the prefix of one: itself if it is a name, as `user_profile` and `proj_deadline` are."""
    return ACCOUNT if is_random(match[1]) else match[0]


_OF_CLOUDS: Final = (
    # Resources of AWS, Azure, Google Cloud and Cloudflare, with the account that they belong to.
    rule("arn:aws", rf"\barn:aws[\w-]*:[\w-]*:[\w-]*:\d*:{_REST}+", ACCOUNT),
    rule("subscriptions/", rf"/?\bsubscriptions/{_UUID}(?:/{_REST}*)?", ACCOUNT, re.I),
    rule("resourcegroups/", rf"/?\bresourceGroups/{_REST}+", ACCOUNT, re.I),
    rule(
        "projects/",
        r"\bprojects/(?!\[)[\w.:-]+(?=/(?:locations|global|publishers|models|datasets|services)\b)",
        f"projects/{ACCOUNT}",
    ),
    rule(
        "projects/ accounts/ organizations/",
        rf"\b(projects|accounts|organizations)/(?:\d{{6,}}|[0-9a-f]{{32}}|{_UUID})(?![\w-])",
        rf"\1/{ACCOUNT}",
    ),
    rule("gserviceaccount", r"(?<![\w.+-])[\w.+-]+@[\w.-]+\.gserviceaccount\.com", ACCOUNT),
)
_NAMED: Final = (
    # “account 123456789012”, “Tenant '72f9…'”, “(org: 3f0c…”, “consumer 'project_number:512…'”, “project my-app-481516”
    rule(
        "acc org workspace project tenant subscription team customer uin",
        r"\b((?:account|acct|organi[sz]ation|org|workspace|project|tenant|subscription|team|customer|uin)"
        r"(?:[ _-]?(?:id|number|no\.?))?(?:['\"`]?\s*[:=#]\s*|\s+)['\"`(]?)"
        rf"(?:{_UUID}|[0-9a-f]{{24,64}}|\d{{6,}}|[a-z][a-z0-9-]{{3,20}}-\d{{5,7}})(?![\w-])",
        rf"\1{ACCOUNT}",
        re.I,
    ),
)
_RULES: Final = (
    rule("://", r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)]+", LINK, re.I),
    *_OF_CLOUDS,
    rule(
        "org proj acc user team tenant wrkspc ws- ws_ cus ak- ak_",
        r"(?<![\w.])(?:org|proj|acct|acc|user|team|tenant|wrkspc|ws|cus|ak)[-_]"
        r"([A-Za-z0-9]{6,}(?:-[A-Za-z0-9]{4,})*)",
        _account,
    ),
    *_NAMED,
    # Hosts, by what stands before them.
    rule(
        "lookup",
        rf"\b(lookup\s+)(?!failed|failure|error|timed){_NAME}(?=\s+on\s|\s*:\s|\s*[,)]|$)",
        rf"\1{HOST}",
        re.I,
    ),
    rule(
        "enotfound eai_again econn etimedout ehostunreach unknownhost unknown resolve",
        r"\b((?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|EHOSTUNREACH|UnknownHostException:?|"
        r"unknown host:?|(?:could not|cannot|can't|failed to|unable to) resolve(?: host(?:name)?)?:?)\s+['\"`]?)"
        rf"(?!(?:the|host|address|name|hostname|[a-z]+ing|dns)\b)(?![\d:\[]){_NAME}(?::\d+)?",
        rf"\1{HOST}",
        re.I,
    ),
    rule(
        "host",
        rf"(\bhost(?:name)?['\"]?\s*(?:=\s*(?:b?['\"])?|:\s*b?['\"])){_NAME}(?::\d+)?",
        rf"\1{HOST}",
        re.I,
    ),
    rule(
        ":",
        r"\b((?:host(?:name)?|server|upstream|backend|to|at|from|via|tcp|connect|proxy|address|node|worker|peer|endpoint|"
        rf"service):?\s+['\"`(]?){_NO_HOST}(?!\d+(?:\.\d+){{3}}){_NAME}:\d{{3,5}}{_PORT}",
        rf"\1{HOST}",
        re.I,
    ),
    rule("localhost:", r"\blocalhost:\d{1,5}\b", HOST, re.I),
    # Hosts, by their form.
    rule(
        ":",
        r"(?:(?<![\w:.])\[?|\[)((?:[0-9A-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-F]{0,4}))(?:%\w+)?\]?"
        r"(:\d{1,5})?(?!\w|:[\w:])",
        _long_address,
        re.I,
    ),
    rule(
        "/",
        rf"(?<![\w./-])(?:{_LABEL}(?:\.{_LABEL})+|localhost)/\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?{_PORT}",
        HOST,
    ),
    rule(".", r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5}|/\d{1,2})?(?![\w.]?\d)(?!\w)", _address),
    rule(":", rf"(?<![\w.-])(?:{_LABEL}\.)+(?!(?:{_FILES}):)[A-Za-z][A-Za-z0-9-]+:\d{{2,5}}{_PORT}", HOST),
    rule(
        "".join(f" .{label}" for label in _CERTAIN.split("|")),
        rf"(?<![\w.-])(?:[a-z0-9_-]+\.)+(?:{_CERTAIN})(?:\.[a-z]{{2}})?(?::\d+)?(?![\w-]|\.\w)",
        HOST,
        re.I,
    ),
)
# Hosts by nothing but their last label, which the path of a parameter may have as well.
_ENDINGS: Final = (
    rule(
        "".join(f" .{label}" for label in _LONGER.split("|")),
        rf"(?<![\w./-])(?:[a-z0-9_-]+\.){{2,}}(?:{_LONGER})(?::\d+)?(?![\w-])",
        HOST,
        re.I,
    ),
    rule(
        "".join(f" .{label}" for label in _LIKELY.split("|")),
        rf"(?<![\w.'\"`/-])[a-z0-9-]+\.(?:{_LIKELY})(?![\w'\"`(-]|\.\w)",
        HOST,
        re.I,
    ),
)


def without_accounts(text: str) -> str:
    """A text without accounts at clouds: resource names with them, and numbers that are said to be of one."""
    return apply((*_OF_CLOUDS, *_NAMED), text)


def without_places(text: str, is_name: bool = False) -> str:
    """A text without links, hosts, addresses and accounts. `is_name`: it is what something in a request is called."""
    text = apply(_RULES, text)
    return text if is_name else apply(_ENDINGS, text)
