"""Retention of time series: whole partitions are dropped, what is left of others is deleted."""

from __future__ import annotations

from polaris.clock import Clock
from polaris.storage.backends.postgresql._catalog import Partitions, partition_name
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._drop_pauses import DropPauses
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._marks import mark_all, mark_gone_sql

DROP_WAIT_MS = 200
"""How long a partition's end may hold up those who come after it in the queue for its table; then rows are deleted."""

_WINDOW = "l.ts - ((l.ts % {0}::bigint) + {0}::bigint) % {0}::bigint"


class Retention:
    """One step of retention of one collection, inside a transaction.

    Of what goes the windows are marked, also where no summaries are known: another policy may just be coming.
    """

    def __init__(self, link: Link, home: Partitions, pauses: DropPauses, clock: Clock, window_us: int = 1) -> None:
        """`window_us`: points go in whole windows of this width, and that of the newest point of each series stays."""
        self._link = link
        self._home = home
        self._pauses = pauses
        self._clock = clock
        self._window_us = window_us

    async def apply(self, since_us: int, rows_max: int) -> int:
        """Remove a partition that is old as a whole, or up to `rows_max` old rows; gives how many rows went.

        The newest point of every series stays: a partition with one of them is emptied of the others. While others
        use the collection for long, all goes row by row.
        """
        if self._may_drop():
            for start_us, end_us in await self._old_partitions(since_us):
                dropped = await self._drop_partition(start_us, end_us)
                if dropped:
                    return dropped
                if dropped is None:
                    break
        return await self._delete_rows(since_us, rows_max)

    async def drop_empty(self, since_us: int) -> None:
        """Drop the old partitions whose points have all gone into rollups, as far as nobody is in the way."""
        if not self._may_drop():
            return
        for start_us, end_us in await self._old_partitions(since_us):
            name = partition_name(self._home.number, start_us)
            if await self._link.value(f"SELECT EXISTS (SELECT 1 FROM {name})"):  # noqa: S608
                continue
            if await self._drop_partition(start_us, end_us, only_empty=True) is None:
                return

    def _may_drop(self) -> bool:
        if self._link.is_serializable:  # what has come after its snapshot must not be dropped unseen
            return False
        return not self._pauses.lasts(self._home.number, self._clock.monotonic())

    async def _old_partitions(self, since_us: int) -> list[tuple[int, int]]:
        """The spans of partitions that are old as a whole and without the newest point of any series."""
        rows = await self._link.rows(
            f"SELECT start_us, end_us FROM ts_partitions t WHERE collection = $1 AND end_us <= $2 AND NOT EXISTS"  # noqa: S608
            f" (SELECT 1 FROM ts_latest l JOIN ts_series s ON s.id = l.series WHERE s.collection = $1"
            f" AND l.ts >= t.start_us AND {_WINDOW.format('$3')} < t.end_us) ORDER BY start_us",
            self._home.number,
            since_us,
            self._window_us,
        )
        return [(row[0], row[1]) for row in rows]

    async def _drop_partition(self, start_us: int, end_us: int, *, only_empty: bool = False) -> int | None:
        """Drop one partition, unless it must stay; gives how many rows went, None when others were in the way.

        Then no partition of the collection is asked for in a while.
        """
        name = partition_name(self._home.number, start_us)
        await self._link.run("SAVEPOINT dropping")
        try:
            await self._link.run(f"SET LOCAL lock_timeout = {DROP_WAIT_MS}")
            # First the whole and then the part, as everybody does who reads or writes.
            await self._link.run(f"LOCK TABLE ONLY {self._home.table} IN ACCESS EXCLUSIVE MODE")
            await self._link.run(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
            # A point may have come into it, as the newest of its series, while this waited.
            if await self._has_newest(start_us, end_us):
                await self._link.run("ROLLBACK TO SAVEPOINT dropping")
                return 0
            count = int(await self._link.value(f"SELECT count(*) FROM {name}"))  # noqa: S608
            if only_empty and count:
                await self._link.run("ROLLBACK TO SAVEPOINT dropping")
                return 0
            if count:
                await mark_all(self._link, self._home.number, (start_us, end_us))
            await self._link.run(f"DROP TABLE {name}")
            await self._link.run(
                "DELETE FROM ts_partitions WHERE collection = $1 AND start_us = $2", self._home.number, start_us
            )
            await self._link.run("RELEASE SAVEPOINT dropping")
        except (driver_errors.LockNotAvailableError, driver_errors.DeadlockDetectedError):
            await self._link.run("ROLLBACK TO SAVEPOINT dropping")
            self._pauses.begin(self._home.number, self._clock.monotonic())
            return None
        return count

    async def _has_newest(self, start_us: int, end_us: int) -> bool:
        return bool(
            await self._link.value(
                "SELECT EXISTS (SELECT 1 FROM ts_latest l JOIN ts_series s ON s.id = l.series"  # noqa: S608
                f" WHERE s.collection = $1 AND l.ts >= $2 AND {_WINDOW.format('$4')} < $3)",
                self._home.number,
                start_us,
                end_us,
                self._window_us,
            )
        )

    async def _delete_rows(self, since_us: int, rows_max: int) -> int:
        table = self._home.table
        marked = mark_gone_sql(self._home.number, "gone", at_least=self._link.is_serializable)
        count = await self._link.value(
            f"WITH gone AS (DELETE FROM {table} p USING (SELECT o.series, o.ts FROM ts_series s"  # noqa: S608
            f" JOIN ts_latest l ON l.series = s.id JOIN {table} o ON o.series = s.id AND o.ts < {_WINDOW.format('$4')}"
            " AND o.ts < $2 WHERE s.collection = $1 LIMIT $3) AS d WHERE p.series = d.series AND p.ts = d.ts"
            f" RETURNING p.series, p.ts), marked AS ({marked}) SELECT count(*) FROM gone",
            self._home.number,
            since_us,
            rows_max,
            self._window_us,
        )
        return int(count)
