"""Parameters by which a request names other models than its own, as rules of `relay.providers.parameters`. Pure."""

from __future__ import annotations

from typing import Final

# Parameters by which clients name other models than `model`, or choose by themselves who serves it, at which address or
# with which key: what such a request costs is not known here, and whether its user may use the model neither. Source:
# the API references of OpenRouter, LiteLLM's proxy, Vercel's AI gateway, Requesty, Perplexity, Groq, LM Studio,
# Fireworks, LoRAX, new-api, TensorZero, mlx-lm and Anthropic (`fallbacks`, tools that name their model); of OpenAI
# (`moderation.model`, `svg.model` of images and of the tool that makes them, also of tools that an item of the input
# adds), Azure (`data_sources`, whose `embedding_dependency` is a deployment; also addresses and keys), Together
# (`safety_model`, `image_loras`), Mistral (`guardrails`) and Perplexity (`ranking_model`), in the types of their SDKs;
# read in November 2026. Where an object is nothing without its model, all of it is left out, and so are tools of
# OpenRouter that use others of themselves: fusion has a panel, and what no advisor or subagent is given as its model,
# the model chooses as it is told to. Servers of one's own are told which host has a prompt's cache (vLLM, SGLang,
# TensorRT-LLM), and connect to it.
OTHERS: Final = (
    "models", "fallbacks", "fallback", "fallback_model", "fallback_models", "route", "provider", "providers", "preset",
    "plugins", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks",
    "context_window_fallback_dict", "model_list", "user_config", "router_settings_override", "specific_deployment",
    "deployment", "deployment_id", "engine", "model_id", "model_name", "base_model", "target_model", "model_info",
    "litellm_params", "litellm_metadata", "custom_llm_provider", "api_base", "base_url", "api_key", "api_version",
    "extra_body", "extra_headers", "extra_query", "prompt_id", "tags", "group", "providerOptions", "provider_options",
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region_name", "aws_session_name",
    "aws_profile_name", "aws_role_name", "aws_web_identity_token", "aws_sts_endpoint", "aws_bedrock_runtime_endpoint",
    "vertex_project", "vertex_location", "vertex_credentials", "azure_ad_token",
    "requesty", "compound_custom", "draft_model", "speculation", "adapter_id", "adapter_source", "lora_path",
    "kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room", "disaggregated_params",
    "safety_model", "ranking_model", "images/svg", "images/image_loras", "adapters", "tensorzero::variant_name",
    "tensorzero::extra_body",
    "guardrails[].moderation_llm_v1.model_name", "guardrails[].moderation_llm_v2.model_name",
    *(
        f"{place}tools{tools}"
        for place in ("", "responses/input[].")
        for tools in (
            "[openrouter:fusion]", "[openrouter:advisor]", "[openrouter:subagent]", "[].model", "[].svg",
            "[].parameters.model",
        )
    ),
    # Anthropic's beta defines tools in the middle of a conversation, too.
    "messages/messages[].content[].tool.definition.model",
    # Agents of Gemini's, which are priced by their own name.
    "interactions/agent_config.model",
    # Vertex AI may answer with a model that these choose.
    *(
        f"{config}.{name}"
        for config in ("generationConfig", "generation_config")
        for name in ("routingConfig", "routing_config", "modelSelectionConfig", "model_selection_config", "modelConfig")
    ),
)  # fmt: skip
# The same, where the answer would be another without it.
NEEDED: Final = ("chat/moderation", "responses/moderation", "data_sources", "dataSources")
# What the name of a parameter ends with that names a model, by one vendor or another: no table knows all of them.
ENDINGS: Final = (
    "model", "models", "model_id", "modelid", "model_ids", "model_name", "modelname", "model_names", "deployment_name",
)  # fmt: skip
