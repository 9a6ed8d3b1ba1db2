"""Services that installed packages bring along, and the picture of it all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import DependencyInjectionError, ServiceNotRegisteredException

SINGLETON = ServiceLifetime.SINGLETON


class Store:
    pass


class User:
    def __init__(self, store: Store) -> None:
        self.store = store


def install(folder: Path, plugins: dict[str, str]) -> str:
    """Install a distribution whose entry points name functions of a module; returns the group."""
    module = f"plugin_of_{folder.name}".replace("-", "_")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {module}:{function}" for name, function in plugins.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{module}.services]", *lines]))
    (folder / f"{module}.py").write_text(
        "class Extra:\n    pass\n"
        "def good(container):\n    container.register_singleton(Extra)\n"
        "def bad(container):\n    container.register_instance(int, 3)\n    raise OSError('no licence')\n"
        "number = 3\n"
    )
    return f"{module}.services"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def test_plugins_register_their_services_and_own_them(container: DIContainer, site: Path) -> None:
    group = install(site, {"zeta": "good", "alpha": "good"})
    assert container.load_plugins(group) == ["alpha", "zeta"]
    assert [one.owner for one in container.registrations()] == ["alpha", "zeta"]
    extra = sys.modules[group.removesuffix(".services")].Extra
    assert isinstance(container.resolve(extra), extra)


def test_a_failing_plugin_leaves_nothing_and_hinders_no_other(container: DIContainer, site: Path) -> None:
    group = install(site, {"a": "bad", "b": "good", "c": "missing", "d": "number"})
    with pytest.raises(ExceptionGroup) as caught:
        container.load_plugins(group)
    messages = [str(error) for error in caught.value.exceptions]
    assert len(messages) == 3
    assert "plugin 'a'" in messages[0]
    assert "no licence" in messages[0]
    assert "no callable" in messages[2]
    assert [one.owner for one in container.registrations()] == ["b"]


def test_a_group_without_plugins_is_empty(container: DIContainer) -> None:
    assert container.load_plugins("polaris.nobody.has.this.group") == []


async def test_what_an_owner_registered_can_be_unloaded_while_the_rest_lives(container: DIContainer) -> None:
    events: list[str] = []

    class Feature:
        def start(self) -> None:
            events.append("start")

        def stop(self) -> None:
            events.append("stop")

    def feature(store: Store) -> Iterator[Feature]:
        yield Feature()
        events.append("close")

    container.register_singleton(Store)
    store = container.resolve(Store)
    with container.owned_by("plugin"):
        container.register_factory(Feature, feature, lifetime=SINGLETON)
        container.decorate(Store, lambda inner: inner)
    await container.start()
    await container.unload("plugin")
    assert events == ["start", "stop", "close"]
    with pytest.raises(ServiceNotRegisteredException):
        container.resolve(Feature)
    assert container.resolve(Store) is store
    await container.stop()
    assert events == ["start", "stop", "close"]
    await container.unload("plugin")


async def test_an_owner_cannot_be_unloaded_while_others_need_it(container: DIContainer) -> None:
    with container.owned_by("plugin"):
        container.register_singleton(Store)
    container.register_transient(User)
    with pytest.raises(DependencyInjectionError, match="plugin cannot be unloaded: User would lose Store"):
        await container.unload("plugin")
    container.register_singleton(User)
    store = container.resolve(User).store
    with pytest.raises(DependencyInjectionError, match="User is alive and holds Store"):
        await container.unload("plugin")
    assert container.resolve(Store) is store


async def test_a_registration_that_an_owner_had_replaced_counts_again_when_it_goes(container: DIContainer) -> None:
    container.register_instance(int, 1)
    container.register_transient(User)
    container.register_singleton(Store)
    with container.owned_by("plugin"):
        container.register_instance(int, 2)
        container.register_singleton(Store)
    assert container.resolve(int) == 2
    await container.unload("plugin")
    assert container.resolve(int) == 1
    container.resolve(User)


async def test_what_somebody_else_has_decorated_cannot_be_unloaded(container: DIContainer) -> None:
    with container.owned_by("plugin"):
        container.register_singleton(Store)
    container.decorate(Store, lambda inner: inner)
    with pytest.raises(DependencyInjectionError, match="decorated by somebody else"):
        await container.unload("plugin")


async def test_errors_while_unloading_come_out_after_the_last_hook(container: DIContainer) -> None:
    closed: list[str] = []

    def store() -> Iterator[Store]:
        yield Store()
        closed.append("store")

    class Broken:
        def start(self) -> None:
            pass

        def stop(self) -> None:
            raise OSError

    with container.owned_by("plugin"):
        container.register_factory(Store, store, lifetime=SINGLETON)
        container.register_singleton(Broken)
    await container.start()
    with pytest.raises(ExceptionGroup, match="failed in part"):
        await container.unload("plugin")
    assert closed == ["store"]
    assert container.registrations() == []


def test_the_graph_shows_every_service_and_dependency(container: DIContainer) -> None:
    class Session:
        def __init__(self, user: User, label: str) -> None:
            pass

    container.register_singleton(Store)
    container.register_transient(User)
    container.register_scoped(Session)
    container.register_instance(list[int], [1], key='a "quoted" <key>')
    assert container.graph() == (
        "flowchart LR\n"
        '    s1["Store"]\n'
        '    s2(["User"])\n'
        '    s3("Session")\n'
        "    s4[\"list[int]['a &quot;quoted&quot; &lt;key&gt;']\"]\n"
        "    s2 --> s1\n"
        "    s3 --> s2\n"
        "    s3 -.-> m1\n"
        '    m1["str is missing"]:::missing\n'
        "    classDef missing stroke:#c00,stroke-dasharray:4\n"
    )


def test_the_graph_names_what_stands_behind_an_interface(container: DIContainer) -> None:
    class FileStore(Store):
        pass

    container.register_singleton(Store, FileStore)
    assert container.graph() == 'flowchart LR\n    s1["Store<br/>FileStore"]\n'
