"""What becomes of messages that upstreams and the libraries before them send. None of the keys was sent by this
process.
"""

from __future__ import annotations

import pytest

from portal.lib.redaction.redact import clean_upstream_message

UUID = "3f0c5ab2-1234-4abc-8def-0123456789ab"
TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

# Message of the upstream, message for the client.
CLEANED = [
    # Keys, whole and masked: OpenAI, Perplexity, NVIDIA, Zhipu, Baidu, xAI, DeepSeek, LiteLLM, Groq, Google, AWS …
    ("Incorrect API key provided: sk-ab1***************************wxyz.",
     "Incorrect API key provided: [redacted key]."),
    ("Incorrect API key provided: sk-ab***xyz. You can find it in your account.",
     "Incorrect API key provided: [redacted key]. You can find it in your account."),
    ("Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.",
     "Incorrect API key provided: [redacted key]. You can obtain an API key from [link removed]"),
    ("Invalid API key provided: pplx-…1234.", "Invalid API key provided: [redacted key]."),
    ("Invalid API key: pplx-0123456789abcdef0123456789abcdef0123456789abcdef", "Invalid API key: [redacted key]"),
    ("Key nvapi-AbCdEf0123456789_AbCdEf0123-x is not valid", "Key [redacted key] is not valid"),
    ("Authentication Fails, Your api key: ****c3d4 is invalid",
     "Authentication Fails, Your api key: [redacted key] is invalid"),
    ("Authentication Error, Invalid proxy server token passed. Received API Key = sk-...9f3a, Key Hash (Token) ="
     "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b. Unable to find token in cache",
     "Authentication Error, Invalid proxy server token passed. Received API Key = [redacted key], Key Hash (Token) ="
     "[redacted key]. Unable to find token in cache"),
    ("身份验证失败: 0a1b2c3d4e5f60718293a4b5c6d7e8f9.AbCdEfGh12345678", "身份验证失败: [redacted key]"),
    ("masked: Qm7v***Hj5p, Qm7v…Hj5p, Qm7v...Hj5p, Qm7v••••Hj5p, Qm7**********",
     "masked: [redacted key], [redacted key], [redacted key], [redacted key], [redacted key]"),
    ("cut off: (Qm7v***", "cut off: ([redacted key]"),
    ("Your key: …Yc6d, api key ...Yc6d", "Your key: [redacted key], api key [redacted key]"),
    ("密钥gsk_Wm4Tq9ZxR2Lc8Vn1无效", "密钥[redacted key]无效"),
    ("Invalid token: 5Xk2mPq9Lr7vTn3wYc8dZs4b", "Invalid token: [redacted key]"),
    (f"token {TOKEN} has expired", "token [redacted key] has expired"),
    ("invalid_iam_token: bce-v3/ALTAK-abcdEF12/0123456789abcdef0123", "invalid_iam_token: [redacted key]"),
    ("Bad credentials: ghp_0123456789abcdefghijABCDEFGHIJ012345", "Bad credentials: [redacted key]"),
    ("Bad credentials: github_pat_11ABCDEFG0abcdefghij_klmnop", "Bad credentials: [redacted key]"),
    ("Request had invalid credentials ya29.a0AfH6SMBxyz-abc_123.", "Request had invalid credentials [redacted key]."),
    ("Invalid API Key gsk_Wm4Tq9ZxR2Lc8Vn1", "Invalid API Key [redacted key]"),
    ("The security token included in the request is invalid: ASIAABCDEFGHIJKLMNOP",
     "The security token included in the request is invalid: [redacted key]"),
    ("Credential=AKIAIOSFODNN7EXAMPLE/20261128/us-east-1 is scoped wrong",
     "Credential=[redacted key]/20261128/us-east-1 is scoped wrong"),
    ("AADSTS7000215: Invalid client secret provided: abc8Q~ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef123",
     "AADSTS7000215: Invalid client secret provided: [redacted key]"),
    ("Bearer Wm4Tq9ZxR2Lc8Vn1 is not a token", "Bearer [redacted] is not a token"),
    # Hosts: Go, Node.js, Python, Java, gRPC, curl
    ("dial tcp: lookup api.foo-relay.top on 127.0.0.11:53: no such host",
     "dial tcp: lookup [host] on [address]: no such host"),
    ("proxyconnect tcp: dial tcp: lookup squid on 10.0.0.2:53: server misbehaving",
     "proxyconnect tcp: dial tcp: lookup [host] on [address]: server misbehaving"),
    ("dial tcp [fd12:3456:789a::12]:8000: connect: connection refused",
     "dial tcp [address]: connect: connection refused"),
    ("getaddrinfo ENOTFOUND llm.intranet.example.de", "getaddrinfo ENOTFOUND [host]"),
    ("getaddrinfo EAI_AGAIN ollama", "getaddrinfo EAI_AGAIN [host]"),
    ("connect ECONNREFUSED ::1:11434", "connect ECONNREFUSED [address]"),
    ("connect ECONNREFUSED 172.18.0.5:11434", "connect ECONNREFUSED [address]"),
    ("HTTPConnectionPool(host='vllm-backend', port=8000): Max retries exceeded with url: /v1/chat/completions",
     "HTTPConnectionPool(host='[host]', port=8000): Max retries exceeded with url: /v1/chat/completions"),
    ("Cannot connect to host vllm-svc.prod.svc:8000 ssl:default [Connect call failed ('10.1.2.3', 8000)]",
     "Cannot connect to host [host] ssl:default [Connect call failed ('[address]', 8000)]"),
    ("Cannot connect to host vllm:8000 ssl:default [Name or service not known]",
     "Cannot connect to host [host] ssl:default [Name or service not known]"),
    ("connection to gpu-node-3.lan:8000 failed", "connection to [host] failed"),
    ("litellm-proxy.llm.svc.cluster.local:4000 and host.docker.internal:8080", "[host] and [host]"),
    ("Connect to llm-gw.corp.example:8443 [llm-gw.corp.example/10.9.8.7] failed: Connection refused",
     "Connect to [host] [[host]] failed: Connection refused"),
    ("java.net.UnknownHostException: vllm-backend", "java.net.UnknownHostException: [host]"),
    ("last error: UNKNOWN: ipv4:10.0.0.1:443: Failed to connect; ipv6:[::1]:50051",
     "last error: UNKNOWN: ipv4:[address]: Failed to connect; ipv6:[address]"),
    ("连接api.foo.com:443失败", "连接[host]失败"),
    ("Could not resolve host: gpu01", "Could not resolve host: [host]"),
    ("Request to inference-7.models.relay.xyz timed out", "Request to [host] timed out"),
    ('Post "http://10.2.3.4:8080/v1/x": EOF', 'Post "[link removed]": EOF'),
    # Accounts: OpenAI, Groq, Moonshot, Anthropic, xAI, AWS, Azure, Google Cloud, Cloudflare
    ("Rate limit reached for gpt-4o in organization org-AbCdEf0123456789AbCdEf01 on tokens per min (TPM): Limit 30000",
     "Rate limit reached for gpt-4o in organization [account] on tokens per min (TPM): Limit 30000"),
    ("Project `proj_AbC123dEf456` does not have access to model `gpt-5`",
     "Project `[account]` does not have access to model `gpt-5`"),
    ("Rate limit reached for model `llama-3.3-70b` in organization `org_01hx8kabcdefgh` service tier `on_demand`",
     "Rate limit reached for model `llama-3.3-70b` in organization `[account]` service tier `on_demand`"),
    ("Your account org-0123456789abcdef<ak-f8abcdefgh1234> request reached organization max RPM: 3",
     "Your account [account]<[account]> request reached organization max RPM: 3"),
    (f"This request would exceed your organization’s rate limit of 50,000 input tokens per minute (org: {UUID}, x)",
     "This request would exceed your organization’s rate limit of 50,000 input tokens per minute (org: [account], x)"),
    (f"Your team {UUID} has used all available credits", "Your team [account] has used all available credits"),
    ("Account acc_01JABCDEFGH is suspended", "Account [account] is suspended"),
    ("User: arn:aws:iam::123456789012:user/relay is not authorized to perform: bedrock:InvokeModel on resource: "
     "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3",
     "User: [account] is not authorized to perform: bedrock:InvokeModel on resource: [account]"),
    ("Too many requests for account 123456789012", "Too many requests for account [account]"),
    (f"Tenant '{UUID}' not found; /subscriptions/{UUID}/resourceGroups/rg-prod/providers/Microsoft.CognitiveServices",
     "Tenant '[account]' not found; [account]"),
    ("Publisher Model `projects/my-proj-123/locations/us-central1/publishers/google/models/gemini-9` was not found",
     "Publisher Model `projects/[account]/locations/us-central1/publishers/google/models/gemini-9` was not found"),
    ("Quota exceeded for consumer 'project_number:512345678901'",
     "Quota exceeded for consumer 'project_number:[account]'"),
    ("Generative Language API has not been used in project 512345678901 before",
     "Generative Language API has not been used in project [account] before"),
    ("relay@my-proj.iam.gserviceaccount.com lacks a permission", "[account] lacks a permission"),
    ("Could not route to /client/v4/accounts/0123456789abcdef0123456789abcdef/ai/run/x",
     "Could not route to /client/v4/accounts/[account]/ai/run/x"),
]  # fmt: skip

