"""What engines differ in, as data: a configuration can be refused for it, a suite can choose its tests by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Isolation = Literal["serial", "serializable"]


class StorageCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine can do and what it costs; everything that is not here is the same on all engines."""

    durable: bool
    """A write that was awaited outlives the process and a loss of power."""
    multi_process: bool
    """Several processes may write to one store at once."""
    reads_beside_writer: bool
    """Other processes may read while one writes."""
    replicated: bool
    """A standby can take over with everything that was acknowledged."""
    isolation: Isolation
    """Of transactions. `serial`: as if each ran alone at its commit; `serializable`: as if in some order."""
    transactions_hold_connection: bool
    """A transaction that was asked something holds a connection to its end, and locks the rows that it sent."""
    transactions_begin_anew: bool
    """A transaction that cannot be ordered among others is done anew by itself, unless it was told something else."""
    writes_may_be_unconfirmed: bool
    """A lost connection can leave open whether a write was done: `UnconfirmedWriteError`."""
    wakes_other_processes: bool
    """Waiting for events of the outbox ends also with the commits of other processes."""
    drops_partitions: bool
    """Retention drops whole spans of time at once."""
    retires_by_itself: bool
    """What retention policies say is done beside the writes; elsewhere by `apply_retention`, which a node calls."""
    backup: bool
    """The store makes backups by itself; otherwise the server's own means are used."""
    restore: bool
    """A backup is put back by `restore_store`; otherwise the server's own means are used."""
    verify: bool
    """The store can be checked as a whole; elsewhere `verify` raises, and nothing is said of it."""
    compact: bool
    """Room that the store does not use is given back by `compact`; a server does so by itself or by its own means."""
    bounds_size: bool
    """The store takes a `size_bytes_max`, beyond which it is full; otherwise what it is in has to be bounded."""
    summarises_windows: bool
    """Summaries of points that are there make aggregates of long ranges quick; elsewhere all points are read."""
    indexes_node_properties: bool
    """Nodes are found by what their properties equal without all of them being looked at."""


MEMORY = StorageCapabilities(
    durable=False,
    multi_process=False,
    reads_beside_writer=False,
    replicated=False,
    isolation="serial",
    transactions_hold_connection=False,
    transactions_begin_anew=False,
    writes_may_be_unconfirmed=False,
    wakes_other_processes=False,
    drops_partitions=False,
    retires_by_itself=False,
    backup=False,
    restore=False,
    verify=False,
    compact=False,
    bounds_size=False,
    summarises_windows=False,
    indexes_node_properties=False,
)
SQLITE = msgspec.structs.replace(
    MEMORY,
    durable=True,
    reads_beside_writer=True,
    retires_by_itself=True,
    backup=True,
    restore=True,
    verify=True,
    compact=True,
    bounds_size=True,
    summarises_windows=True,
)
POSTGRESQL = StorageCapabilities(
    durable=True,
    multi_process=True,
    reads_beside_writer=True,
    replicated=True,
    isolation="serializable",
    transactions_hold_connection=True,
    transactions_begin_anew=True,
    writes_may_be_unconfirmed=True,
    wakes_other_processes=True,
    drops_partitions=True,
    retires_by_itself=False,
    backup=False,
    restore=False,
    verify=True,
    compact=False,
    bounds_size=False,
    summarises_windows=True,
    indexes_node_properties=True,
)

CAPABILITIES: Mapping[str, StorageCapabilities] = {"memory": MEMORY, "sqlite": SQLITE, "postgresql": POSTGRESQL}
"""By the name of the engine."""


def capabilities_table() -> str:
    """The differences as a table in Markdown, for the documentation."""
    names = list(CAPABILITIES)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for field in StorageCapabilities.__struct_fields__:
        cells = [_cell(getattr(CAPABILITIES[name], field)) for name in names]
        lines.append(f"| `{field}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
