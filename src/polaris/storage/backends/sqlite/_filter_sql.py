"""Filters and sort orders as SQL. Every value is a parameter; paths are checked against a strict pattern before.

Conditions that an index can serve say a range of the extracted value in so many words, beside the condition on its kind
which makes them exact: SQLite orders values as null, numbers, texts, and arrays and objects are texts here.
"""

from __future__ import annotations

from typing import Literal, Protocol

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
from polaris.storage._limits import check_path
from polaris.storage._sorting import ID_PATH, SortBy, Stretch

_NUMBER = "IN ('integer', 'real')"
_TEXT = "= 'text'"
_COLUMNS = {ID_KEY: ("id", "'text'"), VERSION_KEY: ("version", "'integer'")}
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def extract(path: Path) -> str:
    """The value at the path; the very text of the expression indexes. JSON null and a missing path are NULL."""
    if path[0] in _COLUMNS:
        return _COLUMNS[path[0]][0] if len(path) == 1 else "NULL"
    return f"json_extract(body, {_json_path(path)})"


def kind(path: Path) -> str:
    """What is at the path: 'integer', 'text', 'null' and so on, NULL when it is missing. Stands in the indexes too."""
    if path[0] in _COLUMNS:
        return _COLUMNS[path[0]][1] if len(path) == 1 else "NULL"
    return f"json_type(body, {_json_path(path)})"


def _json_path(path: Path) -> str:
    check_path(".".join(path))  # what stands in the SQL was checked here, whoever called
    return "'$" + "".join(f'."{segment}"' for segment in path) + "'"


class _Subject(Protocol):
    """What a condition is about: where the values of its paths are."""

    def value(self, path: Path) -> str: ...

    def kind(self, path: Path) -> str: ...

    def array(self, path: Path) -> str:
        """The arguments of a JSON function that works on the array at the path."""
        ...


class _Document:
    """A row of a collection."""

    def value(self, path: Path) -> str:
        return extract(path)

    def kind(self, path: Path) -> str:
        return kind(path)

    def array(self, path: Path) -> str:
        return "'[]'" if path[0] in _COLUMNS else f"body, {_json_path(path)}"


