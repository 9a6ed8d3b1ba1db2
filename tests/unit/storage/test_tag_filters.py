"""Conditions on tags are plain data, parsed once; engines can carry a prefix over as a range."""

from __future__ import annotations

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from polaris.storage._tag_filter import (
    ALL_SERIES,
    TagExists,
    TagFilter,
    TagIn,
    TagNot,
    TagPrefix,
    parse_tags,
    prefix_end,
)

TEXTS = st.text(
    st.sampled_from(["a", "b", "z", "\u00ff", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]), max_size=4
)


def test_conditions_become_a_tree_of_plain_data() -> None:
    found = parse_tags(
        {"a": "x", "b": {"$in": ["2", "1", "2"], "$ne": "3"}, "c": {"$exists": False}, "d": {"$prefix": "p"}}
    )
    assert found == TagFilter(
        (
            TagIn("a", ("x",)),
            TagIn("b", ("1", "2")),
            TagNot(TagIn("b", ("3",))),
            TagNot(TagExists("c")),
            TagPrefix("d", "p"),
        )
    )
    assert msgspec.to_builtins(found)["terms"][0] == {"key": "a", "values": ("x",)}
    assert parse_tags(None) == parse_tags({}) == ALL_SERIES


@given(TEXTS, TEXTS)
@example("\ud7ff", "\ue000")
@example("a\U0010ffff", "b")
def test_what_begins_so_is_a_range_of_utf8_bytes(prefix: str, value: str) -> None:
    end = prefix_end(prefix)
    in_range = value.encode() >= prefix.encode() and (end is None or value.encode() < end.encode())
    assert in_range == value.startswith(prefix)
