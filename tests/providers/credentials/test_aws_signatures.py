"""Requests to AWS are signed as AWS's published examples are."""

from __future__ import annotations

import hashlib

import pytest
from yarl import URL

from relay.providers.credentials.aws import AWS, AwsSigner, Signed, region_of, sign_v4
from relay.providers.credentials.contract import BadKey

# Of the “Signature Version 4 test suite” (aws-sig-v4-test-suite, Amazon).
KEY = AwsSigner("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwth"
    "Ax7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAk"
    "iY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("key", "method", "target", "headers", "body", "signature"),
    [
        (KEY, "GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (KEY, "POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            KEY,
            "GET",
            "/?Param2=value2&Param1=value1",
            {},
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            KEY,
            "POST",
            "/",
            FORM,
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            AwsSigner(KEY.key_id, KEY.secret, TOKEN),
            "POST",
            "/",
            {},
            b"",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ],
)
def test_signatures_are_those_of_the_published_examples(
    key: AwsSigner, method: str, target: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    url = URL(f"https://example.amazonaws.com{target}")
    request = Signed(method, url, {"host": "example.amazonaws.com", **headers}, hashlib.sha256(body).hexdigest())
    signed = sign_v4(key, request, "20150830T123600Z", "20150830/us-east-1/service")
    listed = ";".join(sorted({"host", "x-amz-date", *headers, *(("x-amz-security-token",) if key.token else ())}))
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={listed}, Signature={signature}"
    )
    assert signed["x-amz-date"] == "20150830T123600Z" and signed.get("x-amz-security-token", "") == key.token


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock.eu-central-1.amazonaws.com", "eu-central-1"),
        ("vpce-0a1b-2c3d.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("gateway.example.org", ""),
        ("notbedrock-runtime.us-east-1.amazonaws.com", ""),
    ],
)
def test_the_region_is_that_of_the_host(host: str, region: str) -> None:
    assert region_of(host) == region


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def test_keys_are_told_apart_by_their_form() -> None:
    assert AWS.headers("ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl") == {
        "authorization": "Bearer ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl"
    }
    assert AWS.signer("ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl", ()) is None
    whole = f"ASIAIOSFODNN7EXAMPLE:{SECRET}:{TOKEN}@eu-west-3"
    assert AWS.headers(whole) == {} and AWS.shown(whole) == "ASIAIOSFODNN7EXAMPLE"
    assert AWS.signer(whole, ()) == AwsSigner("ASIAIOSFODNN7EXAMPLE", SECRET, TOKEN, "eu-west-3")
    assert SECRET not in repr(AWS.signer(whole, ())) and TOKEN not in repr(AWS.signer(whole, ()))


@pytest.mark.parametrize(
    "text", ["AKIAIOSFODNN7EXAMPLE", f"AKIAIOSFODNN7EXAMPLE:{SECRET}:", f":{SECRET}", f"akia1234:{SECRET}", "a:b"]
)
def test_a_part_of_an_access_key_is_refused(text: str) -> None:
    """It would go out as an API key otherwise."""
    with pytest.raises(BadKey):
        AWS.check(text, ())
