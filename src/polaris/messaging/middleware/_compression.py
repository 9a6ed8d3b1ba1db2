"""Smaller messages where that pays: zstd, marked by a header."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from polaris.exceptions import InvalidValueError
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._content_encoding import DECOMPRESSED_BYTES_MAX, ZSTD
from polaris.messaging._context import MessageContext, MessageDirection

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

THRESHOLD_BYTES = 1_024
LEVEL_MAX = 19
"""Levels above this one ask the receiver for more memory than it may be asked for."""
_PUBLISH = MessageDirection.PUBLISH


class ZstdEncoding:
    """One zstd frame that says how large its content is, if that is smaller. Safe to share between threads."""

    name = ZSTD

    def __init__(self, *, threshold_bytes: int, level: int, bytes_max: int) -> None:
        self._threshold_bytes = threshold_bytes
        self._level = level
        self._bytes_max = bytes_max
        self._of_thread = threading.local()

    def encode(self, payload: bytes) -> bytes | None:
        if not self._threshold_bytes <= len(payload) <= self._bytes_max:
            return None
        frame = self._compressor().compress(payload)
        return frame if len(frame) < len(payload) else None

    def _compressor(self) -> ZstdCompressor:
        known: ZstdCompressor | None = getattr(self._of_thread, "compressor", None)
        if known is None:
            from zstandard import ZstdCompressor

            known = self._of_thread.compressor = ZstdCompressor(level=self._level)
        return known


class CompressionMiddleware(MessageMiddleware):
    """Sends payloads from `threshold_bytes` on as a zstd frame if that is smaller, with `content-encoding: zstd`.

    It decides about writing alone: every bus reads compressed messages, with or without it. Clients of other make that
    receive from this bus must know the header. A request is compressed only with `requests=True`, as whoever answers it
    may know nothing of it; replies never are. It may stand anywhere in a chain: the bytes are made behind all of it.

    Args:
        threshold_bytes: smaller payloads are sent as they are.
        level: 1 (fast) to 19 (small).
        decompressed_bytes_max: larger payloads are sent as they are, and in a bus with this middleware a received frame
            that decompresses to more is put aside with its original bytes. Others hold to 8 MiB.
        requests: compress requests too.
    """

    def __init__(
        self,
        *,
        threshold_bytes: int = THRESHOLD_BYTES,
        level: int = 1,
        decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX,
        requests: bool = False,
    ) -> None:
        if type(threshold_bytes) is not int or threshold_bytes < 1:
            raise InvalidValueError("threshold_bytes", "an integer of at least 1", threshold_bytes)
        if type(level) is not int or not 1 <= level <= LEVEL_MAX:
            raise InvalidValueError("level", f"an integer from 1 to {LEVEL_MAX}", level)
        if type(decompressed_bytes_max) is not int or decompressed_bytes_max < threshold_bytes:
            least = f"an integer of at least threshold_bytes, {threshold_bytes}"
            raise InvalidValueError("decompressed_bytes_max", least, decompressed_bytes_max)
        self.decompressed_bytes_max = decompressed_bytes_max
        self._requests = requests
        self._encoding = ZstdEncoding(threshold_bytes=threshold_bytes, level=level, bytes_max=decompressed_bytes_max)

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction is _PUBLISH and (self._requests or not context.awaits_reply):
            context.encoding = self._encoding
        return await next_handler(context)
