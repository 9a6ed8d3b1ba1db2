"""The data store as the place where engines, repositories and units of work meet."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from polaris.domain import MetricValue, SystemState
from polaris.exceptions import ConfigurationError, DataStoreError, InvalidValueError, StoreCorruptError
from polaris.storage import (
    AdaptationActionRepository,
    DocumentRepository,
    InMemoryDocumentBackend,
    InMemoryEngine,
    InMemoryGraphBackend,
    InMemoryTimeSeriesBackend,
    PolarisDataStore,
    SqliteEngine,
    SystemStateRepository,
    TimeRange,
)
from polaris.storage.repositories._state_codec import StateCodec

T0 = datetime(2030, 1, 1, tzinfo=UTC)


class Note(msgspec.Struct):
    note_id: str
    text: str


class NoteRepository(DocumentRepository[Note]):
    collection = "notes"
    entity = Note
    key = "note_id"


def test_importing_the_room_loads_no_driver_and_no_heavy_library() -> None:
    program = (
        "import sys, polaris.storage; polaris.storage.PolarisDataStore.memory(); "
        "print([name for name in ('apsw', 'structlog', 'nats', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


async def test_backends_of_several_engines_make_a_store() -> None:
    store = PolarisDataStore(
        {
            "time_series": InMemoryTimeSeriesBackend(),
            "documents": InMemoryDocumentBackend(),
            "graph": InMemoryGraphBackend(),
        }
    )
    async with store:
        assert len(store.engines) == 3
        await store.states.save(SystemState("web", T0))
        assert await store.actions.find_all() == []
    assert not store.is_connected


def test_every_mistake_in_the_backends_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PolarisDataStore({"time_series": InMemoryGraphBackend(), "grph": InMemoryGraphBackend()})
    assert len(caught.value.problems) == 4


async def test_a_repository_of_ones_own_is_a_few_lines() -> None:
    async with PolarisDataStore.memory() as store:
        store.add_repository("notes", NoteRepository(store.documents))
        await store.repository(NoteRepository).save(Note("n-1", "hello"))
        assert await store.repository("notes").find_by_id("n-1") == Note("n-1", "hello")
        async with store.unit_of_work() as work:
            await work.repository(NoteRepository).save(Note("n-2", "gone"))
        assert await store.repository(NoteRepository).count() == 1


def test_repositories_are_had_by_name_and_type() -> None:
    store = PolarisDataStore.memory()
    assert store.repository("states") is store.states
    assert store.repository(AdaptationActionRepository) is store.actions
    with pytest.raises(DataStoreError, match="no repository"):
        store.repository("unknown")
    with pytest.raises(ConfigurationError, match="taken"):
        store.add_repository("states", NoteRepository(store.documents))


def test_a_repository_refuses_the_wrong_model() -> None:
    with pytest.raises(InvalidValueError, match="TimeSeriesStorageBackend"):
        SystemStateRepository(InMemoryDocumentBackend())


async def test_a_document_that_is_no_entity_any_more_is_named() -> None:
    async with PolarisDataStore.memory() as store:
        await store.documents.put_document("notes", "n-1", {"note_id": 7})
        with pytest.raises(StoreCorruptError, match="n-1"):
            await NoteRepository(store.documents).find_all()


async def test_saving_what_is_no_entity_is_refused() -> None:
    async with PolarisDataStore.memory() as store:
        with pytest.raises(InvalidValueError, match="AdaptationAction"):
            await store.actions.save(Note("n", ""))  # type: ignore[arg-type] # what is refused
        with pytest.raises(InvalidValueError, match="states"):
            await store.states.save_many([Note("n", "")])  # type: ignore[list-item] # what is refused
        assert await store.states.systems() == []


async def test_the_units_of_many_states_are_kept_once() -> None:
    engine = InMemoryEngine()
    async with PolarisDataStore(engine) as store:
        readings = {"cpu": MetricValue("cpu", 0.5, "1"), "mem": MetricValue("mem", 7, "By")}
        for second in range(20):
            stamp = T0.replace(second=second)
            await store.states.save_many([SystemState(f"sys-{n}", stamp, readings) for n in range(5)])
        assert len(await store.time_series.list_series("system_state_forms")) == 1
        (point,) = await store.time_series.query_time_series("system_states", TimeRange.all(), limit=1)
        assert set(point.fields) == {"cpu", "mem", "@health", "@form"}


async def test_more_forms_than_are_remembered_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateCodec, "FORMS_MAX", 3)
    async with PolarisDataStore.memory() as store:
        saved = [SystemState("web", T0.replace(second=n), {"m": MetricValue("m", n, f"u{n}")}) for n in range(20)]
        for state in saved:
            await store.states.save(state)
        assert await store.states.get_state_history("web", TimeRange.all()) == saved


async def test_a_store_backs_itself_up_and_is_checked_where_its_engine_can(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        await store.documents.insert_document("d", {"_id": "kept"})
        await store.backup(tmp_path / "copy.db")
        assert await store.verify() == []
    async with PolarisDataStore.sqlite(tmp_path / "copy.db", read_only=True) as copy:
        assert await copy.documents.count("d") == 1
    async with PolarisDataStore.memory() as store:
        with pytest.raises(DataStoreError, match="memory is not checked"):
            await store.verify()
        with pytest.raises(DataStoreError, match="no backups"):
            await store.backup(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


async def test_a_store_of_which_a_part_is_not_checked_is_not_found_whole(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    store = PolarisDataStore(
        {"time_series": engine.time_series, "documents": engine.documents, "graph": InMemoryGraphBackend()}
    )
    async with store:
        with pytest.raises(DataStoreError, match="a store on memory is not checked"):
            await store.verify()
