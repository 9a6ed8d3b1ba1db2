"""What was not well: from when to when, why, what to do; over restarts, bounded, kept while the store is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polaris.api import ComponentView, HealthPeriod, PeriodFilter
from polaris.domain import HealthStatus, SystemState
from polaris.exceptions import DataStoreError
from polaris.observability import StructuredLogger
from polaris.runtime import _health_history
from polaris.runtime._health import HealthBoard
from polaris.runtime._health_history import HealthHistory
from polaris.runtime._health_periods import PERIODS
from polaris.runtime._ingest import CLOCK_AHEAD_KEY
from polaris.runtime._remedies import OF_SILENCE, OF_SYSTEMS, remedy_for
from polaris.storage import PolarisDataStore
from polaris.testing import VirtualClock

HEALTHY, WARNING, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.WARNING, HealthStatus.UNHEALTHY
BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Turn:
    """A turn that a test gives and takes."""

    def __init__(self) -> None:
        self.is_held = True

    async def wait(self) -> None:
        pass

    async def while_held(self, body: Callable[[], Awaitable[object]]) -> bool:
        await body()
        return True


class Log(StructuredLogger):
    """Remembers its warnings."""

    def __init__(self) -> None:
        super().__init__("polaris.test")
        self.warnings: list[str] = []

    def warning(self, message: object, /, **fields: object) -> None:
        self.warnings.append(str(message))


class Kept:
    """A board and its history over a store in memory; nothing runs by itself."""

    def __init__(self, store: PolarisDataStore | None = None, clock: VirtualClock | None = None, **wishes: Any) -> None:
        self.clock = clock or VirtualClock(wall=BEGIN)
        self.store = store or PolarisDataStore.memory(clock=self.clock)
        self.board = HealthBoard(clock=self.clock)
        self.log = Log()
        bounds = {"node": "atlas", "kept_max": 100, "kept_days": 7.0, **wishes}
        self.history = HealthHistory(self.store, self.board, self.log, clock=self.clock, **bounds)
        self.told: list[HealthPeriod] = []
        self.history.on_period(self.told.append)

    async def start(self) -> Kept:
        await self.store.connect()
        await self.history.start()
        return self

    def state(self, status: HealthStatus, system_id: str = "web", *, reasons: list[str] | None = None) -> None:
        metadata = {} if reasons is None else {"health.reasons": reasons}
        self.history.note_state(SystemState(system_id, self.clock.now(), {}, status, metadata))

    async def periods(self, **wanted: Any) -> list[HealthPeriod]:
        await self.history.flush()
        return [period for _, period in await self.history.periods(PeriodFilter(**wanted), limit=1_000, before=None)]


def seconds(period: HealthPeriod) -> tuple[float, float | None]:
    return (
        (period.since - BEGIN).total_seconds(),
        None if period.until is None else (period.until - BEGIN).total_seconds(),
    )


async def test_a_component_that_was_ill_is_told_with_reason_remedy_begin_and_end() -> None:
    kept = await Kept().start()
    kept.board.report("store", HEALTHY)
    kept.clock.advance(10)
    kept.board.report("store", UNHEALTHY, "no room on the disk")
    kept.clock.advance(5)
    kept.board.report("store", UNHEALTHY, "still no room")
    kept.clock.advance(5)
    kept.board.report("store", HEALTHY)
    (period,) = await kept.periods()
    assert (period.component, period.system_id, period.node) == ("store", None, "atlas")
    assert (period.status, period.message, period.remedy) == (UNHEALTHY, "no room on the disk", remedy_for("store"))
    assert seconds(period) == (10, 20)
    assert not period.cut_off


async def test_health_and_what_is_not_known_yet_leave_no_trace() -> None:
    kept = Kept()
    kept.board.expect(["bus"])
    await kept.start()
    kept.board.report("bus", HEALTHY)
    for status in (HEALTHY, HealthStatus.UNKNOWN, HEALTHY):
        kept.state(status)
    assert await kept.periods() == []
    assert kept.told == []


async def test_what_was_ill_before_the_history_began_to_listen_is_noted_too() -> None:
    kept = Kept()
    kept.board.report("bus", UNHEALTHY, "not connected")
    kept.clock.advance(3)
    await kept.start()
    (period,) = await kept.periods()
    assert (period.component, seconds(period)) == ("bus", (0, None))


async def test_a_period_has_the_status_and_the_reason_of_the_worst_of_it() -> None:
    kept = await Kept().start()
    for status, reasons in (
        (WARNING, ["slow", "many errors"]),
        (HealthStatus.CRITICAL, ["down", "no worker"]),
        (HealthStatus.CRITICAL, ["still down"]),
        (UNHEALTHY, ["recovers"]),
        (HEALTHY, []),
    ):
        kept.state(status, reasons=reasons)
        kept.clock.advance(4)
    (period,) = await kept.periods()
    assert (period.status, period.message, seconds(period)) == (HealthStatus.CRITICAL, "down; no worker", (0, 16))
    assert (period.system_id, period.component, period.remedy) == ("web", None, OF_SYSTEMS)
    assert (len(kept.told), period.times) == (3, 1)


async def test_what_comes_back_within_half_a_minute_is_the_same_period() -> None:
    kept = await Kept().start()
    for well_s in (30, 30, 31):
        kept.state(WARNING, reasons=["slow"])
        kept.clock.advance(5)
        kept.state(HEALTHY)
        await kept.history.flush()
        kept.clock.advance(well_s)
    kept.state(HealthStatus.CRITICAL)
    new, old = await kept.periods()
    assert (seconds(old), old.status, old.message, old.times) == ((0, 75), WARNING, "slow", 3)
    assert (seconds(new), new.status, new.times) == ((106, None), HealthStatus.CRITICAL, 1)


async def test_what_comes_back_worse_is_told_as_such_and_lasts_again() -> None:
    kept = await Kept().start()
    kept.board.report("bus", WARNING, "draining")
    kept.board.report("bus", HEALTHY)
    kept.clock.advance(1)
    kept.board.report("bus", UNHEALTHY, "not connected")
    (period,) = await kept.periods(lasting_only=True)
    assert (period.status, period.message, seconds(period), period.times) == (UNHEALTHY, "not connected", (0, None), 2)


async def test_a_connector_in_trouble_is_found_by_its_system() -> None:
    kept = await Kept().start()
    kept.board.report("connector:web", UNHEALTHY, "connection refused")
    kept.state(WARNING, "other")
    (period,) = await kept.periods(system_id="web")
    assert (period.component, period.system_id) == ("connector:web", "web")


async def test_a_system_that_fell_silent_is_unknown_from_its_last_sample_until_the_next() -> None:
    kept = await Kept().start()
    kept.state(WARNING)
    kept.clock.advance(60)
    kept.history.note_silence("web", BEGIN + timedelta(seconds=20), "no sample for more than 3 s")
    kept.history.note_silence("web", BEGIN + timedelta(seconds=20), "no sample for more than 3 s")
    kept.clock.advance(10)
    kept.history.note_state(SystemState("web", BEGIN + timedelta(seconds=21), {}, HEALTHY))
    kept.history.note_silence("web", None)
    silent, warned = await kept.periods()
    assert (warned.status, seconds(warned)) == (WARNING, (0, 20))
    assert (silent.status, seconds(silent), silent.remedy) == (HealthStatus.UNKNOWN, (20, 70), OF_SILENCE)


async def test_the_clock_of_a_system_that_runs_ahead_does_not_date_its_illness() -> None:
    kept = await Kept().start()
    ahead = SystemState("web", BEGIN + timedelta(days=1), {}, WARNING, {CLOCK_AHEAD_KEY: 86_400.0})
    kept.history.note_state(ahead)
    assert [seconds(period) for period in kept.told] == [(0, None)]


async def test_a_secret_in_a_reason_is_not_kept() -> None:
    kept = await Kept().start()
    kept.board.report("store", UNHEALTHY, "cannot reach postgresql://app:hunter2@db/polaris")
    kept.state(WARNING, reasons=["postgresql://app:hunter2@db/polaris"])
    assert "hunter2" not in str(await kept.store.documents.find_documents(PERIODS, {})) + str(await kept.periods())
    assert len(await kept.periods()) == 2


async def test_a_stop_cuts_off_what_lasts_of_the_node_and_leaves_the_systems_as_they_are() -> None:
    kept = await Kept().start()
    kept.board.report("store", WARNING, "log grows")
    kept.state(WARNING)
    kept.clock.advance(30)
    await kept.history.stop()
    kept.board.report("bus", UNHEALTHY, "closed")
    found = {period.component or period.system_id: period for period in await kept.periods()}
    assert set(found) == {"store", "web"}
    assert (seconds(found["store"]), found["store"].cut_off) == ((0, 30), True)
    assert seconds(found["web"]) == (0, None)

    kept.clock.advance(30)
    again = await Kept(kept.store, kept.clock).start()
    again.state(HEALTHY)
    found = {period.component or period.system_id: period for period in await again.periods()}
    assert (seconds(found["web"]), found["web"].cut_off) == ((0, 60), False)


async def test_what_nobody_saw_of_a_system_is_cut_off_and_does_not_go_on() -> None:
    kept = await Kept().start()
    kept.state(WARNING)
    kept.state(WARNING, "silent")
    kept.history.note_silence("silent", kept.clock.now(), "no sample")
    await kept.history.stop()
    kept.clock.advance(600)
    again = await Kept(kept.store, kept.clock).start()
    for system_id in ("web", "silent"):
        again.history.note_gap(system_id, again.clock.now())
        again.state(WARNING, system_id)
    new, old = await again.periods(system_id="web")
    assert (seconds(old), old.cut_off) == ((0, 600), True)
    assert (seconds(new), new.cut_off, new.times) == ((600, None), False, 1)
    # That nothing came of it is known to be so until now.
    silence = next(one for one in await again.periods(system_id="silent") if one.status is HealthStatus.UNKNOWN)
    assert (seconds(silence), silence.cut_off) == ((0, 600), False)


async def test_what_lasted_when_a_node_was_killed_is_cut_off_when_it_starts_again() -> None:
    kept = await Kept().start()
    kept.board.report("store", WARNING, "log grows")
    await kept.history.flush()
    kept.clock.advance(100)
    again = Kept(kept.store, kept.clock)
    again.board.report("store", WARNING, "log grows")
    await again.start()
    new, old = await again.periods()
    assert (seconds(old), old.cut_off) == ((0, 100), True)
    assert (seconds(new), new.cut_off) == ((100, None), False)


async def test_a_node_beside_others_leaves_alone_what_is_theirs() -> None:
    first = await Kept(node="one", is_alone=False).start()
    first.board.report("store", WARNING, "log grows")
    await first.history.flush()
    second = await Kept(first.store, first.clock, node="two", is_alone=False).start()
    (period,) = await second.periods(lasting_only=True)
    assert (period.node, period.until) == ("one", None)


async def test_of_several_nodes_the_one_whose_turn_it_is_notes_the_systems_and_goes_on_for_the_other() -> None:
    mine, other = Turn(), Turn()
    other.is_held = False
    first = await Kept(node="one", is_alone=False, turn=mine).start()
    second = await Kept(first.store, first.clock, node="two", is_alone=False, turn=other).start()
    for kept in (first, second):
        kept.state(WARNING)
    (period,) = await first.periods()
    assert await second.periods() == [period]
    mine.is_held, other.is_held = False, True
    await second.history._follow_turn()
    first.clock.advance(5)
    for kept in (first, second):
        kept.state(HEALTHY)
    await first.history.flush()
    (over,) = await second.periods()
    assert (over.period_id, seconds(over)) == (period.period_id, (0, 5))


class Away:
    """Stands in for `put_documents` of a store that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, *_: object, **__: object) -> None:
        self.asked += 1
        raise DataStoreError("no room")


