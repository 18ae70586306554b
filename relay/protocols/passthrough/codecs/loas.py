"""The frames of AAC in LOAS, whose configuration is in the frames themselves. Pure. Source: ISO/IEC 14496-3, 1.7."""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.codecs.aac import AAC_RATES, AacConfig, BlockCheck

_SYNC: Final = 0x2B7  # 11 bits
_HEAD: Final = 3  # bytes
_BUFFER: Final = 8  # bits of the fullness that a frame of the only kind that is known here states


class LoasFrames:
    """Reads the frames of one stream."""

    def __init__(self) -> None:
        self._config: AacConfig | None = None
        self._check: BlockCheck | None = None
        self._blocks = 1  # of each frame
        self.failed = False  # decoders may read more of it than it has frames, or it has something not known here

    def __call__(self, content: bytes, at: int) -> tuple[int, float]:
        """The size and the seconds of the frame at this place; 0 where there is none."""
        head = int.from_bytes(content[at : at + _HEAD], "big")
        size = head & 0x1FFF
        if head >> 13 != _SYNC or not size or at + _HEAD > len(content):
            return 0, 0.0
        if at + _HEAD + size > len(content):  # it breaks off
            return _HEAD + size, 0.0
        body = content[at + _HEAD : at + _HEAD + size]
        bits, left = int.from_bytes(body, "big"), 8 * size
        try:
            left = self._describe(bits, left)
            config = self._config
            if config is None:
                return _HEAD + size, 0.0
            length = 0
            while left >= 8:
                left -= 8
                part = bits >> left & 255
                length += part
                if part < 255:
                    break
            if 8 * length > left:
                return _HEAD + size, 0.0
            if self._check is not None and self._blocks == 1:
                self._check.look((bits >> left - 8 * length & (1 << 8 * length) - 1).to_bytes(length, "big"), 0, length)
                self.failed = self.failed or self._check.failed
            return _HEAD + size, self._blocks * config.samples / config.rate
        except ValueError:
            self.failed = True
            return _HEAD + size, 0.0

    def _describe(self, bits: int, left: int) -> int:
        """Read the configuration, if the frame has one; returns how many bits are left. Raises ValueError."""
        if bits >> left - 1 & 1:  # that of the frame before
            return left - 1
        if left < 48:
            raise ValueError("no room for a configuration")
        version, same = bits >> left - 2 & 1, bits >> left - 3 & 1
        number, several = bits >> left - 9 & 63, bits >> left - 16 & 127
        left -= 16
        if version or not same or several:
            raise ValueError("a form that is not known here")
        config = AacConfig.of(_aligned(bits, left))
        if config is None or not config.rate or not config.is_known:
            raise ValueError("a kind that is not known here")
        left -= config.bits
        if bits >> left - 3 & 7:
            raise ValueError("frames whose length is told otherwise")
        left -= 3 + _BUFFER
        if bits >> left - 1 & 1:
            raise ValueError("data beside the sound")
        left -= 1
        left -= 9 if bits >> left - 1 & 1 else 1  # a checksum
        if config != self._config:
            nearest = min(range(len(AAC_RATES)), key=lambda index: abs(AAC_RATES[index] - config.rate))
            self._config, self._check = config, BlockCheck(config.kind, nearest)
        self._blocks = number + 1
        return left


def _aligned(bits: int, left: int) -> bytes:
    """The next bits as bytes."""
    return ((bits & (1 << left) - 1) << 128 >> left).to_bytes(16, "big")
