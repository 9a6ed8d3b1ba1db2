"""The store that the settings name, and how long it keeps what."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from polaris.exceptions import ConfigurationError

if TYPE_CHECKING:
    from polaris.runtime._settings import RetentionSettings, Settings, StoreSettings
    from polaris.storage import PolarisDataStore, RetentionPolicy, RoutedDataStore

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


def retention_policy(settings: RetentionSettings) -> RetentionPolicy:
    """The settings as a policy. Raises `InvalidValueError` when its parts do not fit together."""
    from polaris.storage import RetentionPolicy, RollupPolicy

    return RetentionPolicy(
        _days(settings.raw_days),
        [RollupPolicy(timedelta(seconds=rollup.width_s), _days(rollup.kept_days)) for rollup in settings.rollups],
    )


async def apply_retention(store: PolarisDataStore, settings: RetentionSettings) -> None:
    """Have the telemetry of managed systems kept as the settings say, if that is not so already."""
    if not settings.enabled:
        return
    policy, collection = retention_policy(settings), store.states.collection
    known = await store.time_series.get_retention(collection)
    if known != policy and (known is not None or policy != retention_policy(type(settings)())):
        await store.time_series.set_retention(collection, policy)


def _days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
