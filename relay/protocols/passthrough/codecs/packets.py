"""How long a packet of a codec is: one function for each stream, whatever container it is in. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from relay.protocols.passthrough.codecs.aac import AacPackets
from relay.protocols.passthrough.codecs.alac import alac_packet
from relay.protocols.passthrough.codecs.amr import FRAME, NARROW, WIDE, amr_frames
from relay.protocols.passthrough.codecs.flac import flac_frames, stated_rate
from relay.protocols.passthrough.codecs.mpeg import mpeg_packet
from relay.protocols.passthrough.codecs.opus import opus_packet
from relay.protocols.passthrough.codecs.surround import dolby_packet, dts_packet
from relay.protocols.passthrough.codecs.vorbis import VorbisPackets

CodecName = Literal["aac", "alac", "amr", "amr-wb", "dolby", "dts", "flac", "mpeg", "opus", "vorbis"]
# The seconds of the packet of so many bytes at a place. 0: they cannot be told; negative: nor can those of any other.
PacketSeconds = Callable[[bytes, int, int], float]

_MOST_FRAMES: Final = 10_000  # that are looked at in a packet


def packet_seconds(codec: CodecName, config: bytes, rate: float) -> PacketSeconds:
    """What counts the packets of a stream, which come in their order.

    `config`: what the container tells the decoder. `rate`: samples per second that the container states.
    """
    match codec:
        case "aac":
            return AacPackets(config, rate)
        case "alac":
            each = alac_packet(config, rate)
            return lambda content, at, size: each if size > 0 else 0.0
        case "amr":
            return _amr(NARROW)
        case "amr-wb":
            return _amr(WIDE)
        case "dolby":
            return dolby_packet
        case "dts":
            return dts_packet
        case "flac":
            usual = stated_rate(config)
            return lambda content, at, size: flac_frames(content, at, at + size, usual, _MOST_FRAMES)[0]
        case "mpeg":
            return mpeg_packet
        case "opus":
            return opus_packet
        case "vorbis":
            return VorbisPackets(config)


def _amr(sizes: tuple[int, ...]) -> PacketSeconds:
    return lambda content, at, size: FRAME * amr_frames(content, at, at + size, sizes, _MOST_FRAMES)[0]
