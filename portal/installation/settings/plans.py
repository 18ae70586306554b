"""Settings: users' own plans at a vendor: how one signs in, where requests go, and what they may ask for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values


class Plans(BaseModel):
    """ChatGPT plans."""

    plan_users: Literal["off", "superusers", "everyone"] = Field(
        "superusers",
        description=(
            "Who may use their own ChatGPT plan here: nobody, which also ends all use, superusers, or everyone. The "
            "vendor's terms allow an app on a machine that only the owner of the plan controls."
        ),
    )
    plan_shape: Literal["siwc", "codex"] = Field(
        "siwc",
        description=(
            "How a user's own ChatGPT plan is signed in to and asked: `siwc` is what OpenAI supports; `codex` is the "
            "older form, for whoever knows what they do."
        ),
    )
    issuer_base_url: values.ServerUrl = Field(
        "",
        description=(
            "Where people sign in with ChatGPT. Empty: https://auth.openai.com. An address that is not public must be "
            "in UPSTREAM_ALLOW, too."
        ),
    )
    upstream_base_url: values.ServerUrl = Field(
        "", description="Where requests for ChatGPT plans go. Empty: OpenAI's address for PLAN_SHAPE."
    )
    client_id: values.ClientId = Field(
        "",
        description=(
            "The OAuth client by which people sign in with ChatGPT. Empty: `siwc` has one issued at the first sign-in; "
            "`codex` needs one."
        ),
    )
    client_version: values.ClientVersion = Field(
        "",
        description=(
            "Version of a client, which the list of a ChatGPT plan's models is asked with; models that need a newer "
            "one are left out. Empty or `auto`: 0.153.4 for `codex`, none for `siwc`."
        ),
    )
    login_timeout_seconds: values.Seconds = Field(
        900.0, description="How long a sign-in with ChatGPT may take once it has begun, in seconds."
    )
    plan_output_limits: Literal["refuse", "drop", "forward"] = Field(
        "refuse",
        description=(
            "What becomes of max_output_tokens (responses), max_completion_tokens (chat) and max_tokens (completions) "
            "on the way to a ChatGPT plan: 422, left out and named in x-airelays-ignored-parameters, or sent on."
        ),
    )
    plan_concurrency: int = Field(2, ge=1, le=20, description="Requests that one ChatGPT plan is asked at once.")
