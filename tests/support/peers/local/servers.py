"""Servers of models as people run them on their own machine: what each answers to those who look who it is.

Source: the API references of Ollama (`/api/tags`, `/api/version`), LM Studio (REST API v0 and v1) and vLLM, and the
answers of llama.cpp's server, November 2026.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

Answers = dict[str, tuple[int, Any]]  # by path: the status and the JSON


def listed(owner: str, *names: str, **more: Any) -> Any:
    """A list of models in OpenAI's form."""
    entries = [{"id": name, "object": "model", "created": 1796039274, "owned_by": owner, **more} for name in names]
    return {"object": "list", "data": entries}


def _tag(name: str) -> dict[str, Any]:
    details = {
        "parent_model": "", "format": "gguf", "family": "gemma3", "families": ["gemma3"], "parameter_size": "4.3B",
        "quantization_level": "Q4_K_M",
    }  # fmt: skip
    return {
        "name": name, "model": name, "modified_at": "2026-10-03T23:34:03.409490317-07:00", "size": 3338801804,
        "digest": "a2af6cc3eb7fa8be8504abaf9b04e88f17a119ec3f04a3addf55f92841195f5a", "details": details,
    }  # fmt: skip


OLLAMA: Final[Answers] = {
    "/v1/models": (200, listed("library", "gemma3:latest", "llama3.2:3b")),
    "/api/version": (200, {"version": "0.12.3"}),
    "/api/tags": (200, {"models": [_tag("gemma3:latest"), _tag("llama3.2:3b")]}),
}
_STUDIO_MODEL: Final = {
    "id": "qwen2-vl-7b-instruct", "object": "model", "type": "vlm", "publisher": "mlx-community", "arch": "qwen2_vl",
    "compatibility_type": "mlx", "quantization": "4bit", "state": "not-loaded", "max_context_length": 32768,
}  # fmt: skip
LM_STUDIO_0_3: Final[Answers] = {
    "/v1/models": (200, listed("organization_owner", "qwen2-vl-7b-instruct")),
    "/api/v0/models": (200, {"object": "list", "data": [_STUDIO_MODEL]}),
}
LM_STUDIO: Final[Answers] = {
    "/v1/models": (200, listed("organization_owner", "google/gemma-3-4b")),
    "/api/v1/models": (
        200,
        {
            "models": [
                {
                    "type": "llm", "publisher": "google", "key": "google/gemma-3-4b", "display_name": "Gemma 3 4B",
                    "loaded_instances": [], "max_context_length": 131072, "format": "gguf",
                }
            ]
        },
    ),
}  # fmt: skip
_PROPS: Final = {
    "default_generation_settings": {"params": {"seed": 4294967295}, "n_ctx": 4096}, "total_slots": 2,
    "model_path": "/models/Qwen3-4B-Q4_K_M.gguf", "chat_template": "{}", "build_info": "b9042-1a2b3c4d",
}  # fmt: skip
LLAMA_CPP: Final[Answers] = {
    "/v1/models": (200, listed("llamacpp", "/models/Qwen3-4B-Q4_K_M.gguf", meta={"n_ctx_train": 131072})),
    "/props": (200, _PROPS),
}
VLLM: Final[Answers] = {
    "/v1/models": (
        200,
        listed("vllm", "facebook/opt-125m", root="facebook/opt-125m", parent=None, max_model_len=2048, permission=[]),
    ),
    "/version": (200, {"version": "0.11.2"}),
}
# LM Studio answers what it does not know with 200, llama.cpp and vLLM with 404 in JSON, Ollama with a text.
_STUDIO_UNKNOWN: Final = (200, {"error": "Unexpected endpoint or method. (GET). Returning 200 anyway"})
_UNKNOWN: Final = (404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})


@contextmanager
def serving(answers: Answers) -> Iterator[int]:
    """Such a server on a port of its own, which is yielded."""
    unknown = (
        _STUDIO_UNKNOWN if any(path.startswith("/api/v") and path != "/api/version" for path in answers) else _UNKNOWN
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, found = answers.get(self.path, unknown)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
