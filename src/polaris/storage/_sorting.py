"""Sort orders and keyset cursors of document queries, understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from polaris.domain._checks import check_tree
from polaris.exceptions import QueryError
from polaris.storage._documents import ID_KEY
from polaris.storage._filter import Path
from polaris.storage._filter_match import MISSING, SortKey, lookup, sort_key
from polaris.storage._limits import SORT_KEYS_MAX, check_document_id, check_path

ID_PATH: Path = (ID_KEY,)


class SortBy(msgspec.Struct, frozen=True):
    """One key of an order."""

    path: Path
    descending: bool


class Page(msgspec.Struct, frozen=True):
    """Where a page begins: behind the document with these keys and this id."""

    keys: tuple[SortKey, ...]
    document_id: str


class Beyond(msgspec.Struct, frozen=True):
    """The values of a path that come after one in an ascending or descending order, without null and missing ones."""

    path: Path
    key: SortKey
    descending: bool


class Stretch(msgspec.Struct, frozen=True):
    """A part of an order that an index holds in one piece: equal in some keys, beyond a value in the next.

    `order` sorts what is in it; ties, and everything when it is empty, by the id, unless it ends with the id itself.
    """

    same: tuple[tuple[Path, SortKey], ...] = ()
    beyond: Beyond | None = None
    after_id: str | None = None
    order: tuple[SortBy, ...] = ()


def parse_sort(sort: str | Sequence[str] | None) -> tuple[SortBy, ...]:
    """The keys of a sort order, without those that cannot decide any more. Raises `QueryError`."""
    if sort is None:
        return ()
    names = [sort] if isinstance(sort, str) else list(sort)
    if len(names) > SORT_KEYS_MAX:
        raise QueryError(f"sort: at most {SORT_KEYS_MAX} paths")
    order: dict[Path, SortBy] = {}
    decided = False
    for name in names:
        if not isinstance(name, str):
            raise QueryError(f"sort: a path or -path, got {type(name).__name__}")
        path = check_path(name.removeprefix("-"))
        if not decided:
            order.setdefault(path, SortBy(path, name.startswith("-")))
            decided = path == ID_PATH
    return tuple(order.values())


def parse_after(after: str | Mapping[str, Any] | None, order: tuple[SortBy, ...]) -> Page | None:
    """The cursor that the last document of a page stands for. Raises `QueryError` or `InvalidValueError`."""
    if after is None:
        return None
    if isinstance(after, str):
        if order:
            raise QueryError("after: with a sort order the last document is needed, not its id alone")
        check_document_id(after)
        return Page((), after)
    if not isinstance(after, Mapping) or not isinstance(after.get(ID_KEY), str):
        raise QueryError("after: the last document of the previous page, with its _id")
    check_document_id(after[ID_KEY])
    values = [lookup(after, key.path) for key in order]
    check_tree("after", [value for value in values if value is not MISSING])
    return Page(tuple(map(sort_key, values)), after[ID_KEY])


def stretches(order: tuple[SortBy, ...], page: Page | None) -> Iterator[Stretch]:
    """What comes after the cursor, cut into parts that follow each other: each is one range of an index.

    A single condition for all of it would be a disjunction, for which engines read from the very beginning.
    """
    if page is None:
        yield Stretch(order=order)
        return
    keys = tuple((key.path, value) for key, value in zip(order, page.keys, strict=True))
    if not order or order[-1].path != ID_PATH:
        yield Stretch(same=keys, after_id=page.document_id)
    for place in range(len(order) - 1, -1, -1):
        same, (path, value), descending = keys[:place], keys[place], order[place].descending
        is_null = value[0] == 0
        if not (descending and is_null):
            yield Stretch(same=same, beyond=Beyond(path, value, descending), order=order[place:])
        if descending and not is_null:
            yield Stretch(same=(*same, (path, (0, 0))), order=order[place + 1 :])
