"""Filters and sort orders as SQL. Every value is a parameter; paths are checked against a strict pattern before."""

from __future__ import annotations

from polaris.storage._filter import Compares, Equals, Every, Exists, Filter, Not, Path, Scalar
from polaris.storage._limits import check_path
from polaris.storage._sorting import Page, SortBy

_NUMBER = "IN ('integer', 'real')"
_TEXT = "= 'text'"


def extract(path: Path) -> str:
    """The value at the path; the very text of the expression indexes. JSON null and a missing path are NULL."""
    return f"json_extract(body, {_json_path(path)})"


def _kind(path: Path) -> str:
    return f"json_type(body, {_json_path(path)})"


def _json_path(path: Path) -> str:
    check_path(".".join(path))  # what stands in the SQL was checked here, whoever called
    return "'$" + "".join(f'."{segment}"' for segment in path) + "'"


class Where:
    """A condition in the making: SQL, and the parameters in order."""

    __slots__ = ("parameters", "sql")

    def __init__(self, term: Filter) -> None:
        self.parameters: list[Scalar] = []
        self.sql = self._term(term)

    def _term(self, term: Filter) -> str:
        """True exactly where the term holds; elsewhere false or NULL, which only `Not` has to tell apart."""
        if isinstance(term, Equals):
            return self._equals(term)
        if isinstance(term, Compares):
            self.parameters.append(term.operand)
            kind = _TEXT if isinstance(term.operand, str) else _NUMBER
            return f"({extract(term.path)} {term.ordering} ? AND {_kind(term.path)} {kind})"
        if isinstance(term, Exists):
            return f"{_kind(term.path)} IS NOT NULL"
        if isinstance(term, Not):
            return f"NOT coalesce({self._term(term.term)}, 0)"
        joint, neutral = (" AND ", "1") if isinstance(term, Every) else (" OR ", "0")
        parts = [self._term(part) for part in term.terms]
        return f"({joint.join(parts)})" if parts else neutral

    def _equals(self, term: Equals) -> str:
        value = extract(term.path)
        parts: list[str] = []
        numbers = [item for item in term.values if isinstance(item, (int, float)) and not isinstance(item, bool)]
        texts = [item for item in term.values if isinstance(item, str)]
        for group, kind in ((numbers, _NUMBER), (texts, _TEXT)):
            if group:
                self.parameters.extend(group)
                marks = "= ?" if len(group) == 1 else f"IN ({', '.join('?' * len(group))})"
                parts.append(f"({value} {marks} AND {_kind(term.path)} {kind})")
        parts += [
            f"{_kind(term.path)} = '{'true' if flag else 'false'}'"
            for flag in (True, False)
            if any(item is flag for item in term.values)
        ]
        if any(item is None for item in term.values):
            parts.append(f"{value} IS NULL")
        return f"({' OR '.join(parts)})" if parts else "0"


def order_by(order: tuple[SortBy, ...]) -> str:
    """The ORDER BY list; SQLite's own order of values is the one that the port defines."""
    keys = [extract(key.path) + (" DESC" if key.descending else "") for key in order]
    return ", ".join([*keys, "id"])


def behind(order: tuple[SortBy, ...], page: Page) -> tuple[str, list[Scalar]]:
    """The condition for what comes after the cursor (keyset pagination), and its parameters."""
    parameters: list[Scalar] = []
    sql = ""
    same = ""
    for key, (rank, value) in zip(order, page.keys, strict=True):
        expression = extract(key.path)
        if rank == 0:
            later, bound = ("0" if key.descending else f"{expression} IS NOT NULL"), []
        elif key.descending:
            later, bound = f"({expression} < ? OR {expression} IS NULL)", [value]
        else:
            later, bound = f"{expression} > ?", [value]
        sql += f"{same}({later} OR "
        parameters.extend(bound)
        same = f"({expression} IS ? AND "
        parameters.append(None if rank == 0 else value)
    return f"{sql}{same}id > ?" + "))" * len(order), [*parameters, page.document_id]
