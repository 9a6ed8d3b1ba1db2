"""Sort orders and keyset cursors of document queries, understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from polaris.exceptions import QueryError
from polaris.storage._filter import Path
from polaris.storage._filter_match import SortKey, lookup, sort_key
from polaris.storage._limits import SORT_KEYS_MAX, check_path


class SortBy(msgspec.Struct, frozen=True):
    """One key of an order."""

    path: Path
    descending: bool


class Page(msgspec.Struct, frozen=True):
    """Where a page begins: behind the document with these keys and this id."""

    keys: tuple[SortKey, ...]
    document_id: str


def parse_sort(sort: str | Sequence[str] | None) -> tuple[SortBy, ...]:
    """The keys of a sort order. Raises `QueryError`."""
    if sort is None:
        return ()
    names = [sort] if isinstance(sort, str) else list(sort)
    if len(names) > SORT_KEYS_MAX:
        raise QueryError(f"sort: at most {SORT_KEYS_MAX} paths")
    return tuple(
        SortBy(check_path(name.removeprefix("-")), name.startswith("-"))
        if isinstance(name, str)
        else _refuse_sort(name)
        for name in names
    )


def _refuse_sort(name: object) -> SortBy:
    raise QueryError(f"sort: a path or -path, got {type(name).__name__}")


def parse_after(after: str | Mapping[str, Any] | None, order: tuple[SortBy, ...]) -> Page | None:
    """The cursor that the last document of a page stands for. Raises `QueryError`."""
    if after is None:
        return None
    if isinstance(after, str):
        if order:
            raise QueryError("after: with a sort order the last document is needed, not its id alone")
        return Page((), after)
    if not isinstance(after, Mapping) or not isinstance(after.get("_id"), str):
        raise QueryError("after: the last document of the previous page, with its _id")
    return Page(tuple(sort_key(lookup(after, key.path)) for key in order), after["_id"])
