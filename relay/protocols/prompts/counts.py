"""The number of answers that a request asks for, whatever servers call it. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from portal.lib.json import encode
from relay.protocols.fields import Fields, absent, optional_int

# Names that other servers have for the number of answers: SiliconFlow, Replicate, fal, Stability, Ideogram, Google,
# Hugging Face, DashScope and libraries for diffusion (API references, November 2026).
COUNTS: Final = frozenset((
    "batch_size", "candidate_count", "candidateCount", "image_count", "max_images", "n_images", "num_completions",
    "num_generations", "num_images", "num_images_per_prompt", "num_outputs", "num_return_sequences", "num_samples",
    "number_of_images", "numberOfImages", "sampleCount", "samples",
))  # fmt: skip


def one_count(body: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """A body whose number of answers has no other name than `n`, for which another stands where it names none.

    A server that knows another name might make more answers than are paid for. What cannot be understood is left for
    the rules of channels, which leave these names out.
    """
    if COUNTS.isdisjoint(fields) or not absent(fields.get("n")):
        return body, fields
    foreign = COUNTS.intersection(fields)
    counts = [_count(fields[name]) for name in foreign if not absent(fields[name])]
    if not counts or not all(counts):
        return body, fields
    fields = {name: raw for name, raw in fields.items() if name not in foreign}
    fields["n"] = msgspec.Raw(b"%d" % max(count for count in counts if count))
    return encode(fields), fields


def _count(raw: msgspec.Raw) -> int | None:
    """A number of answers; None for anything else."""
    try:
        found = optional_int.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return found if found is not None and found >= 1 else None
