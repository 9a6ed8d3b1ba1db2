"""What `polaris store verify` calls a store on a server, by what was found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polaris.cli import _store_upkeep
from polaris.runtime import load_settings


class Server:
    """Finds what it is told to."""

    def __init__(self, found: list[str]) -> None:
        self.found = found

    async def verify(self, on_check: Any) -> list[str]:
        on_check("schema")
        return self.found


@pytest.mark.parametrize(
    ("found", "code", "state"),
    [
        ([], 0, "whole, 1 checks"),
        (["points of m: the newest point of series 2 is at 3"], 1, "damaged"),
        (["points of m: not checked from 'marks' on (a statement may take 7 s): x"], 1, "not checked as a whole"),
        (["points of m: not checked from 'marks' on (a statement may take 7 s): x", "graph: an end"], 1, "damaged"),
    ],
    ids=["nothing", "damage", "not all of it", "both"],
)
def test_what_was_not_checked_is_not_called_damage(
    found: list[str], code: int, state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def server(_: object) -> AsyncIterator[Any]:
        yield Server(found)

    monkeypatch.setattr(_store_upkeep, "store_on_server", server)
    settings = load_settings(
        None, environment={"POLARIS_STORE__ENGINE": "postgresql", "POLARIS_STORE__DSN": "postgresql://h/d"}
    )
    assert _store_upkeep.verify_store(settings, None, as_json=False) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"PostgreSQL, schema polaris: {state}"
    assert [line.strip() for line in lines[1 : 1 + len(found)]] == found
