"""Any context whatever gives an error that can be written as JSON, is bounded, and survives its journeys."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from polaris._redaction import DEPTH_MAX, ITEMS_MAX, NODES_MAX, TEXT_CHARS_MAX, redact, redact_text
from polaris.exceptions import MESSAGE_CHARS_MAX, ErrorContext, PolarisException

ANY_TEXT = st.text(st.characters(), max_size=200)  # with lone surrogates
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**70),
    st.floats(),
    ANY_TEXT,
    st.binary(max_size=50),
    st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    st.just(UUID(int=7)),
    st.just(Path("a") / "b"),
    st.just(ValueError("x")),
    st.just(object()),
    st.just(int),
    st.just(1j),
)
KEYS = st.one_of(ANY_TEXT, st.integers(), st.none(), st.booleans(), st.binary(max_size=5), st.just((1, 2)))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.dictionaries(KEYS, inner, max_size=8),
        st.tuples(inner, inner),
        st.sets(st.integers(), max_size=8),
    ),
    max_leaves=40,
)
CONTEXTS = st.dictionaries(ANY_TEXT, VALUES, max_size=12)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(nodes, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(nodes, value))
    return 1


def assert_bounded_json(error: PolarisException) -> None:
    as_dict = error.to_dict()
    assert json.loads(json.dumps(as_dict, allow_nan=False)) == as_dict
    assert msgspec.json.decode(msgspec.json.encode(as_dict)) == as_dict
    json.dumps(as_dict, ensure_ascii=False).encode("utf-8")
    assert depth(error.context) <= DEPTH_MAX
    # One marker more for each container that was cut.
    assert nodes(error.context) <= 2 * NODES_MAX + ITEMS_MAX
    assert len(error.message) <= MESSAGE_CHARS_MAX
    assert pickle.loads(pickle.dumps(error)).to_dict() == as_dict


@given(CONTEXTS, ANY_TEXT)
def test_any_context_is_bounded_json(context: dict[str, object], message: str) -> None:
    assert_bounded_json(PolarisException(message, context))
    assert_bounded_json(PolarisException(message, ErrorContext.create_context(message, **context)))


@given(CONTEXTS)
def test_cycles_end(context: dict[str, Any]) -> None:
    context["self"] = context
    context["list"] = [context, {"inner": context}]
    context["list"].append(context["list"])
    assert_bounded_json(PolarisException("x", context))


@given(st.integers(1, 3_000), st.integers(0, 2_000), st.integers(0, 5))
def test_deep_wide_and_long_contexts_are_cut(deep: int, wide: int, fan: int) -> None:
    nested: Any = "x" * 10_000
    for _ in range(deep):
        nested = [nested]
    tree: Any = 1
    for _ in range(6):
        tree = {f"branch {number}": tree for number in range(fan)}
    error = PolarisException("x", {"text": "x" * 10_000, "nested": nested, "wide": list(range(wide)), "tree": tree})
    assert_bounded_json(error)
    assert len(error.context["text"]) == TEXT_CHARS_MAX


@given(VALUES)
def test_a_redacted_copy_shares_nothing_mutable_with_the_value(value: object) -> None:
    copied = redact(value)
    if isinstance(value, (list, dict)):
        assert copied is not value


@given(
    st.sampled_from(["password={}", "nats://u:{}@h", "Bearer {}", '"token": "{}"', "api_key: '{}'"]),
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12, max_size=40),
    st.text(max_size=30),
)
def test_a_secret_goes_whatever_it_is_and_redacting_again_changes_nothing(shape: str, secret: str, before: str) -> None:
    text = f"{before} {shape.format(secret)} after"
    redacted = redact_text(text)
    assert secret not in redacted.removeprefix(before)
    assert redact_text(redacted) == redacted


@given(st.sampled_from(["a.", "token", "eyJa-", "-----BEGIN ", "://", "a://b:", "bearer ", 'token:"', "S", "key=\\"]))
def test_no_repetition_takes_the_patterns_long(piece: str) -> None:
    redacted = redact_text(piece * (1_000_000 // len(piece)) + "@=:")
    assert len(redacted) <= TEXT_CHARS_MAX
