"""What the writer does for rollups by itself, in virtual time: when something is due, and what is done then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.sqlite_sessions import compact, new_session, roll_up

from polaris.storage import RetentionPolicy, RollupPolicy, TimeRange, TimeSeriesPoint
from polaris.storage._buckets import FixedBuckets
from polaris.storage._capabilities import CAPABILITIES
from polaris.storage._ranges import to_micros
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries_requests import AggregateRequest, PointQuery
from polaris.storage.backends.sqlite._rollup_upkeep import REST_BUSY_SUMMARISED, RETENTION_INTERVAL_S, RollupUpkeep
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import rows, scalar
from polaris.storage.backends.sqlite._verify_rollups import ROLLUP_RULES
from polaris.testing import VirtualClock

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ALL = TimeRange.all().micros
GOING_ALONG = RetentionPolicy(10 * MINUTE, [RollupPolicy(MINUTE, 10 * MINUTE)])
POLICY = RetentionPolicy(10 * MINUTE, [RollupPolicy(MINUTE, HOUR), RollupPolicy(5 * MINUTE)])


class Work:
    """A store in memory and its upkeep. Every statement takes a millisecond of virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.session: SqliteSession = new_session()
        self.session.connection.exec_trace = self._take_time
        self.begin = self.clock.now()
        self.upkeep = RollupUpkeep(self.session, clock=self.clock)

    def _take_time(self, *_: object) -> bool:
        self.clock.advance(0.001)
        return True

    def store(self, collection: str, minutes: range) -> None:
        """Six points a minute of two series, counted from the beginning."""
        self.session.time_series.store_many(
            collection,
            [
                TimeSeriesPoint(self.begin + minute * MINUTE + n * MINUTE / 6, {"h": host}, {"v": minute})
                for minute in minutes
                for n in range(6)
                for host in "ab"
            ],
        )

    def run_slice(self) -> float:
        """One slice in a transaction of its own, as the writer does it; how long it took."""
        self.session.connection.execute("BEGIN")
        begun = self.clock.monotonic()
        self.upkeep.run_slice()
        took_s = self.clock.monotonic() - begun
        self.session.connection.execute("COMMIT")
        return took_s

    def run(self) -> int:
        """Slices until none is due for a while; gives how many."""
        slices = 0
        while True:
            self.clock.advance(1.0)
            if not self.upkeep.is_due(busy=False):
                return slices
            self.run_slice()
            slices += 1
            assert slices < 1_000, "it never rests"

    def raw(self, collection: str) -> int:
        return len(self.session.time_series.query(collection, PointQuery(ALL, 10**6)))

    def known(self, collection: str) -> int:
        """How many points the aggregates know of."""
        request = AggregateRequest(ALL, ("count",), buckets=FixedBuckets(5 * 60_000_000))
        return sum(row.count for row in self.session.time_series.aggregate(collection, request))

    def dirty(self) -> int:
        return int(scalar(self.session.connection, "SELECT count(*) FROM ts_dirty"))


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.session.connection.close()


def test_without_policies_it_looks_once_a_minute_and_rests(work: Work) -> None:
    work.store("m", range(30))
    assert work.run() == 1
    looks = 0
    for _ in range(10 * 60):
        work.clock.advance(1.0)
        if work.upkeep.is_due(busy=False):
            work.run_slice()
            looks += 1
    assert 9 <= looks <= 10
    assert (work.upkeep.points_retired, work.raw("m")) == (0, 360)


def test_points_are_retired_within_a_minute_of_becoming_old(work: Work) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(30))
    work.run()
    assert work.raw("m") == 360
    # In half an hour and ten minutes everything is old; looked at each minute, a minute's worth goes each time.
    work.clock.advance((work.begin + 20 * MINUTE - work.clock.now()).total_seconds())
    for minute in range(20, 40):
        work.clock.advance(60.0)
        work.run()
        left = work.raw("m")
        due = 12 * max(0, minute - 10)
        assert 360 - due - 24 <= left <= max(360 - due + 12, 12), minute
        assert work.known("m") == 360
    # The window of the newest points stays.
    assert work.raw("m") == 12
    assert work.upkeep.points_retired == 348
    assert [name for name, engine in CAPABILITIES.items() if engine.retires_by_itself] == ["sqlite"]


def test_rollups_follow_into_wider_ones(work: Work) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(30))
    work.store("m", range(300, 301))
    work.clock.advance(300 * 60.0)
    work.run()
    assert (work.raw("m"), work.known("m")) == (12, 372)
    assert work.upkeep.points_retired == 360
    assert work.upkeep.rollups_thinned == 30 * 2
    widths = work.session.connection.execute("SELECT DISTINCT width FROM ts_rollups").fetchall()
    assert widths == [(5 * 60_000_000,)]


