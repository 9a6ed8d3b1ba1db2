"""The header `content-encoding`: what was done to the bytes of a message, and how it is undone within bounds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from polaris.exceptions import MessageDecodeError
from polaris.messaging._context import MessageContext, PayloadEncoding

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor

CONTENT_ENCODING_HEADER = "content-encoding"
ZSTD = "zstd"
DECOMPRESSED_BYTES_MAX = 8 << 20
WINDOW_BYTES_MAX = 8 << 20
"""What a sender may ask a receiver to keep (RFC 9659, 3)."""
_NAME_CHARS_MAX = 64

_of_thread = threading.local()


def is_plain(payload: bytes) -> bool:
    """Whether the bytes are JSON as they are, judged by the first one: no encoding begins with a brace or bracket."""
    return payload[:1] in (b"{", b"[")


def packed(payload: bytes, context: MessageContext, encoding: PayloadEncoding) -> bytes:
    """The payload under an encoding that the context asks for; the header says so if it was applied."""
    encoded = encoding.encode(payload)
    if encoded is None:
        context.headers.pop(CONTENT_ENCODING_HEADER, None)
        return payload
    context.headers[CONTENT_ENCODING_HEADER] = encoding.name
    return encoded


def unpacked(payload: bytes, headers: Mapping[str, str], *, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """The bytes as they were before the encoding that the header names; without one, these.

    Takes one zstd frame and nothing behind it. Never makes room for more than `bytes_max` bytes, nor for a window of
    more than 8 MiB, whatever the frame says. Raises `MessageDecodeError` for a frame that is broken or too large, and
    for any other encoding.
    """
    name = headers.get(CONTENT_ENCODING_HEADER) or headers.get("Content-Encoding")
    if name is None or name == "identity" or is_plain(payload):
        return payload
    if name != ZSTD:
        raise MessageDecodeError(f"content-encoding {name[:_NAME_CHARS_MAX]!r} is not understood; zstd is")
    return _decompressed(payload, bytes_max)


def _decompressed(payload: bytes, bytes_max: int) -> bytes:
    from zstandard import CONTENTSIZE_UNKNOWN, ZstdError, get_frame_parameters

    try:
        declared = get_frame_parameters(payload).content_size
        if declared != CONTENTSIZE_UNKNOWN:
            if declared > bytes_max:
                raise _too_large(bytes_max)
            return _decompressor().decompress(payload, allow_extra_data=False)
        # Room is made for `max_output_size` bytes at once; pages that are never written to cost nothing.
        content = _decompressor().decompress(payload, max_output_size=bytes_max)
        # Now that the size is known, what stands behind the frame can be looked for without danger.
        rest = _decompressor().decompressobj()
        rest.decompress(payload)
    except ZstdError as error:
        message = f"a broken zstd frame, or one of more than {bytes_max} bytes: {error}"
        raise MessageDecodeError(message, {"decompressed_bytes_max": bytes_max}) from error
    if rest.unused_data:
        raise MessageDecodeError(f"{len(rest.unused_data)} bytes stand behind the zstd frame")
    return content


def _too_large(bytes_max: int) -> MessageDecodeError:
    return MessageDecodeError(
        f"a zstd frame of more than {bytes_max} bytes decompressed", {"decompressed_bytes_max": bytes_max}
    )


def _decompressor() -> ZstdDecompressor:
    """That of the running thread: one must not be used by two at once."""
    known: ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if known is None:
        from zstandard import ZstdDecompressor

        known = _of_thread.decompressor = ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    return known
