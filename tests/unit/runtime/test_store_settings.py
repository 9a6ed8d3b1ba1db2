"""The settings of the store: which engine, and how long it keeps what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from polaris.exceptions import ConfigurationError
from polaris.runtime import Settings, effective_settings, load_settings, open_routed_store
from polaris.runtime._store import apply_retention, open_store, retention_policy
from polaris.storage import (
    PolarisDataStore,
    PostgresEngine,
    RetentionPolicy,
    RollupPolicy,
    SeriesLimits,
    SqliteEngine,
)

DAY = timedelta(days=1)
MINUTES = timedelta(minutes=5)


def problems(text: str, folder: Path) -> list[str]:
    file = folder / "polaris.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environment={})
    return list(caught.value.problems)


def settings(text: str, folder: Path, environment: dict[str, str] | None = None) -> Settings:
    file = folder / "polaris.toml"
    file.write_text(text)
    return load_settings(file, environment=environment or {})


def test_samples_are_kept_for_a_month_and_their_summaries_for_years_when_that_is_asked(tmp_path: Path) -> None:
    text = """
        [store.retention]
        raw_days = 30
        rollups = [{ width_s = 300, kept_days = 365 }, { width_s = 3600, kept_days = 1825 }]
    """
    assert retention_policy(settings(text, tmp_path)) == RetentionPolicy(
        30 * DAY,
        [RollupPolicy(timedelta(minutes=5), 365 * DAY), RollupPolicy(timedelta(hours=1), 1825 * DAY)],
    )


async def test_without_settings_everything_is_kept_and_summarised(tmp_path: Path) -> None:
    chosen = settings("", tmp_path)
    assert retention_policy(chosen) == RetentionPolicy(None, [RollupPolicy(MINUTES)])
    async with PolarisDataStore.memory() as store:
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy(None, [RollupPolicy(MINUTES)])
        await store.time_series.set_retention("system_states", RetentionPolicy(3 * DAY))
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy(None, [RollupPolicy(MINUTES)])


async def test_without_summaries_and_settings_a_store_has_no_policy(tmp_path: Path) -> None:
    chosen = settings("[store.retention]\nsummary_s = 0", tmp_path)
    assert retention_policy(chosen) == RetentionPolicy()
    async with PolarisDataStore.memory() as store:
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") is None
        await store.time_series.set_retention("system_states", RetentionPolicy(None, [RollupPolicy(MINUTES)]))
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy()


@pytest.mark.parametrize(
    ("intervals", "width_s"),
    [
        ([], 300),
        ([1], 300),
        ([2.5], 300),
        ([3], 900),
        ([10] * 100, 1_800),
        ([60], 7_200),
        ([86_400], 86_400),
        ([1, 60], 300),  # a summary is of 152 samples on average
        ([1, *[60] * 9], 1_800),  # of 207, and in half of it of 103
    ],
)
def test_summaries_are_so_wide_that_they_cost_at_most_a_byte_a_value(
    tmp_path: Path, intervals: list[float], width_s: int
) -> None:
    text = "[systems]\n" + "\n".join(
        f'[systems.s{number}]\nconnector = "host"\ninterval_s = {interval}' for number, interval in enumerate(intervals)
    )
    quick = '\n[systems.quick]\nconnector = "host"\ninterval_s = 0.05\nenabled = false'
    width = timedelta(seconds=width_s)
    assert retention_policy(settings(text + quick, tmp_path)) == RetentionPolicy(None, [RollupPolicy(width)])


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("raw_days = 7", RetentionPolicy(7 * DAY, [RollupPolicy(MINUTES, 7 * DAY)])),
        ("raw_days = 7\nsummary_s = 60", RetentionPolicy(7 * DAY, [RollupPolicy(MINUTES / 5, 7 * DAY)])),
        ("raw_days = 7\nsummary_s = 0", RetentionPolicy(7 * DAY)),
        ("raw_days = 0.001", RetentionPolicy(0.001 * DAY)),
        ("summary_s = 3600", RetentionPolicy(None, [RollupPolicy(12 * MINUTES)])),
    ],
)
def test_summaries_go_with_their_samples(tmp_path: Path, text: str, policy: RetentionPolicy) -> None:
    assert retention_policy(settings(f"[store.retention]\n{text}", tmp_path)) == policy


def test_nodes_that_share_a_database_choose_the_same_summaries(tmp_path: Path) -> None:
    text = '[store]\nengine = "postgresql"\ndsn = "postgresql://db/p"\n'
    seldom = '[systems.a]\nconnector = "host"\ninterval_s = 600'
    assert retention_policy(settings(text + seldom, tmp_path)) == RetentionPolicy(None, [RollupPolicy(MINUTES)])
    old = "[store.retention]\nraw_days = 7"
    kept = RetentionPolicy(7 * DAY, [RollupPolicy(MINUTES, 7 * DAY)])
    assert retention_policy(settings(text + old, tmp_path)) == kept


def test_rollups_give_the_summaries_their_width(tmp_path: Path) -> None:
    text = "[store.retention]\nsummary_s = 60\nrollups = [{width_s = 300}]"
    (problem,) = problems(text, tmp_path)
    assert problem.startswith("store.retention.summary_s: ")


def test_the_parts_of_a_policy_must_fit_together(tmp_path: Path) -> None:
    text = "[store.retention]\nraw_days = 30\nrollups = [{width_s = 300, kept_days = 10}]"
    (problem,) = problems(text, tmp_path)
    assert problem.startswith("store.retention: ")
    assert "rollups.kept" in problem


async def test_the_policy_is_set_once_and_left_when_it_is_the_same(tmp_path: Path) -> None:
    chosen = settings("[store.retention]\nraw_days = 7\nrollups = []\nsummary_s = 0", tmp_path)
    async with PolarisDataStore.memory() as store:
        await apply_retention(store, chosen)
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy(7 * DAY)


async def test_a_policy_that_is_not_to_be_touched_is_left_alone(tmp_path: Path) -> None:
    chosen = settings("[store.retention]\nenabled = false", tmp_path)
    async with PolarisDataStore.memory() as store:
        await store.time_series.set_retention("system_states", RetentionPolicy(3 * DAY))
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy(3 * DAY)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[store]\nengine = "postgresql"', "store.dsn: is missing"),
        ('[store]\nengine = "postgresql"\ndsn = "host=db"', "store.dsn: is no address"),
        ('[store]\nengine = "postgresql"\ndsn = "postgresql://db/p"\npath = "x.db"', "store.path: is for the engine"),
        ('[store]\ndsn = "postgresql://db/p"', "store.dsn: is for the engine"),
        ('[store]\nschema = "Robert\'); DROP"', "store.schema"),
        ('[store]\nengine = "postgresql"\ndsn_file = "/nowhere"', "store.dsn_file"),
        (
            '[store]\nengine = "postgresql"\ndsn = "postgresql://db/p"\n[store.limits]\nsize_bytes_max = 100000',
            "store.limits.size_bytes_max: is for the engine",
        ),
        ("[store.limits]\nsize_bytes_max = 65535", "store.limits.size_bytes_max"),
        ("[store.limits]\nseries_max = 0", "store.limits.series_max"),
        ("[store.limits]\ncollection_series_max = 1.5", "store.limits.collection_series_max"),
        ("[store.limits]\nseries = 5", "store.limits.series = 5: there is no such setting"),
    ],
)
def test_what_does_not_fit_the_engine_is_refused(tmp_path: Path, text: str, wanted: str) -> None:
    assert any(wanted in problem for problem in problems(text, tmp_path))


def test_the_password_of_the_database_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://polaris:hunter2-secret@db1,db2/p\n")
    chosen = settings(f'[store]\nengine = "postgresql"\ndsn_file = "{file}"', tmp_path)
    assert chosen.store.dsn == "postgresql://polaris:hunter2-secret@db1,db2/p"
    assert "hunter2" not in repr(effective_settings(chosen))
    assert "hunter2" not in repr(open_store(chosen))
    text = '[store]\nengine = "sqlite"\ndsn = "postgresql://polaris:hunter2-secret@db/p"\nschema = 7'
    assert not any("hunter2" in problem for problem in problems(text, tmp_path))


def test_the_limits_are_those_of_the_engines(tmp_path: Path) -> None:
    text = "[store.limits]\nseries_max = 5000\ncollection_series_max = 700\nsize_bytes_max = 1000000"
    environment = {"POLARIS_STORE__LIMITS__SERIES_MAX": "6000"}
    (engine,) = open_store(settings(text, tmp_path, environment)).engines
    assert isinstance(engine, SqliteEngine)
    assert engine.options.series_limits == SeriesLimits(series_max=6000, collection_series_max=700)
    assert engine.options.size_bytes_max == 1_000_000
    text = '[store]\nengine = "postgresql"\ndsn = "postgresql://db/p"\n[store.limits]\ncollection_series_max = 700'
    (server,) = open_store(settings(text, tmp_path)).engines
    assert isinstance(server, PostgresEngine)
    assert server.series_limits == SeriesLimits(collection_series_max=700)


def test_without_settings_the_limits_are_the_documented_ones(tmp_path: Path) -> None:
    limits = settings("", tmp_path).store.limits
    assert SeriesLimits(series_max=limits.series_max, collection_series_max=limits.collection_series_max) == (
        SeriesLimits()
    )
    assert limits.size_bytes_max is None


SERVERS = """
    [store]
    engine = "postgresql"
    [store.routing]
    shared = "south"
    series = ["traces"]
    documents = { tickets = "about.system" }
    [store.routing.servers.north]
    dsn = "postgresql://polaris:hunter2-secret@north/p"
    [store.routing.servers.south]
    dsn = "postgresql://south/p"
    weight = 3