def test_the_wall_clock_says_what_is_old_and_the_other_one_when_to_look(work: Work) -> None:
    work.session.time_series.set_policy("m", RetentionPolicy(HOUR))
    work.store("m", range(30))
    work.run()
    work.clock.jump_wall(2 * HOUR)
    assert work.run() == 0, "nobody has looked yet"
    work.clock.advance(RETENTION_INTERVAL_S)
    work.run()
    assert work.raw("m") == 2
    work.clock.jump_wall(-3 * HOUR)
    work.store("m", range(5))
    work.clock.advance(RETENTION_INTERVAL_S)
    work.run()
    assert work.raw("m") == 62


def test_after_a_slice_writers_have_the_store_for_four_times_as_long(work: Work) -> None:
    work.session.time_series.set_policy("m", RetentionPolicy(MINUTE))
    work.store("m", range(1_200))
    work.clock.advance(1_300 * 60.0)
    assert work.upkeep.is_due(busy=True)
    took_s = work.run_slice()
    assert took_s > 1.0
    waited = 0.0
    for until, idle, busy in ((0.9, False, False), (1.1, True, False), (3.9, True, False), (4.1, True, True)):
        work.clock.advance((until - waited) * took_s)
        waited = until
        assert work.upkeep.is_due(busy=False) is idle, waited
        assert work.upkeep.is_due(busy=True) is busy, waited


def test_summaries_leave_the_store_to_writers_for_much_longer(work: Work) -> None:
    work.session.time_series.set_policy("m", RetentionPolicy(None, [RollupPolicy(MINUTE)]))
    work.store("m", range(1_200))
    compact(work.session, 14_000)
    assert work.upkeep.is_due(busy=False)
    took_s = work.run_slice()
    work.clock.advance(4.5 * took_s)
    assert work.upkeep.is_due(busy=False)
    assert not work.upkeep.is_due(busy=True)
    work.clock.advance((REST_BUSY_SUMMARISED - 5) * took_s)
    assert not work.upkeep.is_due(busy=True)
    work.clock.advance(took_s)
    assert work.upkeep.is_due(busy=True)


def test_a_rollup_that_is_kept_as_long_as_the_points_goes_with_them(work: Work) -> None:
    work.session.time_series.set_policy("m", GOING_ALONG)
    work.store("m", range(30))
    compact(work.session, 350)
    work.clock.advance(30 * 60.0)
    work.run()
    # The minute that is ten minutes old goes when it is over as a whole.
    assert (work.raw("m"), work.known("m")) == (120, 120)
    assert scalar(work.session.connection, "SELECT count(*) FROM ts_rollups") == 0
    assert scalar(work.session.connection, "SELECT count(*) FROM ts_windows") > 0


@pytest.mark.parametrize("cold_rows", [0, 100, 350])
def test_rollups_that_would_go_at_once_are_not_even_made(
    work: Work, monkeypatch: pytest.MonkeyPatch, cold_rows: int
) -> None:
    made: list[object] = []
    monkeypatch.setattr(work.session.time_series.rollups, "add", made.extend)
    work.session.time_series.set_policy("m", GOING_ALONG)
    work.store("m", range(30))
    compact(work.session, cold_rows)
    work.clock.advance(30 * 60.0)
    work.run()
    assert (work.upkeep.points_retired, work.raw("m"), work.known("m")) == (240, 120, 120)
    assert made == []
    # Those of points that go before their time are: ten minutes more, and they would have been too old.
    assert work.session.time_series.retain("m", to_micros(work.clock.now() - 9 * MINUTE), 1_000) == 12
    assert len(made) == 2


def test_late_points_that_are_summarised_already_take_their_summaries_with_them(work: Work) -> None:
    work.session.time_series.set_policy("m", GOING_ALONG)
    work.store("m", range(30))
    compact(work.session, 350)
    late = [TimeSeriesPoint(work.begin + 15 * MINUTE + n * SECOND, {"h": "c"}, {"v": n}) for n in range(1, 9)]
    newest = TimeSeriesPoint(work.begin + 29 * MINUTE, {"h": "c"}, {"v": 0})
    work.session.time_series.store_many("m", [*late, newest])
    work.run()
    of_late = "SELECT total(w.count) FROM ts_windows w JOIN ts_series s ON s.id = w.series WHERE s.tags LIKE '%c%'"
    assert scalar(work.session.connection, of_late) == 8
    work.clock.advance(30 * 60.0)
    work.run()
    assert scalar(work.session.connection, of_late) == 0
    assert (work.raw("m"), work.known("m")) == (121, 121)


def test_windows_that_are_closed_are_summarised_and_marked_no_more(work: Work) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(9))
    assert work.dirty() > 0
    compact(work.session, 80)
    assert work.run() > 0
    summaries = "SELECT count(*), total(count) FROM ts_windows"
    # 80 rows are cold: six whole minutes of twelve.
    assert work.session.connection.execute(summaries).fetchone() == (12, 72.0)
    before = work.dirty()
    work.store("m", range(2, 3))
    assert work.known("m") == 108
    assert work.dirty() == before + 2
    work.run()
    assert work.dirty() == before
    assert work.session.connection.execute(summaries).fetchone() == (12, 72.0)