class _Element:
    """A row of `json_each`. Its value is JSON only if it is an object or array, so it is never parsed otherwise."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def value(self, path: Path) -> str:
        return f"json_extract({self._object()}, {_json_path(path)})" if path else f"{self.alias}.value"

    def kind(self, path: Path) -> str:
        return f"json_type({self._object()}, {_json_path(path)})" if path else f"{self.alias}.type"

    def array(self, path: Path) -> str:
        if path:
            return f"{self._object()}, {_json_path(path)}"
        return f"iif({self.alias}.type = 'array', {self.alias}.value, '[]')"

    def _object(self) -> str:
        return f"iif({self.alias}.type = 'object', {self.alias}.value, '{{}}')"


class Where:
    """A condition in the making: SQL, and the parameters in order."""

    __slots__ = ("_elements", "parameters", "sql")

    def __init__(self, term: Filter) -> None:
        self.parameters: list[Scalar] = []
        self._elements = 0
        self.sql = self._term(term, _Document())

    def _term(self, term: Filter, subject: _Subject) -> str:
        """True exactly where the term holds; elsewhere false or NULL, which only `Not` has to tell apart."""
        if isinstance(term, Equals):
            return self._equals(term, subject)
        if isinstance(term, Compares):
            return self._compares(term, subject, bounded=True)
        if isinstance(term, Exists):
            value, found = subject.value(term.path), subject.kind(term.path)
            return f"({_is_some(value)} OR ({value} IS NULL AND {found} = 'null'))"
        if isinstance(term, StartsWith):
            return self._starts_with(term, subject)
        if isinstance(term, HasSize):
            self.parameters.append(term.size)
            return f"({subject.kind(term.path)} = 'array' AND json_array_length({subject.array(term.path)}) = ?)"
        if isinstance(term, HasElement):
            return self._has_element(term, subject)
        if isinstance(term, Not):
            return self._not(term.term, subject)
        joint, neutral = (" AND ", "1") if isinstance(term, Every) else (" OR ", "0")
        parts = self._every(term, subject) if isinstance(term, Every) else [self._term(t, subject) for t in term.terms]
        return f"({joint.join(parts)})" if parts else neutral

    def _every(self, term: Every, subject: _Subject) -> list[str]:
        """All terms; a comparison gets no bound of its own at an end where another one of its kind is tighter."""
        ends = {
            (part.path, part.ordering[0], isinstance(part.operand, str))
            for part in term.terms
            if isinstance(part, Compares)
        }
        return [
            self._compares(
                part,
                subject,
                bounded=(part.path, _other(part.ordering[0]), isinstance(part.operand, str)) not in ends,
            )
            if isinstance(part, Compares)
            else self._term(part, subject)
            for part in term.terms
        ]

    def _compares(self, term: Compares, subject: _Subject, *, bounded: bool) -> str:
        self.parameters.append(term.operand)
        value, is_text = subject.value(term.path), isinstance(term.operand, str)
        parts = [f"{value} {term.ordering} ?", f"{subject.kind(term.path)} {_TEXT if is_text else _NUMBER}"]
        if bounded and is_text and term.ordering[0] == "<":
            parts.insert(0, f"{value} >= ''")
        if bounded and not is_text and term.ordering[0] == ">":
            parts.insert(1, f"{value} < ''")
        return f"({' AND '.join(parts)})"

    def _starts_with(self, term: StartsWith, subject: _Subject) -> str:
        value = subject.value(term.path)
        self.parameters.append(term.text)
        parts = [f"{value} >= ?", f"{subject.kind(term.path)} {_TEXT}"]
        behind = _behind(term.text)
        if behind is not None:
            self.parameters.append(behind)
            parts.insert(1, f"{value} < ?")
        return f"({' AND '.join(parts)})"

    def _has_element(self, term: HasElement, subject: _Subject) -> str:
        self._elements += 1
        alias = f"e{self._elements}"
        inner = self._term(term.term, _Element(alias))
        if term.of_objects:
            inner = f"{alias}.type = 'object' AND {inner}"
        source = f"json_each({subject.array(term.path)}) AS {alias}"
        return f"({subject.kind(term.path)} = 'array' AND EXISTS (SELECT 1 FROM {source} WHERE {inner}))"  # noqa: S608

    def _not(self, term: Filter, subject: _Subject) -> str:
        if isinstance(term, Exists):
            return f"({subject.value(term.path)} IS NULL AND {subject.kind(term.path)} IS NULL)"
        if isinstance(term, Equals) and term.values == (None,):
            return f"({_is_some(subject.value(term.path))})"
        return f"NOT coalesce({self._term(term, subject)}, 0)"

    def _equals(self, term: Equals, subject: _Subject) -> str:
        value, found = subject.value(term.path), subject.kind(term.path)
        numbers = [item for item in term.values if isinstance(item, (int, float)) and not isinstance(item, bool)]
        texts = [item for item in term.values if isinstance(item, str)]
        flags = [flag for flag in (True, False) if any(item is flag for item in term.values)]
        groups = bool(numbers) + bool(texts) + len(flags)
        parts: list[str] = []
        prefix = ""
        if groups > 1:  # one list for the index to go through, and then what is meant exactly
            everything: list[Scalar] = [*numbers, *texts, *map(int, flags)]
            prefix = f"{value} {self._one_of(everything)} AND "
        if numbers:
            parts.append(f"{value} {self._one_of(numbers)} AND {found} {_NUMBER}")
        if texts:
            parts.append(f"{value} {self._one_of(texts)} AND {found} {_TEXT}")
        parts += [f"{value} = {int(flag)} AND {found} = '{'true' if flag else 'false'}'" for flag in flags]
        sql = f"({prefix}({' OR '.join(parts)}))" if parts else ""
        if any(item is None for item in term.values):
            return f"({sql} OR {value} IS NULL)" if sql else f"{value} IS NULL"
        return sql or "0"

    def _one_of(self, values: list[Scalar] | list[int | float] | list[str]) -> str:
        self.parameters.extend(values)
        return "= ?" if len(values) == 1 else f"IN ({', '.join('?' * len(values))})"


def _is_some(value: str) -> str:
    """Not null, as a range: from minus infinity to the least blob, which comes after all texts."""
    return f"{value} >= -9e999 AND {value} < x''"


def _other(end: str) -> Literal["<", ">"]:
    return "<" if end == ">" else ">"


def _behind(prefix: str) -> str | None:
    """The least text that comes after all that begin with the prefix; None when there is none."""
    for place in range(len(prefix) - 1, -1, -1):
        character = ord(prefix[place])
        if character < _LAST_CHARACTER:
            following = _SURROGATES[1] + 1 if character == _SURROGATES[0] - 1 else character + 1
            return prefix[:place] + chr(following)
    return None


def order_by(order: tuple[SortBy, ...]) -> str:
    """The ORDER BY list; SQLite's own order of values is the one that the port defines."""
    keys = [extract(key.path) + (" DESC" if key.descending else "") for key in order]
    return ", ".join(keys if order and order[-1].path == ID_PATH else [*keys, "id"])


def within(stretch: Stretch) -> tuple[str, list[Scalar]]:
    """The condition of a stretch of the order, and its parameters."""
    parts: list[str] = []
    parameters: list[Scalar] = []
    for path, key in stretch.same:
        if key[0] == 0:
            parts.append(f"{extract(path)} IS NULL")
        else:
            parts.append(f"{extract(path)} = ?")
            parameters.append(key[1])
    if stretch.beyond is not None:
        value, rank = extract(stretch.beyond.path), stretch.beyond.key[0]
        if rank == 0:
            parts.append(_is_some(value))
        else:
            parts.append(f"{value} {'<' if stretch.beyond.descending else '>'} ?")
            parameters.append(stretch.beyond.key[1])
    if stretch.after_id is not None:
        parts.append("id > ?")
        parameters.append(stretch.after_id)
    return " AND ".join(parts) or "1", parameters
