"""Which parts of documents a caller wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polaris.exceptions import QueryError
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document
from polaris.storage._filter import Path
from polaris.storage._limits import check_path
from polaris.storage._sorting import SortBy

PATHS_MAX = 256

Wanted = dict[str, "Wanted | None"]
"""The paths as a tree; None: all that is there."""


def parse_fields(fields: str | Sequence[str] | None, order: tuple[SortBy, ...] = ()) -> Wanted | None:
    """The parts that the dotted paths name, and those by which the order sorts; None for all. Raises `QueryError`."""
    if fields is None:
        return None
    names = [fields] if isinstance(fields, str) else list(fields)
    if len(names) > PATHS_MAX:
        raise QueryError(f"fields: at most {PATHS_MAX} paths")
    wanted: Wanted = {ID_KEY: None, VERSION_KEY: None}
    for path in [*map(check_path, names), *(key.path for key in order)]:
        _add(wanted, path)
    return wanted


def _add(wanted: Wanted, path: Path) -> None:
    for segment in path[:-1]:
        deeper = wanted.setdefault(segment, {})
        if deeper is None:
            return
        wanted = deeper
    wanted[path[-1]] = None


def projected(document: Document, wanted: Wanted | None) -> Document:
    """The parts of the document that are wanted; paths lead through objects, as in queries."""
    return document if wanted is None else _parts(document, wanted)


def _parts(node: Mapping[str, Any], wanted: Wanted) -> Document:
    found: Document = {}
    for key, deeper in wanted.items():
        if key not in node:
            continue
        value = node[key]
        if deeper is None:
            found[key] = value
        elif isinstance(value, Mapping) and (parts := _parts(value, deeper)):
            found[key] = parts
    return found