@pytest.mark.parametrize("again", ["another width", "late points in a range that was deleted"])
def test_points_whose_windows_are_marked_twice_are_counted_once(work: Work, again: str) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(20))
    if again == "another width":
        compact(work.session, 120)
        work.store("m", range(1, 4))  # the same once more, and hot
        work.session.time_series.set_policy("m", RetentionPolicy(10 * MINUTE, [RollupPolicy(5 * MINUTE)]))
    else:
        whole = TimeRange(work.begin, work.begin + 4 * MINUTE).micros
        assert work.session.time_series.delete_range("m", whole, parse_tags({})) == 48
        compact(work.session, 120)
        work.store("m", range(1, 4))
    count = work.raw("m")
    assert work.run() > 0
    assert work.known("m") == count


@pytest.mark.parametrize("slice_rows", [8, 40, 10_000])
def test_of_windows_that_were_narrower_nothing_is_left_beside_wider_ones(work: Work, slice_rows: int) -> None:
    for width in (1, 2, 10):
        work.session.time_series.set_policy("m", RetentionPolicy(None, [RollupPolicy(width * MINUTE)]))
        if width == 1:
            work.store("m", range(30))
            compact(work.session, 350)
        while roll_up(work.session, slice_rows):
            pass
        assert [rule.name for rule in ROLLUP_RULES if rows(work.session.connection, rule.sql)] == []
        assert work.known("m") == 360


def test_a_policy_that_is_replaced_is_followed_from_the_next_look_on(work: Work) -> None:
    work.session.time_series.set_policy("m", RetentionPolicy(HOUR))
    work.store("m", range(30))
    work.clock.advance(31 * 60.0)
    work.run()
    assert work.raw("m") == 360
    work.session.time_series.set_policy("m", RetentionPolicy(10 * MINUTE))
    work.clock.advance(RETENTION_INTERVAL_S)
    work.run()
    left = work.session.time_series.query("m", PointQuery(ALL, 10**6))
    assert min(one.timestamp for one in left) >= work.clock.now() - 12 * MINUTE
    work.session.time_series.set_policy("m", RetentionPolicy())
    work.clock.advance(3_600.0)
    work.run()
    assert work.raw("m") == len(left)


@pytest.mark.parametrize("first", [RetentionPolicy(10 * MINUTE), GOING_ALONG, POLICY])
def test_what_another_policy_keeps_does_not_go_by_the_former_one(work: Work, first: RetentionPolicy) -> None:
    work.session.time_series.set_policy("m", first)
    work.store("m", range(1_000))
    work.clock.advance(1_000 * 60.0)
    work.run_slice()  # some of what is old has gone, and more is to follow
    left = work.raw("m")
    assert 0 < left < 12_000
    work.session.time_series.set_policy("m", RetentionPolicy(2_000 * MINUTE, [RollupPolicy(MINUTE)]))
    work.clock.advance(RETENTION_INTERVAL_S / 2)  # before it looks at the policies again
    assert work.run() > 0
    assert work.raw("m") == left


def test_a_slice_that_fails_is_tried_again(work: Work) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(30))
    work.clock.advance(120 * 60.0)
    for _ in range(40):
        work.clock.advance(5.0)
        if not work.upkeep.is_due(busy=False):
            break
        work.session.connection.execute("BEGIN")
        work.upkeep.run_slice()
        work.session.connection.execute("ROLLBACK")  # as the writer does when the commit fails
        work.session.memory.rolled_back()
    assert work.raw("m") == 360
    work.clock.advance(RETENTION_INTERVAL_S)
    work.run()
    assert (work.raw("m"), work.known("m")) == (12, 360)


def test_a_collection_whose_retention_fails_holds_up_no_other(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    retain = work.session.time_series.retain

    def fail_of_first(collection: str, since_us: int, rows_max: int, under: RetentionPolicy) -> int:
        if collection == "a":
            raise RuntimeError("of a nothing goes")
        return retain(collection, since_us, rows_max, under)

    monkeypatch.setattr(work.session.time_series, "retain", fail_of_first)
    for collection in ("a", "b"):
        work.session.time_series.set_policy(collection, RetentionPolicy(MINUTE))
        work.store(collection, range(30))
    work.clock.advance(120 * 60.0)
    failures = 0
    for _ in range(10):
        work.clock.advance(1.0)
        try:
            if work.upkeep.is_due(busy=False):
                work.run_slice()
        except RuntimeError:
            work.session.connection.execute("ROLLBACK")
            failures += 1
    assert failures > 1
    assert (work.raw("a"), work.raw("b")) == (360, 2)
    monkeypatch.undo()
    work.run()
    assert work.raw("a") == 2


def test_deleted_series_leave_nothing_to_do(work: Work) -> None:
    work.session.time_series.set_policy("m", POLICY)
    work.store("m", range(30))
    work.clock.advance(30 * 60.0)
    while not work.session.time_series.delete_series("m", parse_tags({}), 50)[1]:
        work.run()
    assert (work.dirty(), work.raw("m"), work.known("m")) == (0, 0, 0)
    assert work.run() <= 1
