"""Keys of Amazon Web Services: an API key of Bedrock as it is, or an access key that signs each request (SigV4).

An access key is written `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` behind it for temporary credentials,
and `@REGION` where the host of the channel does not name the region. The secret itself is sent nowhere.

Source: “Create a signed AWS API request” of AWS's IAM user guide, and botocore 1.44, read in November 2026.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

import httpx
from yarl import URL

from portal.lib.redaction.sent import sent
from portal.lib.texts import gettext_noop
from relay.providers.credentials.contract import BadKey, KeyRefused
from relay.transport.body import Body

_SERVICE: Final = "bedrock"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_ACCESS_KEY: Final = re.compile(
    r"(?P<id>[A-Z0-9]{16,128}):(?P<secret>[A-Za-z0-9/+=]{16,128})"
    r"(?::(?P<token>[A-Za-z0-9/+=_-]{16,8192}))?(?:@(?P<region>[a-z0-9-]{5,40}))?"
)
_LOOKS_LIKE_ONE: Final = re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{12,}")
# Of the hosts that AWS documents for Bedrock: public, FIPS, and of endpoints in a VPC.
_REGION: Final = re.compile(r"(?:^|\.)bedrock(?:-runtime)?(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.")
_LARGE: Final = 1024 * 1024  # bytes of a body that is hashed beside the event loop

_WRONG: Final = gettext_noop(
    "An access key of AWS is written as ACCESS_KEY_ID:SECRET_ACCESS_KEY, with :SESSION_TOKEN behind it for temporary "
    "credentials, and @REGION where the host does not name the region. An API key of Bedrock is pasted as it is."
)


@dataclass(frozen=True, slots=True)
class AwsKey:
    """Keys that are API keys of Bedrock, or access keys."""

    header = "authorization"
    is_json = False

    def check(self, secret: str, token_uris: Sequence[str]) -> None:
        self.signer(secret, token_uris)

    def shown(self, secret: str) -> str:
        """The access key's id, which is no secret."""
        found = _ACCESS_KEY.fullmatch(secret)
        return found["id"] if found is not None else secret

    def headers(self, secret: str) -> dict[str, str]:
        return {} if _ACCESS_KEY.fullmatch(secret) else {"authorization": f"Bearer {secret}"}

    def signer(self, secret: str, token_uris: Sequence[str]) -> AwsSigner | None:
        found = _ACCESS_KEY.fullmatch(secret)
        if found is not None:
            return AwsSigner(found["id"], found["secret"], found["token"] or "", found["region"] or "")
        if ":" in secret or _LOOKS_LIKE_ONE.match(secret):  # a part of an access key, which is no API key
            raise BadKey(_WRONG)
        return None


AWS: Final = AwsKey()


@dataclass(frozen=True, slots=True)
class AwsSigner:
    """Signs requests with an access key."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    region: str = ""  # empty: the host names it

    async def signed(self, request: httpx.Request, send: httpx.AsyncBaseTransport) -> dict[str, str]:
        url = URL(str(request.url))  # as it goes out: aiohttp writes an address in yarl's way
        region = self.region or region_of(url.host or "")
        if not region:
            raise KeyRefused(
                401, "The host of the channel names no region: write it behind the key as @REGION.", "region"
            )
        content = request.stream.content if isinstance(request.stream, Body) else await request.aread()
        pieces = (content,) if isinstance(content, bytes) else content
        large = sum(map(len, pieces)) > _LARGE
        digest = await asyncio.to_thread(_digest, pieces) if large else _digest(pieces)
        headers: Mapping[str, str] = request.extensions.get("headers") or request.headers
        own = {"host": url.host_port_subcomponent or ""}
        if url.is_default_port():
            own["host"] = url.host_subcomponent or ""
        if content_type := headers.get("content-type", ""):
            own["content-type"] = content_type
        sent.remember((("", self.key_id), ("", self.secret), ("", self.token)))
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return self.sign(request.method, url, own, digest, moment, region)

    def sign(
        self, method: str, url: URL, headers: Mapping[str, str], digest: str, moment: str, region: str
    ) -> dict[str, str]:
        """The headers that sign a request. `headers`: others that are signed. `moment`: in ISO 8601's basic form."""
        return sign_v4(self, Signed(method, url, headers, digest), moment, f"{moment[:8]}/{region}/{_SERVICE}")

    def renewed(self, used: Mapping[str, str]) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Signed:
    """What of a request is signed."""

    method: str
    url: URL
    headers: Mapping[str, str]  # by names in lower case
    digest: str  # SHA-256 of the body, in hex


def sign_v4(key: AwsSigner, request: Signed, moment: str, scope: str) -> dict[str, str]:
    """The headers that sign a request. `scope`: the day, the region and the service, separated by slashes."""
    added = {"x-amz-date": moment, **({"x-amz-security-token": key.token} if key.token else {})}
    headers = {**request.headers, **added}
    names = sorted(headers)
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    listed = ";".join(names)
    path = quote(request.url.raw_path or "/", safe="/~")
    query = "&".join(sorted(_pair(part) for part in request.url.raw_query_string.split("&") if part))
    canonical = "\n".join((request.method, path, query, lines, listed, request.digest))
    scope = f"{scope}/aws4_request"
    to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signing = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        signing = _hmac(signing, part)
    signature = _hmac(signing, to_sign).hex()
    authorization = f"{_ALGORITHM} Credential={key.key_id}/{scope}, SignedHeaders={listed}, Signature={signature}"
    return {**added, "authorization": authorization}


def region_of(host: str) -> str:
    """The region that a host of Bedrock names; empty: none."""
    found = _REGION.search(host)
    return found[1] if found is not None else ""


def _pair(part: str) -> str:
    """A parameter of a query in the canonical form: with an equals sign, and encoded wherever it can be."""
    name, _, value = part.partition("=")
    return f"{quote(unquote(name), safe='')}={quote(unquote(value), safe='')}"


def _digest(pieces: Sequence[bytes | memoryview]) -> str:
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