async def test_the_trouble_of_the_store_itself_is_told_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = await Kept().start()
    away = Away()
    with monkeypatch.context() as broken:
        broken.setattr(kept.store.documents, "put_documents", away)
        kept.board.report("store", UNHEALTHY, "no room")
        await kept.history.flush()
        kept.clock.advance(9)
        kept.board.report("store", HEALTHY)
        assert await kept.periods() == []
        assert away.asked == 2
        assert kept.log.warnings == ["changes of health are not kept for now"]
    (period,) = await kept.periods()
    assert seconds(period) == (0, 9)


async def test_the_oldest_that_are_over_go_first_and_what_lasts_stays() -> None:
    kept = await Kept(kept_max=3).start()
    kept.board.report("store", WARNING, "lasts")
    for number in range(5):
        kept.clock.advance(10)
        kept.state(WARNING, f"web-{number}")
        kept.clock.advance(1)
        kept.state(HEALTHY, f"web-{number}")
    await kept.history.flush()
    await kept.history.prune()
    assert [one.component or one.system_id for one in await kept.periods()] == ["web-4", "web-3", "web-2", "store"]


async def test_what_is_over_for_too_long_goes() -> None:
    kept = await Kept(kept_days=1.0).start()
    kept.board.report("store", WARNING, "lasts")
    kept.state(WARNING)
    kept.clock.advance(60)
    kept.state(HEALTHY)
    await kept.history.flush()
    kept.clock.advance(86_399)
    await kept.history.prune()
    assert len(await kept.periods()) == 2
    kept.clock.advance(2)
    await kept.history.prune()
    assert [one.component for one in await kept.periods()] == ["store"]


