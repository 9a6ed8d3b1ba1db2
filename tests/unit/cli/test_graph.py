"""What `polaris graph services` tells about a container."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest

from polaris.cli._graph import services_of, show_services
from polaris.di import DIContainer, Key, ServiceLifetime
from polaris.runtime import load_settings


class Store:
    pass


class Cache:
    pass


def test_every_service_is_told_with_its_maker_and_its_needs_in_the_order_of_the_parameters() -> None:
    def cached(second: Annotated[Store, Key("second")], first: Store) -> Cache:
        return Cache()

    container = DIContainer()
    container.register_singleton(Store)
    container.register_instance(Store, Store(), key="second")
    container.register_instance(Store, Store(), key=(1, Store))
    container.register_factory(Cache, cached, lifetime=ServiceLifetime.SCOPED)
    store = f"{__name__}.Store"
    odd_key = (1, Store)
    assert services_of(container) == [
        {"name": "Store", "key": None, "lifetime": "singleton", "provider": store, "needs": []},
        {"name": "Store['second']", "key": "second", "lifetime": "singleton", "provider": store, "needs": []},
        {
            "name": f"Store[{odd_key!r}]",
            "key": repr(odd_key),
            "lifetime": "singleton",
            "provider": store,
            "needs": [],
        },
        {
            "name": "Cache",
            "key": None,
            "lifetime": "scoped",
            "provider": f"{__name__}.{cached.__qualname__}",
            "needs": ["Store['second']", "Store"],
        },
    ]


def test_nothing_of_the_node_is_built_or_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, environment={})
    for opening in ("socket.socket", "pathlib.Path.mkdir", "os.mkdir", "subprocess.Popen", "apsw.Connection"):
        monkeypatch.setattr(opening, refuse)
    assert show_services(settings, as_json=False) == 0
    drawn = capsys.readouterr().out
    for service in ("PolarisMessageBus", "PolarisDataStore", "BusHost", "ActionService", "Sampling", "HttpServer"):
        assert re.search(rf'^    s\d+\["{service}<br/>\w+"\]$', drawn, re.MULTILINE), service
    assert list(tmp_path.iterdir()) == []
