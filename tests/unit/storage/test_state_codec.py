"""States become points without a second check: what a state may hold and a point may not is still refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polaris.domain import HealthStatus, MetricValue, Quality, SystemState
from polaris.exceptions import InvalidValueError, StoreCorruptError
from polaris.storage import TimeSeriesPoint
from polaris.storage._limits import TEXT_CHARS_MAX
from polaris.storage.repositories._state_codec import FORM, HEALTH, REST, SYSTEM_TAG, StateCodec, health_of

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def state(*readings: MetricValue, **parts: Any) -> SystemState:
    return SystemState("web", T0, {reading.name: reading for reading in readings}, **parts)


STATES = [
    state(),
    state(MetricValue("cpu", 1.5, "s"), health_status=HealthStatus.CRITICAL),
    state(MetricValue("n", 2**63 - 1), MetricValue("m", -(2**63)), MetricValue("on", value=True), MetricValue("gone")),
    state(MetricValue("n" * 256, 1.0), MetricValue("@x", 2.0), MetricValue("größe in µs", "viel\n" * 1_000)),
    state(MetricValue("cpu", 1.0, tags={"core": "1"}, quality=Quality.STALE, timestamp=T0 - timedelta(seconds=1))),
    state(MetricValue("cpu", 1.0), metadata={"zone": "a", "deep": {"list": [1, None, "x"]}}),
    SystemState("ü" * 256, T0, {"other": MetricValue("cpu", 1.0)}),
]


@pytest.mark.parametrize("one", STATES)
def test_the_point_of_a_state_is_one_that_the_checks_would_let_pass(one: SystemState) -> None:
    codec = StateCodec()
    point, digest, text = codec.encode(one)
    assert TimeSeriesPoint(point.timestamp, point.tags, point.fields) == point
    forms = {digest: codec.learn(digest, text)} if digest else {}
    assert point.fields.get(FORM, "") == digest
    assert codec.decode(point, forms) == one


@pytest.mark.parametrize(
    ("one", "field"),
    [
        (state(MetricValue("log", "a\0b")), "fields.log"),
        (state(MetricValue("@log", "a\0b")), "fields.@@log"),
        (state(metadata={str(n): "x" * 8_000 for n in range(1 + TEXT_CHARS_MAX // 8_000)}), "fields.@rest"),
    ],
)
def test_a_text_that_no_point_can_hold_is_refused_by_its_field(one: SystemState, field: str) -> None:
    with pytest.raises(InvalidValueError, match=field):
        StateCodec().encode(one)


@pytest.mark.parametrize(
    ("field", "value"), [(HEALTH, "111"), (HEALTH, 7), (REST, "{"), (REST, '{"stale":1}')], ids=str
)
def test_a_damaged_field_of_a_stored_state_is_told_as_damage(field: str, value: str | int) -> None:
    damaged = TimeSeriesPoint(T0, {SYSTEM_TAG: "web"}, {HEALTH: "healthy", field: value})
    with pytest.raises(StoreCorruptError):
        StateCodec().decode(damaged, {})


def test_a_stored_state_without_a_health_is_unknown() -> None:
    assert health_of({"cpu": 1.0}) is HealthStatus.UNKNOWN