# The client's own words, and what every client may know.
KEPT = [
    "Invalid schema for response_format 'profile': In context=('properties', 'user_profile'), 'additionalProperties' "
    "is required to be supplied and to be false.",
    "Unknown parameter: 'tools[0].user_location.town'.",
    "Invalid 'tools[0].function.name': 'org-structure lookup' does not match '^[a-zA-Z0-9_-]+$'.",
    "Invalid value: 'proj_deadline'. Supported: 'user_report2025', 'user_firstName', 'team_members', 'acct_overview'.",
    "basic authentication is not supported",
    "Bearer authentication or basic JavaScript, bearer token-based",
    "The model `meta/llama-3.1.ai` does not exist",
    "messages[3].tool_calls[0].function.name 'web.app' is invalid",
    "Model 'qwen2.5:14b' not found, try pulling it first; llama3:70b",
    "us.anthropic.claude-3-5-sonnet-20241022-v2:0 is not available in your region",
    "accounts/fireworks/models/llama-v3p1-8b-instruct does not exist",
    "Permission 'aiplatform.endpoints.predict' denied",
    "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `x` at line "
    "1 column 60",
    "Invalid parameter: messages with role 'tool' must follow 'tool_calls' at position:1234, limit:1000, status:404",
    "Request too large on tokens per min (TPM): Limit 30000, Requested 50000. Visit your account to learn more.",
    "This organization has been disabled.",
    "Your organization 'acme' and project 'summer' have no access, team limit 60",
    "handler.py:123 expected 12:30:45, got x[::2] of std::vector a::b",
    "Chrome/120.0.0.0 is no browser that is supported",
    "key_findings, token_limit and api_key_name are required",
    "Unexpected token: 'response_format2'",
    "api key not valid. Please pass a valid API key.",
    "lookup failed: connect to server, host: must be a string",
    "response.data.id, messages.0.content.name and tools.0.function.strict are unknown",
    "**kwargs and sh***t, Loading ... done, Loading...done, step1...step2, 10...100, **bold**, gpt-4o...",
    "无效的令牌 (request id: 2026112809541234567890)",
]


@pytest.mark.parametrize(("said", "told"), CLEANED)
def test_what_nobody_may_know_is_taken_out(said: str, told: str) -> None:
    assert clean_upstream_message(said) == told


@pytest.mark.parametrize("said", KEPT)
def test_what_clients_need_stays(said: str) -> None:
    assert clean_upstream_message(said) == said


@pytest.mark.parametrize("said", [said for said, _ in CLEANED] + KEPT)
def test_cleaning_twice_changes_nothing_more(said: str) -> None:
    """A message passes more than one relay."""
    once = clean_upstream_message(said)
    assert clean_upstream_message(once) == once


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a-", "a:", "1.", "::", "*", "a*", ".", "/a", "key ", "a@", "sk-", "host "]
)
def test_no_text_takes_long(piece: str) -> None:
    """As far as it is read. A pattern that tries all ways to read it would not end."""
    assert len(clean_upstream_message(piece * 10_000)) <= 900
