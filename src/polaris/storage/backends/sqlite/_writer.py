"""The one thread that writes: many awaiting writers, one commit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import DataStoreError, StoreConnectionError, StoreCorruptError, StoreFullError
from polaris.storage.backends.sqlite._checkpoint import Checkpointer
from polaris.storage.backends.sqlite._compaction import Compaction
from polaris.storage.backends.sqlite._connection import open_writer
from polaris.storage.backends.sqlite._errors import let_go, translated
from polaris.storage.backends.sqlite._jobs import Job, JobQueue, tell
from polaris.storage.backends.sqlite._lock import WriterLock
from polaris.storage.backends.sqlite._migrate import known_migrations, migrate
from polaris.storage.backends.sqlite._options import SqliteOptions
from polaris.storage.backends.sqlite._rollup_upkeep import RollupUpkeep
from polaris.storage.backends.sqlite._session import SqliteSession

GROUP_JOBS_MAX = 512
GROUP_S_MAX = 0.010
IDLE_S = 1.0
GUARDED_GROUPS = 64
"""Groups whose jobs get savepoints, after one that had to be begun anew for want of them."""


class _GroupLostError(Exception):
    """SQLite rolled the whole group back while one of its jobs ran."""


class _GroupSpoiltError(Exception):
    """A job without a savepoint failed, and only the whole group can be taken back."""


class GroupWriter:
    """Owns the file's lock, its writing connection and the thread that uses them.

    Jobs are run in the order they came, until 512 of them or 10 ms have gone into the group; one commit and one sync
    make them all durable, and only then is anybody told. The points of a group are gathered until something reads them
    or it ends: many rows to a statement. Nearly all jobs succeed, so they are trusted: when one fails, the group is
    rolled back and begun anew with each job behind a savepoint, and so are the next groups; then the job that fails is
    rolled back alone. When the commit itself fails, or SQLite drops the whole transaction (a full disk),
    every job of the group is run again in a transaction of its own, so that the failure reaches only those that cannot
    succeed.
    """

    def __init__(
        self,
        path: Path,
        options: SqliteOptions,
        on_settled: Callable[[list[Job], bool], None],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._path = path
        self._clock = clock
        self._options = options
        self._on_settled = on_settled
        self._lock = WriterLock(path)
        self.queue = JobQueue(self._refuse)
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._guarded = 0
        """Groups to come whose jobs get savepoints."""
        self.counts = dict.fromkeys(("groups", "jobs", "jobs_failed", "groups_guarded", "groups_retried"), 0)
        self._write_error: Exception | None = None
        self._upkeep_error: Exception | None = None
        self._is_lost = False
        """Whether the connection is closed, because it failed and no other could be opened."""
        self.damage: str | None = None
        """What was found damaged last; it does not pass."""
        self._session: SqliteSession
        self._compaction: Compaction
        self._checkpointer: Checkpointer
        self._rollups: RollupUpkeep

    async def start(self) -> None:
        """Take the lock, open the file, bring its schema up to date. When it raises, nothing is left open."""
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        self._ended = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(loop, started, self._ended), name="polaris-store-writer", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.shield(started)
        except BaseException:  # boundary: undone, then raised again
            started.add_done_callback(lambda future: future.cancelled() or future.exception())
            await self.stop()
            raise

    async def stop(self) -> None:
        """Work off what was accepted, close, and end the thread. Cancelled, the thread still does so."""
        self.queue.close()
        if self._ended is not None:
            await asyncio.shield(self._ended)
            if self._thread is not None:
                self._thread.join()  # it has nothing left to do

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._ended is not None and not self._ended.done()

    @property
    def last_error(self) -> Exception | None:
        """What failed last and did not succeed since; a write that succeeds also clears what housekeeping left."""
        return self._write_error or self._upkeep_error

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the start."""
        counts = dict(self.counts)
        if self.is_running:
            counts["compaction_slices"] = self._compaction.slices
            counts["compacted_rows"] = self._compaction.rows_moved
            counts["rollup_slices"] = self._rollups.slices
            counts["points_retired"] = self._rollups.points_retired
            counts["checkpoints"] = self._checkpointer.done
            counts["checkpoints_insisted"] = self._checkpointer.insisted
            counts["checkpoints_blocked"] = self._checkpointer.blocked
            counts["wal_pages"] = self._checkpointer.wal_pages
        return counts

    @property
    def log_is_held_up(self) -> bool:
        """Whether a reader keeps the log from being emptied or begun anew, as far as the last checkpoint could tell."""
        return self.is_running and self._checkpointer.is_held_up

    # What follows runs in the writer's thread.

    def look_at_log_again(self, _session: SqliteSession) -> None:
        """A chore: empty a log that was held up, if it can be by now."""
        self._checkpointer.look_again()

    def _run(self, loop: asyncio.AbstractEventLoop, started: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        try:
            try:
                self._open()
            except Exception as error:  # boundary: the failure belongs to whoever awaits the start
                tell(loop, started, translated(error))
                return
            tell(loop, started, None)
            while self.queue.wait(self._rollups.wait_s(IDLE_S)):
                groups = self.counts["groups"]
                self._run_group()
                self._run_chore()
                self._maintain(wrote=self.counts["groups"] > groups)
            self._session.connection.close()
        finally:
            self._lock.release()
            self._refuse_rest()
            tell(loop, ended, None)

    def _open(self) -> None:
        self._lock.acquire()
        connection = open_writer(self._path, size_bytes_max=self._options.size_bytes_max)
        try:
            self._lock.claim_file()
            migrate(connection, known_migrations())
            self._attach(connection)
        except BaseException:  # boundary: undone, then raised again
            connection.close()
            raise

    def _attach(self, connection: apsw.Connection) -> None:
        """Work on this connection from now on."""
        session = SqliteSession(connection)
        session.time_series.limit_series(self._options.series_limits)
        hot_rows_max, slice_rows = self._options.hot_rows_max, self._options.slice_rows
        self._compaction = Compaction(session, hot_rows_max=hot_rows_max, slice_rows=slice_rows)
        self._checkpointer = Checkpointer(connection)
        self._rollups = RollupUpkeep(session, clock=self._clock)
        self._session = session
        self._is_lost = False

    def _replace(self) -> None:
        """Work on a new connection from now on. When it raises, there is none."""
        self._attach(open_writer(self._path, size_bytes_max=self._options.size_bytes_max))

    def _begin(self) -> None:
        if self._is_lost:
            self._replace()
        self._session.connection.execute("BEGIN IMMEDIATE")

    def _run_group(self) -> None:
        jobs: list[Job] = []
        try:
            self._fill_group(jobs)
        except _GroupSpoiltError:
            self._abandon()
            if len(jobs) > 1:
                self._run_guarded(jobs)
        except Exception as error:  # boundary: whatever SQLite says, every job of the group gets an answer
            self._abandon()
            self._run_alone(jobs, error)
        if jobs:
            self.counts["groups"] += 1
            self._settle(jobs)

    def _fill_group(self, jobs: list[Job]) -> None:
        """Take jobs and run them in one transaction, until there are no more or the group is full."""
        deadline = time.monotonic() + GROUP_S_MAX
        run = self._run_job if self._guarded else self._run_trusted
        while len(jobs) < GROUP_JOBS_MAX and (not jobs or time.monotonic() < deadline):
            job = self.queue.take()
            if job is None:
                break
            jobs.append(job)
            if len(jobs) == 1:
                self._begin()
            run(job)
        if jobs:
            self._guarded = max(0, self._guarded - 1)
            self._end(keep=any(job.keep and job.error is None for job in jobs))

    def _run_guarded(self, jobs: list[Job]) -> None:
        """Begin the group anew, so that those of its jobs that fail can be taken back alone."""
        self._guarded = GUARDED_GROUPS
        self.counts["groups_guarded"] += 1
        try:
            self._begin()
            for job in jobs:
                job.result = job.error = None
                self._run_job(job)
            self._end(keep=any(job.keep and job.error is None for job in jobs))
        except Exception as error:  # boundary: as in a group that is run for the first time
            self._abandon()
            self._run_alone(jobs, error)

    def _run_alone(self, jobs: list[Job], error: Exception) -> None:
        """After the group is lost: each job in a transaction of its own. Nobody was told anything yet."""
        if len(jobs) == 1:
            jobs[0].error = jobs[0].error or translated(error)
            return
        self.counts["groups_retried"] += 1
        for place, job in enumerate(jobs):
            job.result = job.error = None
            try:
                self._begin()
            except Exception as failure:  # boundary: no transaction can be had at all, so nobody needs to try one more
                self._abandon()
                for refused in jobs[place:]:
                    refused.error = translated(failure)
                return
            try:
                self._run_job(job)
                self._end(keep=job.keep and job.error is None)
            except Exception as failure:  # boundary: as above, for this job alone
                self._abandon()
                job.error = job.error or translated(failure)

    def _run_trusted(self, job: Job) -> None:
        """Run the job without a savepoint, unless it is to be taken back anyway."""
        if not job.keep:
            self._run_job(job)
            return
        self._session.time_series.gathers = True
        try:
            job.result = job.work(self._session)
        except Exception as error:  # boundary: one job's failure is its own; the others of the group are run again
            let_go(error)
            job.error = translated(error)
            raise _GroupSpoiltError from error

    def _run_job(self, job: Job) -> None:
        session, connection = self._session, self._session.connection
        mark = session.memory.mark()
        session.write_gathered()  # what trusted jobs of the group brought stays, whatever becomes of this one
        session.time_series.gathers = False
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(session)
        except Exception as error:  # boundary: one job's failure is its own; the others of the group go on
            let_go(error)
            job.error = translated(error)
            if not connection.in_transaction:
                raise _GroupLostError from error
        if job.error is not None or not job.keep:
            connection.execute("ROLLBACK TO job")
            session.rolled_back(mark)
        connection.execute("RELEASE job")

    def _end(self, *, keep: bool) -> None:
        """Commit the group, or roll back what would commit nothing."""
        if keep:
            self._session.commit()
        else:
            self._session.roll_back()

    def _abandon(self) -> None:
        """Roll everything back; a connection that cannot even do that is replaced, at once or by who needs it next."""
        self._session.rolled_back()
        connection = self._session.connection
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("PRAGMA synchronous = FULL")
        except apsw.Error:
            connection.close()
            self._is_lost = True
            with suppress(apsw.Error, DataStoreError):
                self._replace()

    def _settle(self, jobs: list[Job]) -> None:
        failed = [job.error for job in jobs if job.error is not None]
        self.counts["jobs"] += len(jobs)
        self.counts["jobs_failed"] += len(failed)
        for error in failed:
            self._heed(error)
        broken = [error for error in failed if isinstance(error, DataStoreError) and error.retryable is not False]
        if broken:
            self._write_error = broken[-1]
        elif len(failed) < len(jobs):
            self._write_error = self._upkeep_error = None
        added, self._session.outbox.added = self._session.outbox.added, False
        self._on_settled(jobs, added)

    def _run_chore(self) -> None:
        chore = self.queue.take_chore()
        if chore is None:
            return
        try:
            chore.result = chore.work(self._session)
        except Exception as error:  # boundary: the failure belongs to whoever awaits the chore
            let_go(error)
            self._abandon()
            chore.error = translated(error)
            self._heed(chore.error)
        self._on_settled([chore], False)

    def move_slice(self, is_awaited: Callable[[], bool] = lambda: False) -> int:
        """Move one slice of the oldest rows; how many, 0 when no whole slice is left. For chores."""
        before = self._compaction.rows_moved
        self._begin()
        self._compaction.move_slice(is_awaited)
        self._session.commit()
        self._upkeep_error = None
        return self._compaction.rows_moved - before

    def _maintain(self, *, wrote: bool) -> None:
        """One slice of compaction or of rollups, or a checkpoint, where due: writers wait for one of them at most, and
        for half a slice of compaction if that will do.

        Where groups bring more rows than a slice takes, writers wait for as many as they need, so that neither the hot
        table nor the log grows without bound. All can wait when they fail.
        """
        try:
            if self._is_lost:
                self._replace()
            if (overdue := self._checkpointer.is_overdue) and self._checkpointer.run_if_due():
                self._upkeep_error = None
            if self._compaction.is_due and self.move_slice(lambda: len(self.queue) > 0):
                while self._compaction.is_behind and self.move_slice():
                    pass
            elif self._rollups.is_due(busy=wrote or len(self.queue) > 0):
                self._run_slice()
            elif not overdue and self._checkpointer.run_if_due():
                self._upkeep_error = None
        except Exception as error:  # boundary: housekeeping must not end the writer; health shows it
            self._abandon()
            self._upkeep_error = failure = translated(error)
            self._heed(failure)

    def _heed(self, error: Exception) -> None:
        """Remember damage, and want room where it lacks. After what failed was rolled back."""
        if isinstance(error, StoreCorruptError):
            self.damage = error.message
        elif isinstance(error, StoreFullError):
            self._checkpointer.make_room()

    def _run_slice(self) -> None:
        """One slice of rollups, whose commit is not synced: nobody was told of it.

        A loss of power takes it back as a whole, so that it is done again; the next commit of a write syncs it as well.
        """
        connection = self._session.connection
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        self._rollups.run_slice()
        self._session.commit()
        self._upkeep_error = None
        connection.execute("PRAGMA synchronous = FULL")

    def _refuse_rest(self) -> None:
        if rest := self.queue.abandon():
            self._refuse(rest)

    def _refuse(self, jobs: list[Job]) -> None:
        """Settle what was never begun; in the event loop when the thread had ended before these came to it."""
        for job in jobs:
            job.error = StoreConnectionError("the store was closed before this write was begun")
        self._on_settled(jobs, False)
