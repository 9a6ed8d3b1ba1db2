"""The store that the settings name, and how long it keeps what."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polaris.runtime._settings import RetentionSettings, Settings
    from polaris.storage import PolarisDataStore, RetentionPolicy


def open_store(settings: Settings, *, read_only: bool = False) -> PolarisDataStore:
    """The store of the settings, not connected yet; for writing, the folder of its file is made."""
    from polaris.storage import PolarisDataStore

    chosen = settings.store
    if chosen.engine == "postgresql":
        return PolarisDataStore.postgresql(chosen.dsn or "", schema=chosen.schema, read_only=read_only)
    if not read_only:
        settings.store_path.parent.mkdir(parents=True, exist_ok=True)
    return PolarisDataStore.sqlite(settings.store_path, read_only=read_only)


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
