"""The outbox on a server: sequences in the order of the commits, and other processes woken by notifications."""

from __future__ import annotations

from collections.abc import Sequence

from polaris.storage._operation import OutboxRow
from polaris.storage._ranges import from_micros
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._migrate import OUTBOX_LOCK, lock_number

# The lock is held until the commit has ended, so who comes later gets a greater number and is seen later.
_ADD = (
    "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($1, $2), pg_notify($3, ''))"
    " INSERT INTO outbox (topic, event_type, version, payload, created_us) SELECT $4, $5, $6, $7, $8 FROM turn"
)


def channel_of(schema: str) -> str:
    """Where a commit with events is told."""
    return f"polaris_outbox_{schema}"


class PostgresOutbox:
    """Rows in the order of their commits."""

    def __init__(self, link: Link, schema: str) -> None:
        self._link = link
        self._schema = schema
        self.added = False

    async def add(self, topic: str, event_type: str, version: int, payload: bytes, created_us: int) -> None:
        lock = lock_number(self._schema)
        await self._link.run(
            _ADD, OUTBOX_LOCK, lock, channel_of(self._schema), topic, event_type, version, payload, created_us
        )
        self.added = True

    async def pending(self, limit: int, after: int) -> list[OutboxRow]:
        rows = await self._link.rows(
            "SELECT sequence, topic, event_type, version, payload, created_us FROM outbox"
            " WHERE sequence > $1 ORDER BY sequence LIMIT $2",
            min(max(after, -(2**63)), 2**63 - 1),
            limit,
        )
        return [OutboxRow(row[0], row[1], row[2], row[3], row[4], from_micros(row[5])) for row in rows]

    async def remove(self, sequences: Sequence[int]) -> int:
        known = [sequence for sequence in sequences if 0 < sequence < 2**63]
        return await self._link.run("DELETE FROM outbox WHERE sequence = ANY($1::bigint[])", known)

    async def count(self) -> int:
        return int(await self._link.value("SELECT count(*) FROM outbox"))
