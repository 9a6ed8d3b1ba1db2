"""What the table says of each engine is what the engine does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.store_content import SMALL
from tests.store_tables import asked

from polaris.clock import SYSTEM_CLOCK
from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import ConflictError, DataStoreError, StoreFullError, UnconfirmedWriteError
from polaris.storage import (
    GraphNode,
    InMemoryEngine,
    PolarisDataStore,
    RetentionPolicy,
    RollupPolicy,
    SqliteEngine,
    TimeSeriesPoint,
    _filter_match,
    restore_store,
)
from polaris.storage._capabilities import CAPABILITIES, Isolation, StorageCapabilities
from polaris.storage.backends.memory import _graph
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._link import Link

T0 = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
Engine = InMemoryEngine | SqliteEngine | PostgresEngine


class Place:
    """Where stores of one engine are; each that is made there is made anew, as by another process."""

    def __init__(self, name: str, folder: Path, dsn: str | None) -> None:
        self.name = name
        self.folder = folder
        self._dsn = dsn
        self._schema = f"test_{next(schema_numbers)}"

    def engine(self, **options: Any) -> Engine:
        if self.name == "memory":
            options.pop("read_only", None)
            return InMemoryEngine(**options)
        if self.name == "sqlite":
            return SqliteEngine(self.folder / "store.db", **options)
        assert self._dsn is not None
        return PostgresEngine(self._dsn, schema=self._schema, **options)

    def store(self, **options: Any) -> PolarisDataStore:
        return PolarisDataStore(self.engine(**options))


@pytest.fixture(params=list(CAPABILITIES))
def place(request: pytest.FixtureRequest, tmp_path: Path, quick_postgres: QuickPostgres) -> Place:
    dsn = quick_postgres(15).dsn if request.param == "postgresql" else None
    return Place(request.param, tmp_path, dsn)


async def durable(place: Place) -> bool:
    for store in (place.store(), place.store()):
        async with store:
            found = await store.documents.count("d")
            await store.documents.insert_document("d", {"n": 1})
    return found == 1


async def multi_process(place: Place) -> bool:
    async with place.store() as first:
        second = place.store()
        try:
            await second.connect()
        except DataStoreError:
            return False
        async with second:
            await first.documents.insert_document("d", {"n": 1})
            await second.documents.insert_document("d", {"n": 2})
            return await first.documents.count("d") == await second.documents.count("d") == 2


async def reads_beside_writer(place: Place) -> bool:
    async with place.store() as writer, place.store(read_only=True) as reader:
        await writer.documents.insert_document("d", {"n": 1})
        return await reader.documents.count("d") == 1


async def isolation(place: Place) -> Isolation:
    """A unit that was told what others changed meanwhile can be ordered before them, but is not alone at its commit."""
    async with place.store() as store, store.unit_of_work() as work:
        assert await work.documents.count("d") == 0
        await store.documents.insert_document("d", {"n": 1})
        await work.documents.insert_document("e", {"n": 2})
        try:
            await work.commit()
        except ConflictError:
            return "serial"
        return "serializable"


async def writes_may_be_unconfirmed(place: Place) -> bool:
    """Where there is a connection to lose, it is lost before the commit is answered."""
    commit = Link.commit

    async def commit_unheard(link: Link) -> None:
        whole = link.connection
        end = partial(whole.execute, "SELECT pg_terminate_backend(pg_backend_pid())")
        link.connection = SimpleNamespace(execute=lambda _commit: end(), is_closed=whole.is_closed)
        try:
            await commit(link)
        finally:
            link.connection = whole

    async with place.store() as store, store.unit_of_work() as work:
        await store.documents.insert_document("d", {"n": 1})
        assert await work.documents.count("d") == 1
        await work.documents.insert_document("d", {"n": 2})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Link, "commit", commit_unheard)
            try:
                await work.commit()
            except UnconfirmedWriteError:
                return True
        return False


async def transactions_hold_connection(place: Place) -> bool:
    async with place.store() as store, store.unit_of_work() as work:
        await work.documents.count("d")
        stats = await store.engines[0].stats()
        return stats.get("connections", 0) > stats.get("connections_idle", 0)


async def wakes_other_processes(place: Place) -> bool:
    engine = place.engine(read_only=True)
    waits = asyncio.Event()
    wait = engine.outbox_changed.wait

    async def begin_to_wait() -> Literal[True]:
        waits.set()
        return await wait()

    async with place.store() as writer, PolarisDataStore(engine) as other:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.outbox_changed, "wait", begin_to_wait)
            is_promised = CAPABILITIES[place.name].wakes_other_processes
            waiting = asyncio.create_task(other.outbox.wait(timeout_s=PATIENCE_S if is_promised else 0.3))
            await waits.wait()
            async with writer.unit_of_work() as work:
                await work.publish("t", HealthEvent(component="c", status=HealthStatus.HEALTHY))
                await work.commit()
            return await waiting


async def backup(place: Place) -> bool:
    async with place.store() as store:
        await store.documents.insert_document("d", {"n": 1})
        try:
            await store.backup(place.folder / "copy.db")
        except DataStoreError:
            return False
    async with PolarisDataStore.sqlite(place.folder / "copy.db", read_only=True) as copy:
        return await copy.documents.count("d") == 1


async def restore(place: Place) -> bool:
    if not await backup(place):
        return False
    async with place.store() as store:
        await store.documents.delete_documents("d", {})
    await restore_store(place.folder / "copy.db", place.folder / "store.db", force=True)
    async with place.store() as store:
        return await store.documents.count("d") == 1


async def verify(place: Place) -> bool:
    async with place.store() as store:
        await store.time_series.store_many("m", [TimeSeriesPoint(T0, {}, {"v": 1})])
        try:
            assert await store.verify() == []
        except DataStoreError:
            return False
        engine = store.engines[0]
        if isinstance(engine, PostgresEngine):
            await asked(engine, "UPDATE ts_latest SET ts = 0")
        else:
            assert isinstance(engine, SqliteEngine)
            await engine._do_chore(lambda session: session.connection.execute("UPDATE ts_latest SET ts = 0"))
        return await store.verify() != []


async def compact(place: Place) -> bool:
    async with place.store() as store:
        engine = store.engines[0]
        if not isinstance(engine, SqliteEngine):
            return hasattr(engine, "compact")
        await store.documents.insert_documents("d", [{"text": "x" * 10_000} for _ in range(100)])
        await store.documents.delete_documents("d", {})
        done = await engine.compact()
        return done.bytes_after < done.bytes_before / 2


async def bounds_size(place: Place) -> bool:
    try:
        store = place.store(size_bytes_max=500_000)
    except TypeError:
        return False
    async with store:
        try:
            await store.documents.insert_documents("d", [{"text": "x" * 10_000} for _ in range(100)])
        except StoreFullError:
            return True
    return False


async def summarises_windows(place: Place) -> bool:
    engine = place.engine(**(SMALL if place.name == "sqlite" else {}))
    async with PolarisDataStore(engine) as store:
        begin = SYSTEM_CLOCK.now() - 5 * HOUR
        points = [TimeSeriesPoint(begin + n * HOUR / 60, {}, {"v": n}) for n in range(200)]
        await store.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(HOUR)]))
        await store.time_series.store_many("m", points)
        await store.time_series.apply_retention("m")
        if isinstance(engine, InMemoryEngine):
            return bool(engine.session.time_series._rollups._rows)
        async with asyncio.timeout(PATIENCE_S):
            while not await asked(engine, "SELECT * FROM ts_windows"):
                await asyncio.sleep(0.01)
        return True


async def indexes_node_properties(place: Place) -> bool:
    engine = place.engine()
    async with PolarisDataStore(engine) as store:
        await store.graph.add_nodes([GraphNode(f"n{n}", {"name": n}) for n in range(50)])
        if isinstance(engine, SqliteEngine):
            known = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'graph_nodes'"
            return any("properties" in (sql or "") for (sql,) in await asked(engine, known))
        if isinstance(engine, PostgresEngine):
            known = "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'graph_nodes'"
            return any("properties" in row[0] for row in await asked(engine, known))
        looked_at = 0
        matches = _filter_match.matches

        def counted(*arguments: Any) -> bool:
            nonlocal looked_at
            looked_at += 1
            return matches(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_graph, "matches", counted)
            assert await store.graph.count_nodes({"name": 7}) == 1
        return looked_at < 50


WITNESSES: dict[str, Callable[[Place], Awaitable[bool | Isolation]]] = {
    witness.__name__: witness
    for witness in (
        durable,
        multi_process,
        reads_beside_writer,
        isolation,
        writes_may_be_unconfirmed,
        transactions_hold_connection,
        wakes_other_processes,
        backup,
        restore,
        verify,
        compact,
        bounds_size,
        summarises_windows,
        indexes_node_properties,
    )
}
ELSEWHERE = {
    "replicated": ("tests/faults/test_postgres_killed.py", "when_the_standby_takes_over"),
    "transactions_begin_anew": ("tests/faults/test_postgres_frozen.py", "is_ended_by_the_server_and_done_anew"),
    "drops_partitions": ("tests/conformance/test_store_postgresql.py", "old_partitions_are_dropped"),
    "retires_by_itself": ("tests/unit/storage/test_sqlite_rollup_upkeep.py", "within_a_minute_of_becoming_old"),
}
"""What takes more than a witness: the file of the test that tries it and compares, and a part of its name."""


@pytest.mark.parametrize("capability", list(WITNESSES))
async def test_the_table_says_what_the_engine_does(capability: str, place: Place) -> None:
    assert await WITNESSES[capability](place) == getattr(CAPABILITIES[place.name], capability)


def test_every_line_of_the_table_is_tried() -> None:
    assert set(WITNESSES) | set(ELSEWHERE) == set(StorageCapabilities.__struct_fields__)
    for capability, (file, part) in ELSEWHERE.items():
        (body,) = re.findall(rf"def test_\w*{part}\w*\(.*?(?=\n\n\n|\Z)", (ROOT / file).read_text(), re.DOTALL)
        assert re.search(rf"assert .*CAPABILITIES.*\.{capability}\b", body), (file, part)
