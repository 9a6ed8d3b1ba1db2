"""The storage suites notice each broken promise of the engine in memory, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import tests.conformance.broken_memory_documents
import tests.conformance.broken_memory_graph
import tests.conformance.broken_memory_repositories
import tests.conformance.broken_memory_retention
import tests.conformance.broken_memory_series
import tests.conformance.broken_memory_series_aggregates
import tests.conformance.broken_memory_series_points
import tests.conformance.broken_memory_work  # noqa: F401 - these register their breaks
from tests.conformance.broken_memory_store import BREAKS

from polaris.storage import PolarisDataStore
from polaris.testing.document_suite import DocumentSuite
from polaris.testing.graph_suite import GraphSuite
from polaris.testing.repository_suite import RepositorySuite
from polaris.testing.timeseries_suite import TimeSeriesSuite
from polaris.testing.unit_of_work_suite import UnitOfWorkSuite

SUITES: dict[str, type] = {
    "time_series": TimeSeriesSuite,
    "documents": DocumentSuite,
    "graph": GraphSuite,
    "repositories": RepositorySuite,
    "unit_of_work": UnitOfWorkSuite,
}


def promises(suite: str) -> list[str]:
    return [name for name, _ in inspect.getmembers(SUITES[suite], inspect.isfunction) if name.startswith("test_")]


def cases(test: Any) -> list[dict[str, Any]]:
    """The arguments of each case of a parametrised test."""
    found: list[dict[str, Any]] = [{}]
    for mark in getattr(test, "pytestmark", []):
        names, values = mark.args
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        found = [
            {**case, **dict(zip(names, value if len(names) > 1 else (value,), strict=True))}
            for case in found
            for value in values
        ]
    return found


async def check(suite: str, promise: str) -> None:
    """Run one test of a suite, with all its cases, against a new store in memory for each."""
    test = getattr(SUITES[suite](), promise)
    for case in cases(test):
        async with PolarisDataStore.memory() as store:
            subject = (
                {"store": store} if suite in ("repositories", "unit_of_work") else {"backend": getattr(store, suite)}
            )
            await asyncio.wait_for(test(**subject, **case), 20)


@pytest.mark.parametrize(("suite", "promise"), [(suite, promise) for suite in BREAKS for promise in BREAKS[suite]])
async def test_a_broken_promise_fails_its_test_and_no_other(
    suite: str, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    BREAKS[suite][promise](monkeypatch)
    broken: list[str] = []
    for other in promises(suite):
        try:
            await check(suite, other)
        except (Exception, pytest.fail.Exception):
            broken.append(other)
    assert broken == [promise]


def test_there_are_breaks_of_these_suites_and_of_no_other() -> None:
    assert set(BREAKS) == set(SUITES)


@pytest.mark.parametrize("suite", SUITES)
def test_every_promise_of_a_suite_is_broken(suite: str) -> None:
    assert set(BREAKS[suite]) == set(promises(suite))
