"""The store that the settings name, and how long it keeps what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from polaris.exceptions import ConfigurationError

if TYPE_CHECKING:
    from polaris.runtime._settings import Settings, StoreSettings
    from polaris.storage import PolarisDataStore, RetentionPolicy, RoutedDataStore

SUMMARY_WIDTHS_S = (300, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)
"""Widths that summaries have by themselves: buckets of a chart are often multiples of them."""
SAMPLES_A_SUMMARY = 110
"""From so many on, a summary adds at most about one byte to each value that it is of."""

ONE_SERVER = (
    "store.routing.servers: a node keeps its store on one server; give it a store.dsn of its own instead. Several "
    "servers are for programs that use RoutedDataStore, and for polaris store servers, move and moves"
)


def open_store(settings: Settings, *, read_only: bool = False) -> PolarisDataStore:
    """The store of the settings, not connected yet; for writing, the folder of its file is made.

    Raises `ConfigurationError` when the settings spread it over several servers: those are opened by
    `open_routed_store`.
    """
    from polaris.storage import PolarisDataStore

    chosen, limits = settings.store, settings.store.limits
    if chosen.routing.servers:
        raise ConfigurationError(problems=[ONE_SERVER])
    if chosen.engine == "postgresql":
        return _on_server(chosen, chosen.dsn or "", read_only=read_only)
    if not read_only:
        settings.store_path.parent.mkdir(parents=True, exist_ok=True)
    return PolarisDataStore.sqlite(settings.store_path, read_only=read_only, **msgspec.structs.asdict(limits))


def open_routed_store(settings: Settings, *, read_only: bool = False) -> RoutedDataStore:
    """The store over the servers of `[store.routing]`, not connected yet. Raises `ConfigurationError` without any."""
    if not settings.store.routing.servers:
        raise ConfigurationError(
            problems=["store.routing.servers: names no server (see docs/how-to/several-servers.md)"]
        )
    return routed_store(settings.store, read_only=read_only)


def routed_store(chosen: StoreSettings, *, read_only: bool = False) -> RoutedDataStore:
    """As `open_routed_store`. Raises `ConfigurationError` with everything that does not fit together."""
    from polaris.storage import RoutedDataStore

    routing = chosen.routing
    return RoutedDataStore(
        {name: _on_server(chosen, one.dsn or "", read_only=read_only) for name, one in routing.servers.items()},
        weights={name: one.weight for name, one in routing.servers.items()},
        shared=routing.shared,
        series=routing.series,
        documents=routing.documents,
    )


def _on_server(chosen: StoreSettings, dsn: str, *, read_only: bool) -> PolarisDataStore:
    from polaris.storage import PolarisDataStore, SeriesLimits

    limits = chosen.limits
    series = SeriesLimits(series_max=limits.series_max, collection_series_max=limits.collection_series_max)
    return PolarisDataStore.postgresql(dsn, schema=chosen.schema, read_only=read_only, series_limits=series)


def retention_policy(settings: Settings) -> RetentionPolicy:
    """The settings as a policy. Raises `InvalidValueError` when its parts do not fit together."""
    from polaris.storage import RetentionPolicy, RollupPolicy

    chosen = settings.store.retention
    raw_kept = _days(chosen.raw_days)
    rollups = [RollupPolicy(timedelta(seconds=rollup.width_s), _days(rollup.kept_days)) for rollup in chosen.rollups]
    width = _summary_width(settings)
    if width is not None:
        rollups = [RollupPolicy(width, raw_kept)]
    return RetentionPolicy(raw_kept, rollups)


async def apply_retention(store: PolarisDataStore, settings: Settings) -> None:
    """Have the telemetry of managed systems kept as the settings say, if that is not so already."""
    from polaris.storage import RetentionPolicy

    if not settings.store.retention.enabled:
        return
    policy, collection = retention_policy(settings), store.states.collection
    known = await store.time_series.get_retention(collection)
    if known != policy and (known is not None or policy != RetentionPolicy()):
        await store.time_series.set_retention(collection, policy)


def _summary_width(settings: Settings) -> timedelta | None:
    """What the summaries span that go with their samples; None where there are to be none of them.

    Chosen so wide that those of the systems named here are of `SAMPLES_A_SUMMARY` samples on average; in a database,
    which other nodes with other systems may share, the narrowest.
    """
    chosen = settings.store.retention
    if chosen.rollups or chosen.summary_s == 0:
        return None
    raw_kept = _days(chosen.raw_days)
    is_shared = settings.store.engine == "postgresql"
    width_s = chosen.summary_s
    if width_s is None and is_shared:
        width_s = SUMMARY_WIDTHS_S[0]
    elif width_s is None:
        rates = [1.0 / system.interval_s for system in settings.systems.values() if system.enabled]
        width_s = next((width for width in SUMMARY_WIDTHS_S if _samples(rates, width) >= SAMPLES_A_SUMMARY), 86_400)
    width = timedelta(seconds=width_s)
    return None if raw_kept is not None and raw_kept < width else width


def _samples(rates: Sequence[float], width_s: int) -> float:
    """Of how many samples a summary is on average; as if of many, where no system is known."""
    summaries = sum(min(1.0, rate * width_s) for rate in rates)
    return sum(rates) * width_s / summaries if summaries else float(SAMPLES_A_SUMMARY)


def _days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
