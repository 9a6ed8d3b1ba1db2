"""Value types: what they keep, what they refuse, and that they cannot be changed."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from polaris.exceptions import InvalidValueError, PolarisException

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAIVE = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - the point of the tests that use it
SAMPLES: list[Any] = [
    MetricValue("cpu", 0.5, "1", NOW, {"core": "0"}),
    SystemState("web", NOW, {"cpu": MetricValue("cpu", 0.5)}, HealthStatus.HEALTHY, {"zone": ["a", 1, None]}),
    AdaptationAction("a1", "scale", "web", {"n": 2}, 3, 4.0, NOW),
    ExecutionResult("a1", ExecutionStatus.SUCCESS, {"n": 2}, None, NOW, NOW + timedelta(seconds=2)),
    SystemDependency("web", "db", "calls", 0.5, {"port": 1}),
    LearnedPattern("p1", "peak", {"hour": 9}, {"workers": 4}, 0.9, NOW, 7),
]


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__name__)
def test_values_survive_json_pickle_and_copy_unchanged(value: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__name__)
def test_values_cannot_be_changed(value: Any) -> None:
    field = value.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(value, field, "other")
    for name in value.__struct_fields__:
        held = getattr(value, name)
        if isinstance(held, dict):
            for change in (lambda held=held: held.update(x=1), lambda held=held: held.clear(), held.popitem):
                with pytest.raises(TypeError):
                    change()
            with pytest.raises(TypeError):
                held["x"] = 1
            with pytest.raises(TypeError):
                held |= {"x": 1}


def test_the_callers_own_mapping_is_not_kept() -> None:
    metrics = {"cpu": MetricValue("cpu", 1.0)}
    parameters = {"n": 1}
    state = SystemState("web", NOW, metrics)
    action = AdaptationAction("a", "t", "web", parameters)
    metrics.clear()
    parameters["n"] = 2
    assert set(state.metrics) == {"cpu"}
    assert action.parameters == {"n": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_missing_and_never_zero(value: float | None) -> None:
    metric = MetricValue("cpu", value)
    assert metric.value is None
    assert metric.quality is Quality.MISSING
    assert SystemState("web", NOW, {"cpu": metric}).value("cpu") is None


def test_an_absent_metric_is_missing_too() -> None:
    assert SystemState("web", NOW).value("cpu") is None


def test_a_missing_reading_has_no_value() -> None:
    with pytest.raises(InvalidValueError, match="value"):
        MetricValue("cpu", 0.0, quality=Quality.MISSING)


def test_a_stale_reading_keeps_its_value() -> None:
    assert MetricValue("cpu", 1.0, quality=Quality.STALE).value == 1.0


@pytest.mark.parametrize("value", [True, 3, 3.5, "text", -(2**63), 2**63 - 1])
def test_the_type_of_a_value_is_kept(value: Any) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(MetricValue("x", value)), type=MetricValue)
    assert decoded.value == value
    assert type(decoded.value) is type(value)


def test_times_are_kept_as_utc() -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    state = SystemState("web", NOW.astimezone(kolkata))
    assert state.timestamp == NOW
    assert state.timestamp.tzinfo is UTC
    decoded = msgspec.json.decode(
        b'{"system_id":"web","timestamp":"2026-01-02T08:34:05.678901+05:30"}', type=SystemState
    )
    assert decoded == state
    assert decoded.timestamp.tzinfo is UTC


REFUSED: list[tuple[str, Any]] = [
    ("timestamp", lambda: SystemState("web", NAIVE)),
    ("timestamp", lambda: SystemState("web", "2026-01-01")),  # type: ignore[arg-type]
    ("timestamp", lambda: MetricValue("cpu", 1.0, timestamp=NAIVE)),
    ("timestamp", lambda: SystemState("web", datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))))),
    ("name", lambda: MetricValue("", 1.0)),
    ("name", lambda: MetricValue("x" * 257, 1.0)),
    ("name", lambda: MetricValue("a\nb", 1.0)),
    ("name", lambda: MetricValue("\ud800", 1.0)),
    ("name", lambda: MetricValue(7, 1.0)),  # type: ignore[arg-type]
    ("name", lambda: MetricValue(["cpu"], 1.0)),  # type: ignore[arg-type]
    ("value", lambda: MetricValue("cpu", 2**63)),
    ("value", lambda: MetricValue("cpu", "x" * 8193)),
    ("value", lambda: MetricValue("cpu", b"x")),  # type: ignore[arg-type]
    ("value", lambda: MetricValue("cpu", [1.0])),  # type: ignore[arg-type]
    ("unit", lambda: MetricValue("cpu", 1.0, "x" * 65)),
    ("unit", lambda: MetricValue("cpu", 1.0, 5)),  # type: ignore[arg-type]
    ("quality", lambda: MetricValue("cpu", 1.0, quality="bad")),  # type: ignore[arg-type]
    ("tags", lambda: MetricValue("cpu", 1.0, tags={str(i): "x" for i in range(65)})),
    ("tags.a", lambda: MetricValue("cpu", 1.0, tags={"a": 5})),  # type: ignore[dict-item]
    ("tags", lambda: MetricValue("cpu", 1.0, tags=["a"])),  # type: ignore[arg-type]
    ("system_id", lambda: SystemState("", NOW)),
    ("system_id", lambda: SystemState("x" * 10_000, NOW)),
    ("metrics", lambda: SystemState("web", NOW, [MetricValue("a", 1.0), MetricValue("a", 2.0)])),  # type: ignore[arg-type]
    ("metrics.cpu", lambda: SystemState("web", NOW, {"cpu": 1.0})),  # type: ignore[dict-item]
    ("metrics", lambda: SystemState("web", NOW, 5)),  # type: ignore[arg-type]
    ("metrics", lambda: SystemState("web", NOW, {str(i): MetricValue(str(i), 1.0) for i in range(10_001)})),
    ("health_status", lambda: SystemState("web", NOW, health_status="fine")),  # type: ignore[arg-type]
    ("metadata", lambda: SystemState("web", NOW, metadata=5)),  # type: ignore[arg-type]
    ("metadata.x", lambda: SystemState("web", NOW, metadata={"x": math.nan})),
    ("parameters.x[1]", lambda: AdaptationAction("a", "t", "s", {"x": [1, math.inf]})),
    ("parameters", lambda: AdaptationAction("a", "t", "s", {1: 2})),  # type: ignore[dict-item]
    ("parameters.x", lambda: AdaptationAction("a", "t", "s", {"x": 2**64})),
    ("parameters.x", lambda: AdaptationAction("a", "t", "s", {"x": {1, 2}})),
    ("parameters", lambda: AdaptationAction("a", "t", "s", {"x": list(range(10_001))})),
    ("priority", lambda: AdaptationAction("a", "t", "s", priority=-1)),
    ("priority", lambda: AdaptationAction("a", "t", "s", priority=True)),
    ("timeout_seconds", lambda: AdaptationAction("a", "t", "s", timeout_seconds=0)),
    ("timeout_seconds", lambda: AdaptationAction("a", "t", "s", timeout_seconds=math.nan)),
    ("timeout_seconds", lambda: AdaptationAction("a", "t", "s", timeout_seconds=1e9)),
    ("created_at", lambda: AdaptationAction("a", "t", "s", created_at=NAIVE)),
    ("status", lambda: ExecutionResult("a", "done")),  # type: ignore[arg-type]
    ("started_at", lambda: ExecutionResult("a", ExecutionStatus.SUCCESS, started_at=NAIVE)),
    ("error_message", lambda: ExecutionResult("a", ExecutionStatus.FAILED, error_message="x" * 8193)),
    ("strength", lambda: SystemDependency("a", "b", "c", 1.5)),
    ("strength", lambda: SystemDependency("a", "b", "c", math.nan)),
    ("confidence", lambda: LearnedPattern("a", "b", confidence=-0.1)),
    ("usage_count", lambda: LearnedPattern("a", "b", usage_count=-1)),
]


@pytest.mark.parametrize(("field", "make"), REFUSED, ids=[f"{field}-{i}" for i, (field, _) in enumerate(REFUSED)])
def test_bad_input_is_refused_by_a_typed_error_that_names_the_field(field: str, make: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        make()
    assert isinstance(caught.value, PolarisException)
    assert caught.value.field == field
    assert caught.value.expected


def test_a_tree_too_deep_is_refused() -> None:
    tree: dict[str, Any] = {}
    for _ in range(5000):
        tree = {"x": tree}
    with pytest.raises(InvalidValueError, match="levels"):
        AdaptationAction("a", "t", "s", tree)


@given(st.text(max_size=300))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        state = SystemState(text, NOW)
    except InvalidValueError:
        return
    assert msgspec.json.decode(msgspec.json.encode(state), type=SystemState) == state


def test_a_list_of_metrics_is_keyed_by_name() -> None:
    state = SystemState("web", NOW, [MetricValue("a", 1.0), MetricValue("b", 2.0)], "healthy")  # type: ignore[arg-type]
    assert state.value("b") == 2.0
    assert state.health_status is HealthStatus.HEALTHY


def test_only_pending_and_running_are_not_final() -> None:
    assert {status for status in ExecutionStatus if not status.is_final} == {
        ExecutionStatus.PENDING,
        ExecutionStatus.RUNNING,
    }


def test_a_duration_needs_both_ends() -> None:
    assert ExecutionResult("a", ExecutionStatus.SUCCESS, started_at=NOW).duration_s is None
    done = ExecutionResult("a", ExecutionStatus.SUCCESS, started_at=NOW, completed_at=NOW + timedelta(seconds=2))
    assert done.duration_s == 2.0
