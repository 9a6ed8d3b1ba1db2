"""What holds for all payloads under a content encoding, and for all bytes that claim to be under one."""

from __future__ import annotations

import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from polaris.exceptions import MessageDecodeError
from polaris.messaging import CompressionMiddleware
from polaris.messaging._content_encoding import is_plain, unpacked
from polaris.messaging.middleware._compression import ZstdEncoding

MARK = {"content-encoding": "zstd"}
BYTES_MAX = 20_000
EVERYTHING = ZstdEncoding(threshold_bytes=1, level=1, bytes_max=BYTES_MAX)
FRAME = zstandard.ZstdCompressor(level=3).compress(b'{"specversion":"1.0","data":"' + b"abc" * 500 + b'"}')

texts = st.tuples(st.binary(max_size=64), st.integers(0, 400)).map(lambda drawn: b"{" + drawn[0] * drawn[1])


@given(texts)
def test_a_payload_comes_back_from_its_frame_and_the_frame_is_smaller(payload: bytes) -> None:
    frame = EVERYTHING.encode(payload)
    if len(payload) > BYTES_MAX:
        assert frame is None
    if frame is not None:
        assert len(frame) < len(payload)
        assert not is_plain(frame)
        assert unpacked(frame, MARK, bytes_max=len(payload)) == payload


@given(st.binary(max_size=400), st.sampled_from(["zstd", "gzip", "", "identity", "ZSTD"]))
@example(b"\x28\xb5\x2f\xfd", "zstd")
def test_any_bytes_are_read_within_the_bound_or_refused_with_one_error(payload: bytes, encoding: str) -> None:
    try:
        content = unpacked(payload, {"content-encoding": encoding}, bytes_max=BYTES_MAX)
    except MessageDecodeError as error:
        assert len(error.message) < 300
        assert not is_plain(payload)
    else:
        assert content == payload or (encoding == "zstd" and len(content) <= BYTES_MAX)


@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255), st.integers(0, len(FRAME)), st.binary(max_size=8))
def test_a_damaged_frame_is_read_within_the_bound_or_refused_with_one_error(
    place: int, change: int, end: int, more: bytes
) -> None:
    damaged = bytearray(FRAME)
    damaged[place] ^= change
    for payload in (bytes(damaged), FRAME[:end], FRAME + more, bytes(damaged[:end]) + more):
        try:
            content = unpacked(payload, MARK, bytes_max=BYTES_MAX)
        except MessageDecodeError:
            continue
        assert content == payload or len(content) <= BYTES_MAX


@given(st.integers(1, 100_000), st.integers(-3, 3), st.booleans())
def test_the_bound_is_kept_to_the_byte(size: int, over: int, declared: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, write_content_size=declared)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(size))
    bytes_max = max(1, size + over)
    try:
        content = unpacked(frame, MARK, bytes_max=bytes_max)
    except MessageDecodeError:
        assert size > bytes_max
    else:
        assert content == bytes(size)
        assert size <= bytes_max


@given(st.integers(1, 5_000), st.integers(1, 19), st.integers(1, 5_000))
def test_legal_options_make_a_middleware(threshold_bytes: int, level: int, more: int) -> None:
    made = CompressionMiddleware(
        threshold_bytes=threshold_bytes, level=level, decompressed_bytes_max=threshold_bytes + more
    )
    assert made.decompressed_bytes_max == threshold_bytes + more
