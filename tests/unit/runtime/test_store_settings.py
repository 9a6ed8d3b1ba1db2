"""The settings of the store: which engine, and how long it keeps what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from polaris.exceptions import ConfigurationError
from polaris.runtime import Settings, effective_settings, load_settings
from polaris.runtime._store import apply_retention, open_store, retention_policy
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy

DAY = timedelta(days=1)


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
    assert retention_policy(settings(text, tmp_path).store.retention) == RetentionPolicy(
        30 * DAY,
        [RollupPolicy(timedelta(minutes=5), 365 * DAY), RollupPolicy(timedelta(hours=1), 1825 * DAY)],
    )


async def test_without_settings_everything_is_kept(tmp_path: Path) -> None:
    chosen = settings("", tmp_path).store.retention
    assert retention_policy(chosen) == RetentionPolicy()
    async with PolarisDataStore.memory() as store:
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") is None
        await store.time_series.set_retention("system_states", RetentionPolicy(3 * DAY))
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy()


def test_the_parts_of_a_policy_must_fit_together(tmp_path: Path) -> None:
    text = "[store.retention]\nraw_days = 30\nrollups = [{width_s = 300, kept_days = 10}]"
    (problem,) = problems(text, tmp_path)
    assert problem.startswith("store.retention: ")
    assert "rollups.kept" in problem


async def test_the_policy_is_set_once_and_left_when_it_is_the_same(tmp_path: Path) -> None:
    chosen = settings("[store.retention]\nraw_days = 7\nrollups = []", tmp_path).store.retention
    async with PolarisDataStore.memory() as store:
        await apply_retention(store, chosen)
        await apply_retention(store, chosen)
        assert await store.time_series.get_retention("system_states") == RetentionPolicy(7 * DAY)


async def test_a_policy_that_is_not_to_be_touched_is_left_alone(tmp_path: Path) -> None:
    chosen = settings("[store.retention]\nenabled = false", tmp_path).store.retention
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