async def test_one_that_comes_and_goes_for_ever_does_not_push_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_health_history, "OF_ONE_MAX", 20)
    kept = await Kept().start()
    kept.state(WARNING, "steady")
    kept.state(HEALTHY, "steady")
    for _ in range(50):
        kept.clock.advance(31)
        kept.state(WARNING, "flapping")
        kept.state(HEALTHY, "flapping")
    await kept.history.flush()
    await kept.history.prune()
    assert [one.system_id for one in await kept.periods()] == ["flapping"] * 20 + ["steady"]


async def test_too_much_that_lasts_is_left_out_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_health_history, "LASTING_MAX", 2)
    kept = await Kept().start()
    for _ in range(2):
        for number in range(4):
            kept.state(WARNING, f"web-{number}")
        await kept.history.flush()
    assert len(kept.told) == 2
    assert kept.log.warnings == ["what begins not to be well is not noted: too much lasts"]
    kept.state(HEALTHY, "web-0")
    await kept.history.flush()
    kept.state(WARNING, "web-3")
    assert len(await kept.periods()) == 3


async def test_periods_are_narrowed_by_time_and_come_page_by_page() -> None:
    kept = await Kept().start()
    for _ in range(4):
        kept.state(WARNING)
        kept.clock.advance(60)
        kept.state(HEALTHY)
        kept.clock.advance(60)
    found = await kept.periods(start=BEGIN + timedelta(seconds=60), end=BEGIN + timedelta(seconds=360))
    assert [seconds(period) for period in found] == [(240, 300), (120, 180)]
    first = await kept.history.periods(PeriodFilter(), limit=3, before=None)
    rest = await kept.history.periods(PeriodFilter(), limit=3, before=first[-1][0])
    assert [seconds(period)[0] for _, period in [*first, *rest]] == [360, 240, 120, 0]


def test_a_message_that_comes_later_is_kept_with_its_period() -> None:
    kept = Kept()
    view = ComponentView(name="bus", status=WARNING, since=BEGIN)
    kept.history.note_component(view)
    for message in ("draining", "drains"):
        kept.history.note_component(ComponentView(name="bus", status=WARNING, since=BEGIN, message=message))
    assert [one.message for one in kept.told] == ["", "draining"]
    assert kept.told[0].period_id == kept.told[1].period_id
