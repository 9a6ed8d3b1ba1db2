"""The tables of the pages on the store are whole: every operator, every bound of a server's engine."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec.structs import fields
from tests.indexed_documents import SERVED, operators

from polaris.storage._filter import JOINTS, OPERATORS
from polaris.storage.backends.postgresql._options import PostgresOptions

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table of a page that has this head."""
    table = (HOW_TO / page).read_text().split(f"| {head} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_says_of_every_operator_whether_an_index_serves_it() -> None:
    told = {name: served != "no" for names, _, served in rows("find-documents.md", "Operator") for name in code(names)}
    alone = [found for found in map(operators, SERVED) if len(found) == 1]
    served = {"$and"}.union(*alone)
    assert told == {name: name in served for name in (*OPERATORS, *JOINTS)}


def test_the_page_names_every_bound_of_a_server_with_its_default() -> None:
    told: dict[str, str] = {}
    for names, defaults, _ in rows("keep-data.md", "On PostgreSQL"):
        told.update(zip(code(names), defaults.removesuffix("the server's").split(", "), strict=True))
    assert told == {
        field.name: f"{field.default:g}{' s' * field.name.endswith('_s')}" if field.default is not None else ""
        for field in fields(PostgresOptions)
    }
