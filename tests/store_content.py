"""Content of every kind for stores, and all content of a store in a form that compares and goes to a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthEvent,
    HealthStatus,
    LearnedPattern,
    MetricValue,
    SystemDependency,
    SystemState,
)
from polaris.storage import FieldValue, PolarisDataStore, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SMALL: dict[str, Any] = {"hot_rows_max": 40, "slice_rows": 16}
"""So small that both tables have rows."""
VALUES = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.5, -1e300, 5e-324, "", "text", "höhe \U0001f30d", "\x01\n"]


def points() -> list[TimeSeriesPoint]:
    """Narrow and wide ones, of all kinds of values, in fields that grow."""
    found = [
        TimeSeriesPoint(T0 + timedelta(seconds=n), {"host": f"h{n % 3}", "zone": "ä"}, {"load": n / 4, "users": n})
        for n in range(120)
    ]
    found += [TimeSeriesPoint(T0 + timedelta(minutes=n), {}, {"kind": value}) for n, value in enumerate(VALUES)]
    wide: dict[str, FieldValue] = {f"w{n:02}": float(n) for n in range(30)}
    found += [TimeSeriesPoint(T0 + timedelta(hours=n), {"host": "wide"}, wide | {"n": n}) for n in range(3)]
    found.append(TimeSeriesPoint(datetime(1969, 7, 20, 20, 17, 40, 7, tzinfo=UTC), {"host": "h0"}, {"load": 1}))
    return found


def state(number: int) -> SystemState:
    """A state with values, units, tags and metadata."""
    metrics = [
        MetricValue("cpu.utilization", number / 10, unit="1", tags={"cpu": "all"}),
        MetricValue("requests", number, unit="{request}"),
        MetricValue("version", "1.2.3"),
        MetricValue("temperature", None, unit="Cel"),
    ]
    return SystemState("web", T0 + timedelta(seconds=number), metrics, metadata={"room": {"floor": 3}})  # type: ignore[arg-type] # accepted


async def fill(store: PolarisDataStore) -> None:
    """Put content of all models into the store."""
    for point in points():
        await store.time_series.store_many("m", [point])
    await store.time_series.delete_range("m", TimeRange(T0 + timedelta(seconds=20), T0 + timedelta(seconds=30)))
    await store.time_series.store_many("other", points()[:3])
    for number in range(5):
        await store.states.save_current_state(state(number))
    await store.documents.create_index("d", "n", unique=True)
    await store.documents.create_index("d", ["deep.path", "text"])
    documents = [{"_id": f"d{n}", "n": n, "deep": {"path": [n, {"x": None}]}, "text": "ö" * n} for n in range(20)]
    await store.documents.insert_documents("d", documents)
    await store.documents.update_document("d", "d3", {"text": "changed"})
    await store.documents.delete_document("d", "d4")
    await store.documents.insert_document("a.b:c-d_e", {"_id": "one", "big": 2**53, "small": 1e-7})
    await store.graph.add_node("alone", {"n": 1})
    await store.graph.add_edge("a", "b", "needs", {"strength": 0.5})
    await store.graph.add_edge("b", "a", "needs")
    await store.graph.add_edge("b", "b", "watches", {"deep": {"x": [1, None]}})
    await store.dependencies.save(SystemDependency("web", "db", "calls", 0.5, {"port": 5432}))
    await store.patterns.save(LearnedPattern("p1", "peak", {"hour": 9}, {"workers": 4}, 0.9, T0, 7))
    for number in range(3):
        async with store.unit_of_work() as work:
            await work.actions.save(AdaptationAction(f"a{number}", "scale", "web", {"n": number}, created_at=T0))
            await work.results.save(
                ExecutionResult(f"a{number}", ExecutionStatus.SUCCESS, completed_at=T0 + timedelta(seconds=1))
            )
            await work.publish(
                "t", HealthEvent(component=f"c{number}", status=HealthStatus.HEALTHY, event_id=f"e{number}")
            )
            await work.commit()
    await store.outbox.mark_published([1])


async def content_of(store: PolarisDataStore) -> dict[str, Any]:
    """Everything that `fill` put in, as plain JSON values."""
    found: dict[str, Any] = {}
    for name in ("m", "other"):
        found[f"points {name}"] = await store.time_series.query_time_series(name, TimeRange.all())
        found[f"latest {name}"] = await store.time_series.latest(name)
        found[f"series {name}"] = await store.time_series.list_series(name)
    for name in ("d", "a.b:c-d_e"):
        found[f"documents {name}"] = await store.documents.find_documents(name)
    found["found by an index"] = await store.documents.find_documents("d", {"n": {"$gt": 16}})
    found["nodes"] = [await store.graph.get_node(name) for name in ("alone", "a", "b", "web", "db", "nobody")]
    found["edges"] = await store.graph.get_edges()
    found["states"] = await store.states.get_state_history("web", TimeRange.all())
    found["systems"] = await store.states.systems()
    found["actions"] = await store.actions.find_all()
    found["results"] = await store.results.find_all()
    found["patterns"] = await store.patterns.find_all()
    found["dependencies"] = await store.dependencies.find_all()
    found["outbox"] = await store.outbox.pending(limit=100)
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain
