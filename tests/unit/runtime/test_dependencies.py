"""The dependencies that the settings name are in the store: all of them, and those of others stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polaris.domain import SystemDependency
from polaris.exceptions import ConfigurationError
from polaris.runtime import Settings, load_settings
from polaris.runtime._dependencies import REQUIRES, apply_dependencies
from polaris.storage import PolarisDataStore


def settings(tmp_path: Path, node: str = "one", **depends_on: list[str]) -> Settings:
    systems = "".join(
        f'[systems.{system_id}]\nconnector = "host"\ndepends_on = {json.dumps(others)}\n'
        for system_id, others in depends_on.items()
    )
    file = tmp_path / "polaris.toml"
    file.write_text(f'[node]\nname = "{node}"\n{systems}')
    return load_settings(file, environment={})


async def known(store: PolarisDataStore) -> list[tuple[str, str]]:
    return [(one.source_system, one.target_system) for one in await store.dependencies.find_all()]


async def test_what_is_named_is_stored_and_what_is_named_no_more_is_forgotten(tmp_path: Path) -> None:
    async with PolarisDataStore.memory() as store:
        await apply_dependencies(store, settings(tmp_path, web=["db", "cache"], cache=["db"]))
        assert await known(store) == [("cache", "db"), ("web", "cache"), ("web", "db")]
        await apply_dependencies(store, settings(tmp_path, web=["db"], cache=["db"]))
        assert await known(store) == [("cache", "db"), ("web", "db")]
        await apply_dependencies(store, settings(tmp_path, cache=["db"]))
        assert await known(store) == [("cache", "db")]


async def test_what_others_stored_is_left_alone(tmp_path: Path) -> None:
    found_out = SystemDependency("web", "db", REQUIRES, 0.5, {"seen": "in traces"})
    async with PolarisDataStore.memory() as store:
        await store.dependencies.save(found_out)
        await apply_dependencies(store, settings(tmp_path, "two", web=["mail"]))
        await apply_dependencies(store, settings(tmp_path, "one", web=["db"]))
        assert found_out in await store.dependencies.find_all()
        await apply_dependencies(store, settings(tmp_path, "one"))
        assert await known(store) == [("web", "db"), ("web", "mail")]


def test_a_system_cannot_need_itself_or_what_can_be_no_system(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, web=["web", "a\nb", "db"])
    assert len(caught.value.problems) == 2
    assert all("systems.web.depends_on" in problem for problem in caught.value.problems)
