"""Filters and sort orders as SQL. Every value is a parameter; paths are checked against a strict pattern before."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from polaris.storage._documents import ID_KEY, VERSION_KEY
from polaris.storage._filter import (
    Compares,
    Equals,
    Every,
    Exists,
    Filter,
    HasElement,
    HasSize,
    Not,
    Path,
    Scalar,
    StartsWith,
)
from polaris.storage._filter_match import SortKey
from polaris.storage._limits import check_path
from polaris.storage._sorting import Beyond, SortBy, Stretch
from polaris.storage._tag_filter import prefix_end
from polaris.storage.backends.postgresql._json import number_operand, sort_text_operand, text_operand

KEY_CHARS = 64
"""Characters of a text that an index holds: eight paths of the longest characters still make an entry that fits."""
CONTAINED_MAX = 8
"""Values that are looked up one by one in an index of what objects contain."""
_EXACT_BELOW = 2.0**53
_INDEX_LIKE = re.compile(r"[+-]?\d+")


class Root(msgspec.Struct, frozen=True):
    """What the paths of a filter begin at: a column of JSON, and what it has besides as columns of their own."""

    column: str
    id: str | None = None
    version: str | None = None
    is_object: bool = True
    contains: str | None = None
    """The column as an index holds it that finds what objects contain."""


DOCUMENT = Root("body", "id", "version")
NODE = Root("n.properties", "n.id", contains="(n.properties::jsonb)")
EDGE = Root("e.properties")


class Value(msgspec.Struct, frozen=True):
    """SQL for what is at a path: its kind, its text or its number, and the start of the text that indexes hold.

    A value has a text (strings, arrays, objects) or a number (numbers, booleans) or none of them (null, missing).
    """

    kind: str
    text: str
    number: str
    key: str
    key_chars: int | None = None

    def key_of(self, operand: str) -> str:
        """What the key must be for a text to equal the operand."""
        return operand[: self.key_chars]


_NO_TEXT = 'NULL::text COLLATE "C"'
_MISSING = Value("NULL::text", _NO_TEXT, "NULL::numeric", _NO_TEXT)


def value_at(path: Path, root: Root = DOCUMENT) -> Value:
    """The value at a path."""
    if path and path[0] == ID_KEY and root.id is not None:
        return _MISSING if len(path) > 1 else Value("'string'::text", root.id, "NULL::numeric", root.id)
    if path and path[0] == VERSION_KEY and root.version is not None:
        return _MISSING if len(path) > 1 else Value("'number'::text", _NO_TEXT, f"{root.version}::numeric", _NO_TEXT)
    found = extract(path, root)
    return Value(
        f"json_typeof({found})",
        f'(text_of({found}) COLLATE "C")',
        f"number_of({found})",
        f'(left(text_of({found}), {KEY_CHARS}) COLLATE "C")',
        KEY_CHARS,
    )


def extract(path: Path, root: Root = DOCUMENT) -> str:
    """The JSON at a path. Paths lead through objects only; PostgreSQL would take a number for the place in an array."""
    if path and path[0] == ID_KEY and root.id is not None:
        return f"to_json({root.id})" if len(path) == 1 else "NULL::json"
    if path and path[0] == VERSION_KEY and root.version is not None:
        return f"to_json({root.version})" if len(path) == 1 else "NULL::json"
    if not path:
        return root.column
    check_path(".".join(path))  # what stands in the SQL was checked here, whoever called
    whole = f"({root.column} #> {_literal(path)})"
    guards = []
    for place, segment in enumerate(path):
        if _INDEX_LIKE.fullmatch(segment) and (place or not root.is_object):
            home = f"({root.column} #> {_literal(path[:place])})" if place else root.column
            guards.append(f"json_typeof({home}) = 'object'")
    return f"(CASE WHEN {' AND '.join(guards)} THEN {whole} END)" if guards else whole


def _literal(path: Path) -> str:
    return "'{" + ",".join(f'"{segment}"' for segment in path) + "}'"


def contained_in(term: Equals, root: Root) -> list[str] | None:
    """The objects of which the root contains one exactly where the term holds; None where there are no such objects.

    `jsonb` compares numbers as they are written, which is how large floats are not meant; null is also what is missing.
    """
    if root.contains is None or not 0 < len(term.values) <= CONTAINED_MAX or not term.path or term.path[0] == ID_KEY:
        return None
    found = []
    for one in term.values:
        if one is None or (isinstance(one, (int, float)) and not -_EXACT_BELOW < one < _EXACT_BELOW):
            return None
        operand: Any = text_operand(one) if isinstance(one, str) else one
        for segment in reversed(term.path):
            operand = {segment: operand}
        found.append(msgspec.json.encode(operand).decode())
    return found


class Where:
    """A condition in the making: SQL, and the parameters in order, of which some may be there already."""

    __slots__ = ("_depth", "parameters", "sql")

    def __init__(self, term: Filter, *parameters: Any, root: Root = DOCUMENT) -> None:
        self.parameters: list[Any] = list(parameters)
        self._depth = 0
        self.sql = self._term(term, root)

    def bind(self, value: Any, kind: str) -> str:
        """The mark of a new parameter."""
        self.parameters.append(value)
        return f"${len(self.parameters)}::{kind}"

    def _term(self, term: Filter, root: Root) -> str:
        """True exactly where the term holds; elsewhere false or NULL, which only `Not` has to tell apart."""
        if isinstance(term, Not):
            return self._not(term.term, root)
        if isinstance(term, (Every, HasElement, HasSize)) or not hasattr(term, "path"):
            return self._compound(term, root)
        value = value_at(term.path, root)
        if isinstance(term, Equals):
            contained = contained_in(term, root)
            if contained is not None:
                marks = [self.bind(one, "jsonb") for one in contained]
                return f"({' OR '.join(f'{root.contains} @> {mark}' for mark in marks)})"
            return self._equals(value, term.values)
        if isinstance(term, Compares):
            return self._compares(value, term)
        if isinstance(term, StartsWith):
            return self._starts(value, text_operand(term.text))
        assert isinstance(term, Exists)  # noqa: S101 # there is no other kind
        return f"({value.kind} IS NOT NULL)"

    def _not(self, term: Filter, root: Root) -> str:
        """The opposite; of what is there, and of null, as ranges of the index."""
        if isinstance(term, Exists):
            value = value_at(term.path, root)
            return f"({_is_null(value)} AND {value.kind} IS NULL)"
        if isinstance(term, Equals) and term.values == (None,):
            return f"({_is_some(value_at(term.path, root))})"
        return f"(({self._term(term, root)}) IS NOT TRUE)"

    def _compound(self, term: Filter, root: Root) -> str:
        if isinstance(term, HasSize):
            found = extract(term.path, root)
            size = self.bind(term.size, "bigint")
            return f"(CASE WHEN json_typeof({found}) = 'array' THEN json_array_length({found}) = {size} ELSE FALSE END)"
        if isinstance(term, HasElement):
            return self._has_element(term, root)
        joint, neutral = (" AND ", "TRUE") if isinstance(term, Every) else (" OR ", "FALSE")
        parts = [self._term(part, root) for part in term.terms]  # type: ignore[union-attr] # Every or Some
        return f"({joint.join(parts)})" if parts else neutral

    def _has_element(self, term: HasElement, root: Root) -> str:
        found = extract(term.path, root)
        self._depth += 1
        name = f"e{self._depth}"
        inner = self._term(term.term, Root(f"{name}.value", is_object=False))
        if term.of_objects:
            inner = f"json_typeof({name}.value) = 'object' AND {inner}"
        return (
            f"(CASE WHEN json_typeof({found}) = 'array' THEN EXISTS"  # noqa: S608 - paths were checked
            f" (SELECT 1 FROM json_array_elements({found}) AS {name} (value) WHERE {inner}) ELSE FALSE END)"
        )

    def _equals(self, value: Value, values: tuple[Scalar, ...]) -> str:
        parts: list[str] = []
        numbers = [number_operand(one) for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)]
        texts = [text_operand(one) for one in values if isinstance(one, str)]
        if numbers:
            mark = self.bind(numbers, "numeric[]")
            parts.append(f"({value.key} IS NULL AND {value.number} = ANY({mark}) AND {value.kind} = 'number')")
        if texts:
            keys = self.bind([value.key_of(text) for text in texts], "text[]")
            whole = self.bind(texts, "text[]")
            parts.append(f"({value.key} = ANY({keys}) AND {value.text} = ANY({whole}) AND {value.kind} = 'string')")
        parts += [
            f"({value.key} IS NULL AND {value.number} = {int(flag)} AND {value.kind} = 'boolean')"
            for flag in (True, False)
            if any(one is flag for one in values)
        ]
        if any(one is None for one in values):
            parts.append(_is_null(value))
        return f"({' OR '.join(parts)})" if parts else "FALSE"

    def _compares(self, value: Value, term: Compares) -> str:
        if not isinstance(term.operand, str):
            bound = self.bind(number_operand(term.operand), "numeric")
            return f"({value.key} IS NULL AND {value.number} {term.ordering} {bound} AND {value.kind} = 'number')"
        text = text_operand(term.operand)
        return f"({self._beyond(value, term.ordering, text)} AND {value.kind} = 'string')"

    def _beyond(self, value: Value, ordering: str, text: str) -> str:
        """Texts on one side of another. Of two texts in order the starts are in order, or the same."""
        key, whole = self.bind(value.key_of(text), "text"), self.bind(text, "text")
        return f"({value.key} {ordering[0]}= {key} AND {value.text} {ordering} {whole})"

    def _starts(self, value: Value, text: str) -> str:
        start = value.key_of(text)
        parts = [f"{value.key} >= {self.bind(start, 'text')}"]
        end = prefix_end(start)
        if end is not None:
            parts.append(f"{value.key} < {self.bind(end, 'text')}")
        parts.append(f"starts_with({value.text}, {self.bind(text, 'text')})")
        return f"({' AND '.join(parts)} AND {value.kind} = 'string')"

    def within(self, stretch: Stretch) -> str:
        """The condition for a part of an order."""
        parts = [self._same(value_at(path), key) for path, key in stretch.same]
        if stretch.beyond is not None:
            parts.append(self._later(stretch.beyond))
        if stretch.after_id is not None:
            parts.append(f"id > {self.bind(stretch.after_id, 'text')}")
        return " AND ".join(parts) or "TRUE"

    def _same(self, value: Value, key: SortKey) -> str:
        rank, operand = key
        if rank == 0:
            return _is_null(value)
        if isinstance(operand, str):
            text = sort_text_operand(operand)
            start, whole = self.bind(value.key_of(text), "text"), self.bind(text, "text")
            return f"({value.key} = {start} AND {value.text} = {whole})"
        return f"({value.key} IS NULL AND {value.number} = {self.bind(number_operand(operand), 'numeric')})"

    def _later(self, beyond: Beyond) -> str:
        value = value_at(beyond.path)
        rank, operand = beyond.key
        if rank == 0:
            return f"({value.key} IS NOT NULL OR {value.number} IS NOT NULL)"
        if isinstance(operand, str):
            texts = self._beyond(value, "<" if beyond.descending else ">", sort_text_operand(operand))
            numbers = f"({value.key} IS NULL AND {value.number} IS NOT NULL)"
            return f"({texts} OR {numbers})" if beyond.descending else texts
        bound = self.bind(number_operand(operand), "numeric")
        if beyond.descending:
            return f"({value.key} IS NULL AND {value.number} < {bound})"
        return f"({value.key} IS NOT NULL OR ({value.key} IS NULL AND {value.number} > {bound}))"


def _is_null(value: Value) -> str:
    """Null or missing."""
    return f"({value.key} IS NULL AND {value.number} IS NULL)"


def _is_some(value: Value) -> str:
    """Neither null nor missing, as two ranges of an index: the texts, and the numbers."""
    return f"({value.key} IS NOT NULL OR ({value.key} IS NULL AND {value.number} IS NOT NULL))"


def order_by(order: tuple[SortBy, ...]) -> str:
    """The ORDER BY list: null and missing, numbers, texts; the first two columns of a key are those of an index."""
    keys: list[str] = []
    for key in order:
        value = value_at(key.path)
        if key.path == (ID_KEY,):
            return ", ".join([*keys, "id DESC" if key.descending else "id"])
        way = "DESC NULLS LAST" if key.descending else "NULLS FIRST"
        keys += [f"{value.key} {way}", f"{value.number} {way}", f"{value.text} {way}"]
    return ", ".join([*keys, "id"])


def index_columns(paths: tuple[Path, ...]) -> str:
    """The columns of an index over the paths together."""
    columns = []
    for path in paths:
        value = value_at(path)
        columns += [f"({value.key}) NULLS FIRST", f"({value.number}) NULLS FIRST"]
    return ", ".join(columns)


def unique_column(paths: tuple[Path, ...]) -> str:
    """What documents must not share: a digest of their values; NULL, which all may have, where one is missing."""
    identities = [f"identity_of({extract(path)})" for path in paths]
    present = " AND ".join(f"{identity} IS NOT NULL" for identity in identities)
    # Each with its length before it, so that no two lists of texts run together into the same one.
    joined = " || ".join(f"length({identity})::text || ':' || {identity}" for identity in identities)
    return f"(CASE WHEN {present} THEN digest_of({joined}) END)"
