"""The states that managed systems report: the latest, the history, and each metric as a series."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

import msgspec

from polaris.domain import HealthStatus, SystemState
from polaris.domain._checks import check_id
from polaris.exceptions import InvalidValueError, StoreCorruptError
from polaris.storage._backend import StorageBackend
from polaris.storage._limits import check_limit
from polaris.storage._ranges import TimeRange
from polaris.storage._repository import Repository
from polaris.storage._timeseries import (
    AggregatedPoint,
    AggregationType,
    FieldValue,
    Order,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
)
from polaris.storage._turns import TURN_ITEMS, in_turns
from polaris.storage.repositories._state_codec import (
    FORM,
    FORM_TAG,
    SYSTEM_TAG,
    Form,
    StateCodec,
    field_of,
    form_point,
    health_of,
)

STATES = "system_states"
FORMS = "system_state_forms"


class SystemSummary(msgspec.Struct, frozen=True):
    """A managed system, when it last reported, and how it was."""

    system_id: str
    timestamp: datetime
    health_status: HealthStatus


class SystemStateRepository(Repository[SystemState]):
    """Keeps every state that systems report; a state comes back equal to what was saved.

    A state is one point of the series {system_id: ...} in the collection `system_states`, and every metric one field of
    it under the metric's key (with one more `@` in front when the key begins with one), so a metric can be queried and
    aggregated without touching the others; units, tags and the rest are kept beside (see `_state_codec`). The same
    system and timestamp twice is one state, the last written. The id for `find_by_id` and `delete` is the system's:
    the latest state, and the whole history.
    """

    model = "time_series"
    collection = STATES

    def __init__(self, storage_backend: StorageBackend) -> None:
        super().__init__(storage_backend)
        self._codec = StateCodec()
        self._stored_forms: set[str] = set()

    @property
    def time_series(self) -> TimeSeriesStorageBackend:
        return cast(TimeSeriesStorageBackend, self.storage_backend)

    async def save(self, entity: SystemState) -> None:
        await self.save_many([entity])

    async def save_current_state(self, state: SystemState) -> None:
        """Keep a state. It becomes the current one unless a newer one is known: late reports go into the history."""
        await self.save_many([state])

    async def save_many(self, states: Sequence[SystemState]) -> None:
        """Keep up to 100 000 states in one transaction: all or none. Idempotent.

        Cancelled, it is done entirely or not at all; a form that was written before is harmless and used next time.
        """
        points: list[TimeSeriesPoint] = []
        forms: dict[str, str] = {}
        for count, state in enumerate(states, 1):
            if state.__class__ is not SystemState:
                raise InvalidValueError("states", "SystemState objects", state)
            point, digest, text = self._codec.encode(state)
            points.append(point)
            if digest and digest not in self._stored_forms:
                forms[digest] = text
            if count % TURN_ITEMS == 0:
                await asyncio.sleep(0)
        if forms:
            # Forms first: a point never names a form that is not there.
            await self.time_series.store_many(FORMS, [form_point(digest, text) for digest, text in forms.items()])
        await self.time_series.store_many(STATES, points)
        if forms and len(self._stored_forms) < StateCodec.FORMS_MAX:
            self._stored_forms.update(forms)

    async def get_current_state(self, system_id: str) -> SystemState | None:
        """The latest state of the system, however old, or None. Takes the same time whatever the history."""
        check_id("system_id", system_id)
        found = await self._states(await self.time_series.latest(STATES, {SYSTEM_TAG: system_id}))
        return found[0] if found else None

    async def get_current_states(self) -> list[SystemState]:
        """The latest state of every system, in order of their ids."""
        return await self._states(await self.time_series.latest(STATES))

    async def get_state_history(
        self, system_id: str, time_range: TimeRange, *, limit: int | None = None, order: Order = "asc"
    ) -> list[SystemState]:
        """The states of the system in the range, by time; with a `limit`, of 1 000 000 at most, the first ones.

        Without it more than 1 000 000 states are a `QueryError`.
        """
        check_id("system_id", system_id)
        points = await self.time_series.query_time_series(
            STATES, time_range, {SYSTEM_TAG: system_id}, limit=limit, order=order
        )
        return await self._states(points)

    async def series(
        self,
        system_id: str,
        metric: str,
        time_range: TimeRange,
        *,
        limit: int | None = None,
        order: Order = "asc",
    ) -> list[tuple[datetime, FieldValue]]:
        """The values of one metric by the timestamps of its states; None where it was reported as missing.

        `limit` as in `get_state_history`.
        """
        check_id("system_id", system_id)
        field = field_of(metric)
        points = await self.time_series.query_time_series(
            STATES, time_range, {SYSTEM_TAG: system_id}, limit=limit, order=order, fields=[field]
        )
        return [(point.timestamp, point.fields[field]) for point in points]

    async def aggregate(
        self,
        system_id: str | None,
        metric: str,
        time_range: TimeRange,
        aggregation: AggregationType,
        *,
        bucket: timedelta | None = None,
    ) -> list[AggregatedPoint]:
        """One metric aggregated by bucket; with None for `system_id`, for each system that has it (see the tags)."""
        tags = None if system_id is None else {SYSTEM_TAG: system_id}
        return await self.time_series.aggregate_time_series(
            STATES, time_range, aggregation, SYSTEM_TAG, bucket=bucket, tags=tags, fields=[field_of(metric)]
        )

    async def systems(self) -> list[SystemSummary]:
        """Every system that ever reported, in order of their ids, with its latest timestamp and health."""
        return [
            SystemSummary(point.tags[SYSTEM_TAG], point.timestamp, health_of(point.fields))
            for point in await self.time_series.latest(STATES)
        ]

    async def find_by_id(self, entity_id: str) -> SystemState | None:
        return await self.get_current_state(entity_id)

    async def find_all(self, *, limit: int | None = None) -> list[SystemState]:
        """The latest state of every system, in order of their ids; with a `limit` the first ones."""
        most = None if limit is None else check_limit(limit)
        return (await self.get_current_states())[:most]

    async def delete(self, entity_id: str) -> bool:
        """Delete all states of the system; False when there was none."""
        check_id("system_id", entity_id)
        return bool(await self.time_series.delete_range(STATES, TimeRange.all(), {SYSTEM_TAG: entity_id}))

    async def _states(self, points: list[TimeSeriesPoint]) -> list[SystemState]:
        # Kept for this read: the codec may forget them while others are read.
        forms: dict[str, Form] = {}
        for digest in {str(point.fields[FORM]) for point in points if FORM in point.fields}:
            forms[digest] = self._codec.known(digest) or await self._learn(digest)
        return [self._codec.decode(point, forms) async for point in in_turns(points)]

    async def _learn(self, digest: str) -> Form:
        found = await self.time_series.latest(FORMS, {FORM_TAG: digest})
        if not found:
            raise StoreCorruptError(f"the form {digest} of stored states is missing")
        try:
            return self._codec.learn(digest, str(found[0].fields["text"]))
        except (msgspec.MsgspecError, LookupError) as error:
            raise StoreCorruptError(f"the form {digest} of stored states is damaged") from error
