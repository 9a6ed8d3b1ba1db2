"""What is stored as a document is what the whole check accepts, whichever way was taken."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polaris.domain._checks import TREE_DEPTH_MAX, TREE_NODES_MAX
from polaris.exceptions import InvalidValueError
from polaris.storage._limits import checked_tree
from polaris.storage._rows import encoded_checked

ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**65), 2**65),
        st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1]),
        st.floats(),
        st.text(st.characters(exclude_categories=()), max_size=3),
        st.sampled_from([b"x", object(), {1}, 1j]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(
            st.text(st.characters(exclude_categories=()), max_size=2) | st.integers(0, 1), inner, max_size=3
        ),
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(MappingProxyType),
    ),
    max_leaves=8,
)


def deep(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "_id", "_version"]), ANYTHING, max_size=3))
@example(deep(TREE_DEPTH_MAX))
@example(deep(TREE_DEPTH_MAX + 1))
@example({"a": [0] * (TREE_NODES_MAX - 2)})
@example({"a": [0] * (TREE_NODES_MAX - 1)})
@example({"a": "\ud800"})
@example({"\ud800": 1})
@example({"a": (1, 2)})
def test_a_document_is_stored_exactly_when_the_whole_check_accepts_it(document: dict[str, Any]) -> None:
    try:
        checked_tree("document", document)
    except InvalidValueError as refusal:
        with pytest.raises(InvalidValueError) as found:
            encoded_checked(document)
        assert found.value.message == refusal.message
        return
    stored = msgspec.json.decode(encoded_checked(document))
    plain = {key: value for key, value in document.items() if key not in ("_id", "_version")}
    assert stored == msgspec.json.decode(msgspec.json.encode(plain, enc_hook=dict))
