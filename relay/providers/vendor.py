"""What is known of one vendor of AI APIs, or of one kind of server that people run themselves. Pure data.

A file of `relay.providers.vendors` describes one vendor, and names the source of its facts and the month when they
were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from relay.protocols.framing.envelope import Envelope
from relay.protocols.usage import CostMember, ReasoningCount
from relay.providers.accounts.balances import BalanceSource
from relay.providers.accounts.bills import BillSource
from relay.providers.apis import (
    CHAT,
    GEMINI,
    MESSAGES,
    OPENAI_COMPATIBLE,
    PATHS,
    RESPONSES,
    ModelApis,
    apis_of_model,
)
from relay.providers.credentials.contract import Credentials
from relay.providers.credentials.static import BEARER
from relay.providers.failures import Rule
from relay.providers.parameters import Policy
from relay.providers.plans.shapes import Shape
from relay.providers.relays.prices import PriceSource

# APIs for text of other vendors, which some have beside OpenAI's.
_FURTHER: Final = MESSAGES | GEMINI
# Seconds that a prompt is taken to be cached where the vendor says nothing: the shortest that any of them has.
UNDOCUMENTED_SECONDS: Final = 300.0
# Seconds that a prompt stays in a cache to which it was written for an hour.
HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCache:
    """What a vendor documents of its cache of prompts. What is not documented is 0."""

    # Tokens of the shortest prompt that any of its models caches.
    least: int = 0
    # The same of some models: parts of their names, the first that fits counts.
    least_of: tuple[tuple[str, int], ...] = ()
    # Seconds that a prompt is kept at least after its last use, and at most.
    seconds: float = 0.0
    longest: float = 0.0
    # Only what a request marks is cached.
    marked: bool = False

    def least_for(self, model: str) -> int:
        """The tokens of the shortest prompt that a model caches, by its name at the vendor. 0: not documented."""
        return next((tokens for part, tokens in self.least_of if part in model), self.least)


NO_CACHE_FACTS: Final = PromptCache()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One vendor. What has a default is left out where the vendor does as OpenAI-compatible servers usually do."""

    # Its name in channels, rules and records, and the name of its file. It never changes once there are channels of it.
    key: str
    # Its name on pages.
    label: str
    # Where it stands in lists of vendors, ascending; vendors at the same place go by key. The groups of
    # `relay.providers.vendors` are ranges of it, and a plan stands behind its vendor.
    position: int = 500

    # The family of APIs that it speaks. Empty: none that the relay speaks, so that no channel can be made for it.
    protocol: Literal["openai", "anthropic", "gemini", "ollama", "cohere", ""] = "openai"
    # Its own address with the version path, empty when every customer has another.
    base_url: str = ""
    # The path that its base URLs end in, where `base_url` does not say it.
    version_path: str = ""
    # Its base URLs have no path: the version of its API is elsewhere.
    bare_host: bool = False
    # The form of its base URLs where every customer has another, with what is the customer's own in braces.
    address_form: str = ""
    # Answers inside the portal: there is no address, no key and no network.
    built_in: bool = False
    # How a request is signed.
    credentials: Credentials = BEARER
    # It serves people by the plans that they pay for themselves, in these forms, the supported one first. Its channels
    # belong to one person each, are made by signing in, and are nobody else's.
    plans: tuple[Shape, ...] = ()
    # What a plan does not take as a limit of the output, by API: a parameter's name.
    refused_limits: Mapping[str, str] = field(default_factory=dict)
    # Further headers of every request, by their names in lower case. Those that a client may set stand above them.
    headers: Mapping[str, str] = field(default_factory=dict)
    # A header that names the conversation, by a digest, so that the vendor finds what it has cached of it; empty: none.
    session_header: str = ""
    # Its name in OpenTelemetry's conventions (gen_ai.provider.name); empty: as `key`.
    telemetry_name: str = ""
    # It serves certain client apps only, and is told which one asks, as that says it itself.
    tells_agent: bool = False
    # Whether a channel without a key makes no sense.
    needs_key: bool = True
    # Path of the list of models, below the base URL; below the host if it begins with two slashes.
    models_path: str = "/models"

    # Beginnings of its hosts, and of those that have the list of models of each: the same service under another name.
    models_host: tuple[str, str] = ("", "")
    # Paths of further lists, of models that the first one lacks.
    more_models_paths: tuple[str, ...] = ()

    # The APIs that it has, by their names in PATHS. A channel may say otherwise about chat and responses.
    apis: frozenset[str] = OPENAI_COMPATIBLE
    # Those of them that models have whose names at the upstream fit a pattern, the first that does. Others have all.
    model_apis: ModelApis = ()
    # Paths that differ from PATHS; each `/..` at the beginning leaves a segment of the base URL out.
    paths: Mapping[str, str] = field(default_factory=dict)
    # Paths of APIs for streamed answers, where they are others.
    stream_paths: Mapping[str, str] = field(default_factory=dict)
    # Its streams are no server-sent events, but framed in another way.
    framed: bool = False
    # How it takes requests of Anthropic's API, where the model is not in the body.
    envelope: Envelope | None = None
    # Counts the tokens of contents, and knows no `generateContentRequest` around a whole request.
    counts_bare: bool = False
    # Takes requests for vectors without the name of the model, and their options in an object of their own.
    embeds_bare: bool = False
    # It is a relay, so that requests to it may come back.
    relay: bool = False
    # Keeps responses, so that a next turn may name them.
    stores: bool = False

    # Ends its streams with [DONE]. A channel can only turn it off.
    sends_done: bool = True
    # Takes stream_options and reports usage in streams. A channel can only turn it off.
    stream_usage: bool = True
    # What a chat request calls the most tokens that the answer may have.
    output_field: str = "max_tokens"
    # How it counts reasoning tokens in the usage of chat completions and responses.
    reasoning: ReasoningCount = "inside"
    # Refuses thinking that it has not signed. Vendors of other models write and take thinking without a signature.
    signs_thinking: bool = False
    # An output limit holds for what its models think as well; otherwise only for what they say then.
    limits_thinking: bool = True
    # The member of its usage that says what it charges for the request, empty: it says nothing. Only it may use the
    # name in this sense, since what it says becomes the request's upstream cost.
    cost_member: CostMember | Literal[""] = ""
    # The fewest tokens that a limit of /responses may name.
    least_output: int = 1
    # Takes system messages behind others, at its own address: templates of open models demand that one is the first.
    late_system: bool = False
    # The members of Anthropic's `cache_control` that it takes in chat completions, at the ends of prefixes that it is
    # to cache. Empty: it knows no such ends, and is not sent those of clients of Anthropic's API.
    cache_marks: frozenset[str] = frozenset()
    # What it documents of its cache of prompts, at its own addresses.
    prompt_cache: PromptCache = NO_CACHE_FACTS
    # What becomes of parameters that it does not take, by the rules of `relay.providers.parameters`.
    parameters: Policy = field(default_factory=dict)
    # Refuses an explicit null, so that members with one are left out: of a request, and of items of `input`.
    strips_nulls: bool = False

    # What its failures mean, the first that fits; the rules that hold for every vendor follow.
    failures: tuple[Rule, ...] = ()
    # Where it says what is left on an account, None when it does not.
    balance: BalanceSource | None = None
    # Other places, for servers of several kinds: the first that answers is believed.
    more_balances: tuple[BalanceSource, ...] = ()
    # Where it says what it billed by day, to keys of administrators; None when it does not.
    bill: BillSource | None = None
    # Where relays say what they charge for each model, for servers of several kinds: the first that answers.
    prices: tuple[PriceSource, ...] = ()

    # The vendor in genai-prices where models of its channels are looked up first, empty: none.
    price_list: str = ""
    # Vendors in genai-prices where every other model is looked up, too, each with its place in that search, ascending.
    price_search: Mapping[str, int] = field(default_factory=dict)
    # Price classes that the list lacks, as multiples of the price of input.
    price_multiples: Mapping[str, int] = field(default_factory=dict)

    @property
    def models_paths(self) -> tuple[str, ...]:
        """The paths of all lists of models."""
        return (self.models_path, *self.more_models_paths)

    def path(self, api: str, streamed: bool = False) -> str:
        """The path of an API below the base URL."""
        return (streamed and self.stream_paths.get(api)) or self.paths.get(api) or PATHS[api]

    def apis_by_model(self, text_api: str) -> ModelApis:
        """Which APIs models have by their names, where the administrator of a channel has not chosen one for text."""
        return self.model_apis if self.protocol != "openai" or not text_api else ()

    def cache_at(self, base_url: str) -> PromptCache:
        """What is documented of the cache of prompts behind an address: nothing where another server may be."""
        own = self.base_url.rstrip("/")
        return self.prompt_cache if own in {"", base_url.rstrip("/")} else NO_CACHE_FACTS

    def served(self, text_api: str, model: str = "") -> frozenset[str]:
        """The APIs of a channel, by the API for text that its administrator chose; empty: as the vendor does.

        Vendors of another family have their own API for text alone. `model`: only those of the model that the upstream
        calls so.
        """
        if self.protocol != "openai" or not text_api:
            return self.apis & apis_of_model(self.model_apis, model) if model else self.apis
        if text_api == "chat":
            return (self.apis | CHAT) - RESPONSES - _FURTHER
        if text_api == "responses":
            return (self.apis | RESPONSES) - CHAT - _FURTHER
        return (self.apis | CHAT | RESPONSES) - _FURTHER