"""


async def test_several_servers_make_one_routed_store(tmp_path: Path) -> None:
    chosen = settings(SERVERS, tmp_path)
    routed = open_routed_store(chosen)
    assert list(routed.stores) == ["north", "south"]
    assert routed.shared is routed.stores["south"]
    assert all(isinstance(store.engines[0], PostgresEngine) for store in routed.stores.values())
    assert chosen.store.routing.servers["south"].weight == 3
    assert "hunter2" not in repr(effective_settings(chosen))
    with pytest.raises(ConfigurationError) as caught:
        open_store(chosen)
    assert "a node keeps its store on one server" in str(caught.value.problems)


def test_the_address_of_a_server_may_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://east/p\n")
    text = f'{SERVERS}\n[store.routing.servers.east]\ndsn_file = "{file}"'
    chosen = settings(text, tmp_path, {"POLARIS_STORE__ROUTING__SERVERS__NORTH__DSN": "postgresql://other/p"})
    assert chosen.store.routing.servers["east"].dsn == "postgresql://east/p"
    assert chosen.store.routing.servers["north"].dsn == "postgresql://other/p"


def test_without_servers_there_is_no_routed_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_routed_store(settings("", tmp_path))
    assert "store.routing.servers" in str(caught.value.problems)


@pytest.mark.parametrize(
    ("added", "wanted"),
    [
        ("[store.routing.servers.west]\nweight = 1", "store.routing.servers.west.dsn: is missing"),
        ('[store.routing.servers.west]\ndsn = "west"', "store.routing.servers.west.dsn: is no address"),
        ('[store.routing.servers.west]\ndsn = "postgresql://w/p"\nweight = 101', "store.routing.servers.west.weight"),
        ('[store.routing.servers.west]\ndsn = "postgresql://w/p"\nport = 1', "store.routing.servers.west.port"),
        ('[store.routing.servers."a b"]\ndsn = "postgresql://w/p"', "store.routing: stores: 'a b'"),
        ("[store.routing.servers]\nwest = 5", "store.routing.servers.west = 5: expected a section"),
        ('[store.routing.servers.west]\ndsn_file = "/nowhere"', "store.routing.servers.west.dsn_file"),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(tmp_path: Path, added: str, wanted: str) -> None:
    assert any(wanted in problem for problem in problems(f"{SERVERS}\n{added}", tmp_path))


@pytest.mark.parametrize(
    ("former", "instead", "wanted"),
    [
        ('shared = "south"', 'shared = "west"', "shared: 'west' is none of the stores"),
        ('documents = { tickets = "about.system" }', "documents = { tickets = 5 }", "store.routing.documents"),
        ('documents = { tickets = "about.system" }', 'documents = { "polaris.x" = "a" }', "one of POLARIS's own"),
        ("weight = 3", "weight = 0", None),
        ('engine = "postgresql"', 'engine = "sqlite"', 'store.routing: is for the engine "postgresql"'),
        ('engine = "postgresql"', 'engine = "postgresql"\ndsn = "postgresql://d/p"', "store.dsn: is for one server"),
    ],
)
def test_routing_that_does_not_fit_together_is_refused(
    tmp_path: Path, former: str, instead: str, wanted: str | None
) -> None:
    text = SERVERS.replace(former, instead)
    if wanted is None:
        assert open_routed_store(settings(text, tmp_path)) is not None
    else:
        assert any(wanted in problem for problem in problems(text, tmp_path))
