"""The contract of the repositories as tests: they keep it on every engine.

Derive a class named `Test...` from `RepositorySuite` and give it a fixture `store`: a connected, empty store.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthStatus,
    LearnedPattern,
    MetricValue,
    Quality,
    SystemDependency,
    SystemState,
)
from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import AggregationType, PolarisDataStore, SystemDependencyRepository, SystemSummary, TimeRange

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALL = TimeRange.all()


def state(second: float, system_id: str = "web", **metrics: float | str | bool | None) -> SystemState:
    """A plain state some seconds after the beginning."""
    readings = [MetricValue(name, value) for name, value in metrics.items()]
    return SystemState(system_id, T0 + second * SECOND, readings)  # type: ignore[arg-type] # a list is keyed by name


def rich_state() -> SystemState:
    """A state that uses everything a state can say."""
    stamp = T0 + timedelta(microseconds=654_321)
    metrics = {
        "cpu": MetricValue("cpu", 0.25, "1"),
        "requests": MetricValue("requests", 2**62, "1"),
        "whole": MetricValue("whole", 7.0, "s"),
        "mode": MetricValue("mode", "eco"),
        "on": MetricValue("on", True),
        "off": MetricValue("off", False, ""),
        "gone": MetricValue("gone", None, "By"),
        "old": MetricValue("old", 3, quality=Quality.STALE, timestamp=stamp - timedelta(microseconds=1)),
        "disk /": MetricValue("disk", 0.5, "1", tags={"device": "/", "b": "é"}),
        "@form": MetricValue("@form", 1),
        "@@x": MetricValue("x", -0.0),
    }
    metadata = {"version": "1.2", "list": [1, 2.0, None, {"deep": True}], "@": "x"}
    return SystemState("web/1 §", stamp, metrics, HealthStatus.WARNING, metadata)


class RepositorySuite:
    """The promises of the repositories."""

    async def test_a_state_comes_back_equal_to_what_was_saved(self, store: PolarisDataStore) -> None:
        saved = rich_state()
        await store.states.save_current_state(saved)
        found = await store.states.get_current_state("web/1 §")
        assert found == saved
        assert found is not None
        kinds = {name: type(metric.value) for name, metric in found.metrics.items()}
        assert kinds == {name: type(metric.value) for name, metric in saved.metrics.items()}
        assert await store.states.get_state_history("web/1 §", ALL) == [saved]

    async def test_a_state_without_metrics_comes_back(self, store: PolarisDataStore) -> None:
        saved = SystemState("web", T0, health_status=HealthStatus.CRITICAL)
        await store.states.save(saved)
        assert await store.states.find_by_id("web") == saved

    async def test_states_of_changing_form_come_back_each_with_its_own(self, store: PolarisDataStore) -> None:
        saved = [
            SystemState("web", T0, [MetricValue("a", 1, "s")]),  # type: ignore[arg-type] # a list is keyed by name
            SystemState("web", T0 + SECOND, [MetricValue("a", 1, "ms")]),  # type: ignore[arg-type]
            SystemState("web", T0 + 2 * SECOND, [MetricValue("a", 1), MetricValue("b", 2, "s")]),  # type: ignore[arg-type]
        ]
        await store.states.save_many(saved[:2])
        await store.states.save_many(saved[2:])
        assert await store.states.get_state_history("web", ALL) == saved

    async def test_the_current_state_is_the_newest_however_late_others_come(self, store: PolarisDataStore) -> None:
        await store.states.save_current_state(state(10, cpu=1.0))
        await store.states.save_current_state(state(5, cpu=2.0))
        assert await store.states.get_current_state("web") == state(10, cpu=1.0)
        assert await store.states.get_current_state("nobody") is None

    async def test_saving_a_state_again_changes_nothing(self, store: PolarisDataStore) -> None:
        for _ in range(2):
            await store.states.save_many([state(1, cpu=1.0), state(2, cpu=2.0)])
        assert await store.states.get_state_history("web", ALL) == [state(1, cpu=1.0), state(2, cpu=2.0)]

    async def test_history_holds_the_range_by_time(self, store: PolarisDataStore) -> None:
        await store.states.save_many([state(n, cpu=float(n)) for n in (4, 2, 0, 1, 3)])
        found = await store.states.get_state_history("web", TimeRange(T0 + SECOND, T0 + 4 * SECOND))
        assert found == [state(n, cpu=float(n)) for n in (1, 2, 3)]
        newest = await store.states.get_state_history("web", ALL, limit=2, order="desc")
        assert newest == [state(4, cpu=4.0), state(3, cpu=3.0)]

    async def test_a_metric_is_reached_as_a_series(self, store: PolarisDataStore) -> None:
        await store.states.save_many([state(0, cpu=1.0), state(1, cpu=None), state(2, mem=5), state(3, cpu=4)])
        await store.states.save_many([SystemState("web", T0 + 4 * SECOND, {"@m": MetricValue("m", 9)})])
        found = await store.states.series("web", "cpu", ALL)
        assert found == [(T0, 1.0), (T0 + SECOND, None), (T0 + 3 * SECOND, 4)]
        assert await store.states.series("web", "cpu", ALL, limit=1, order="desc") == [(T0 + 3 * SECOND, 4)]
        assert await store.states.series("web", "@m", ALL) == [(T0 + 4 * SECOND, 9)]
        assert await store.states.series("web", "unknown", ALL) == []

    async def test_a_metric_is_aggregated_by_bucket(self, store: PolarisDataStore) -> None:
        await store.states.save_many([state(n * 30, cpu=float(n)) for n in range(4)])
        await store.states.save_many([state(0, "db", cpu=100.0), state(90, mem=1.0)])
        found = await store.states.aggregate("web", "cpu", ALL, AggregationType.AVG, bucket=timedelta(minutes=1))
        assert [(one.timestamp, one.value, one.count) for one in found] == [
            (T0, 0.5, 2),
            (T0 + timedelta(minutes=1), 2.0, 1),
        ]

    async def test_a_metric_of_all_systems_is_aggregated_for_each(self, store: PolarisDataStore) -> None:
        await store.states.save_many([state(0, "db", cpu=1.0), state(0, "web", cpu=3.0), state(0, "x", mem=1.0)])
        found = await store.states.aggregate(None, "cpu", ALL, AggregationType.MAX)
        assert [(one.tags["system_id"], one.value) for one in found] == [("db", 1.0), ("web", 3.0)]

    async def test_systems_are_listed_with_their_latest_report(self, store: PolarisDataStore) -> None:
        await store.states.save(SystemState("web", T0 + SECOND, health_status=HealthStatus.HEALTHY))
        await store.states.save(SystemState("web", T0, health_status=HealthStatus.CRITICAL))
        await store.states.save(SystemState("db", T0))
        assert await store.states.systems() == [
            SystemSummary("db", T0, HealthStatus.UNKNOWN),
            SystemSummary("web", T0 + SECOND, HealthStatus.HEALTHY),
        ]
        assert [one.system_id for one in await store.states.find_all(limit=1)] == ["db"]

    async def test_deleting_a_system_deletes_all_its_states(self, store: PolarisDataStore) -> None:
        await store.states.save_many([state(0), state(1), state(0, "db")])
        assert await store.states.delete("web") is True
        assert await store.states.delete("web") is False
        assert await store.states.get_current_state("web") is None
        assert [one.system_id for one in await store.states.systems()] == ["db"]

    async def test_an_action_comes_back_equal(self, store: PolarisDataStore) -> None:
        stamp = T0 + timedelta(microseconds=7)
        action = AdaptationAction("a-1", "scale", "web", {"by": 2, "why": [1.0, None]}, 7, 2.5, stamp)
        await store.actions.save(action)
        assert await store.actions.find_by_id("a-1") == action
        assert await store.actions.find_by_id("a-2") is None
        assert await store.actions.find_all() == [action]
        assert await store.actions.delete("a-1") is True
        assert await store.actions.delete("a-1") is False

    async def test_actions_are_paged_newest_first(self, store: PolarisDataStore) -> None:
        for n in range(7):
            stamp = T0 + timedelta(microseconds=n // 2)
            await store.actions.save(AdaptationAction(f"a-{n}", "scale", "web" if n % 3 else "db", created_at=stamp))
        newest = [one.action_id for one in await store.actions.newest()]
        assert newest == ["a-6", "a-5", "a-4", "a-3", "a-2", "a-1", "a-0"]
        first = [one.action_id for one in await store.actions.find_by_system("web", limit=2)]
        rest = [one.action_id for one in await store.actions.find_by_system("web", limit=9, before=first[-1])]
        assert (first, rest) == (["a-5", "a-4"], ["a-2", "a-1"])

    async def test_a_result_is_found_by_its_action(self, store: PolarisDataStore) -> None:
        running = ExecutionResult("a-1", ExecutionStatus.RUNNING, started_at=T0)
        done = ExecutionResult("a-1", ExecutionStatus.FAILED, {"n": 1}, "why", T0, T0 + SECOND)
        await store.results.save(running)
        assert await store.results.find_by_action("a-1") == running
        await store.results.save(done)
        assert await store.results.find_by_action("a-1") == done
        assert await store.results.find_by_actions(["a-1", "a-2"]) == {"a-1": done}
        assert await store.results.find_by_action("a-2") is None

    async def test_results_are_paged_newest_first(self, store: PolarisDataStore) -> None:
        await store.results.save(ExecutionResult("never", ExecutionStatus.PENDING))
        for n in range(3):
            await store.results.save(ExecutionResult(f"r{n}", ExecutionStatus.SUCCESS, completed_at=T0 - n * SECOND))
        first = await store.results.newest(limit=2)
        rest = await store.results.newest(before=first[-1].action_id)
        assert [one.action_id for one in first + rest] == ["r0", "r1", "r2", "never"]

    async def test_a_pattern_comes_back_equal_and_by_type(self, store: PolarisDataStore) -> None:
        patterns = [
            LearnedPattern(f"p{n}", "load" if n else "fault", {"cpu": {"$gt": 0.8}}, {"x": n}, n / 4, T0, n)
            for n in range(4)
        ]
        for pattern in patterns:
            await store.patterns.save(pattern)
        assert await store.patterns.find_by_id("p2") == patterns[2]
        found = await store.patterns.find_by_type("load", confidence_min=0.5)
        assert found == [patterns[3], patterns[2]]

    async def test_patterns_are_found_by_the_situation_that_they_speak_of(self, store: PolarisDataStore) -> None:
        conditions: list[dict[str, Any]] = [
            {"cpu": {"$gt": 0.8}},
            {"cpu": {"load": {"$gt": 2}}},
            {"region": "eu", "users": {"$lt": 10}},
            {"tags": {"$contains": "blue"}},
            {},
        ]
        for n, condition in enumerate(conditions):
            await store.patterns.save(LearnedPattern(f"p{n}", "load" if n else "fault", condition, {}, n / 4, T0))
        for situation, expected in (
            ({"cpu": 0.9, "region": "eu", "users": 7}, "p4 p2 p0"),
            ({"cpu": {"load": 3}, "tags": ["blue"]}, "p4 p3 p1"),
            ({"region": "us"}, "p4"),
            ({}, "p4"),
        ):
            found = [one.pattern_id for one in await store.patterns.find_matching(situation)]
            assert found == expected.split()
        best = await store.patterns.find_matching({"cpu": 0.9, "region": "eu", "users": 7}, limit=1)
        assert [one.pattern_id for one in best] == ["p4"]
        typed = await store.patterns.find_matching({"cpu": 0.9}, pattern_type="fault", confidence_min=0.0)
        assert [one.pattern_id for one in typed] == ["p0"]
        assert await store.patterns.find_matching({"cpu": 0.9}, pattern_type="fault", confidence_min=0.1) == []
        assert [one.usage_count for one in typed] == [0]

    async def test_a_pattern_of_no_confidence_is_found_by_its_type(self, store: PolarisDataStore) -> None:
        await store.patterns.save(LearnedPattern("p", "load", learned_at=T0))
        assert [one.pattern_id for one in await store.patterns.find_by_type("load")] == ["p"]
        assert await store.patterns.find_by_type("load", confidence_min=0.5) == []

    async def test_every_usage_of_a_pattern_is_counted(self, store: PolarisDataStore) -> None:
        await store.patterns.save(LearnedPattern("p", "load", {"cpu": 1}, {"x": 2}, 0.5, T0))
        assert all(await asyncio.gather(*(store.patterns.record_usage("p") for _ in range(20))))
        assert await store.patterns.record_usage("p", times=5)
        assert await store.patterns.record_usage("nobody") is False
        with pytest.raises(InvalidValueError):
            await store.patterns.record_usage("p", times=0)
        assert await store.patterns.find_by_id("p") == LearnedPattern("p", "load", {"cpu": 1}, {"x": 2}, 0.5, T0, 25)

    @pytest.mark.parametrize(
        "conditions", [{"cpu": {"$above": 1}}, {"cpu": [1, 2]}, {"a b": 1}, {"a": {"b": 1}, "a.b": 2}]
    )
    async def test_conditions_that_say_nothing_sensible_are_not_saved(
        self, store: PolarisDataStore, conditions: dict[str, Any]
    ) -> None:
        with pytest.raises(QueryError):
            await store.patterns.save(LearnedPattern("p", "load", conditions, {}, 0.5, T0))
        assert await store.patterns.find_all() == []

    async def test_a_dependency_comes_back_equal(self, store: PolarisDataStore) -> None:
        needs = SystemDependency("web", "db", "calls", 0.75, {"p": [1]})
        await store.dependencies.save(needs)
        dependency_id = SystemDependencyRepository.id_of(needs)
        assert await store.dependencies.find_by_id(dependency_id) == needs
        assert await store.dependencies.find_all() == [needs]
        assert await store.dependencies.delete(dependency_id) is True
        assert await store.dependencies.find_by_id(dependency_id) is None
        with pytest.raises(InvalidValueError, match="id_of"):
            await store.dependencies.find_by_id("web")

    async def test_dependencies_are_walked_both_ways(self, store: PolarisDataStore) -> None:
        for source, target in (("web", "api"), ("api", "db"), ("job", "db")):
            await store.dependencies.save(SystemDependency(source, target, "calls"))
        assert [one.target_system for one in await store.dependencies.dependencies_of("api")] == ["db"]
        first, second, third = await store.dependencies.find_all()
        assert await store.dependencies.find_all(limit=1, after=first) == [second]
        assert await store.dependencies.find_all(after=second) == [third]
        assert [one.source_system for one in await store.dependencies.dependents_of("db")] == ["api", "job"]
        assert await store.dependencies.affected_by("db") == {"api": 1, "job": 1, "web": 2}

    async def test_the_failure_of_a_system_reaches_those_that_need_it(self, store: PolarisDataStore) -> None:
        for source, target, strength in (
            ("web", "api", 1.0),
            ("api", "db", 0.5),
            ("job", "db", 0.2),
            ("x", "job", 1.0),
        ):
            await store.dependencies.save(SystemDependency(source, target, "calls", strength))
        await store.dependencies.save(SystemDependency("db", "disk", "stores"))
        reached = await store.dependencies.impact_of("db")
        assert [(one.system_id, one.depth) for one in reached] == [("api", 1), ("job", 1), ("web", 2), ("x", 2)]
        assert reached[2].path == ["db", "api", "web"]
        assert [one.system_id for one in await store.dependencies.impact_of("db", strength_min=0.5)] == ["api", "web"]
        assert [one.system_id for one in await store.dependencies.impact_of("disk", dependency_type="calls")] == []
        needed = await store.dependencies.requirements_of("web", max_depth=2)
        assert [(one.system_id, one.path) for one in needed] == [("api", ["web", "api"]), ("db", ["web", "api", "db"])]

    async def test_systems_are_started_after_what_they_need(self, store: PolarisDataStore) -> None:
        for source, target in (("web", "api"), ("api", "db"), ("web", "cache"), ("cache", "db")):
            await store.dependencies.save(SystemDependency(source, target, "calls"))
        assert await store.dependencies.start_order() == ["db", "api", "cache", "web"]
        assert (await store.dependencies.find_cycles(limit=1)).cycles == []
        await store.dependencies.save(SystemDependency("db", "web", "reports"))
        assert (await store.dependencies.find_cycles()).cycles == [["api", "db", "web"], ["cache", "db", "web"]]
        with pytest.raises(QueryError, match="is a cycle"):
            await store.dependencies.start_order()
        assert await store.dependencies.start_order(dependency_type="calls") == ["db", "api", "cache", "web"]
