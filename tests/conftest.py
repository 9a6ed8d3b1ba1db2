"""Fixtures that any test may use."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

    from polaris.messaging import EmbeddedNATSServer, NATSMessageBroker

# What a fixture needs is imported when it is used: most tests need none of it.
MakeNATSServer = Callable[..., Awaitable["EmbeddedNATSServer"]]
ConnectNATS = Callable[..., Awaitable["NATSMessageBroker"]]


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what is made once a run, whichever worker needs it first."""
    if "TESTS_SHARED_FOLDER" not in os.environ:
        folder = tempfile.mkdtemp(prefix="polaris-tests-")
        Path(folder).chmod(0o777)  # PostgreSQL runs as somebody else when the tests run as root
        os.environ["TESTS_SHARED_FOLDER"] = folder
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("TESTS_SHARED_FOLDER"), ignore_errors=True))


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Before a module with examples by Hypothesis is loaded: time is no finding about an example.

    A machine that is busy, or stands still for some seconds, would make any of them slow.
    """
    if "hypothesis" in module_path.read_text("utf-8"):
        from hypothesis import HealthCheck, settings

        settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("any machine")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers run them: what lasts comes first, and what a module shares is made by one worker only.

    The name of its group is in the id of a test, by which pytest-xdist keeps a group on one worker. pytest-xdist 3.8
    does so by an attribute that pytest has given up with version 9.2.
    """
    if not config.getoption("loadgroup", False):
        return
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        group = _group_of(item)
        if group is not None and "@" not in item.nodeid.rpartition("]")[2]:
            named = dataclasses.replace(item.id)
            object.__setattr__(named, "_str_cache", f"{item.nodeid}@{group}")
            item._id = named


def _group_of(item: pytest.Item) -> str | None:
    """Its mark, or else its module if that makes something for all tests in it."""
    mark = item.get_closest_marker("xdist_group")
    if mark is not None:
        return str(mark.args[0])
    if not isinstance(item, pytest.Function):
        return None
    used = item._fixtureinfo.name2fixturedefs.values()
    return item.path.stem if any(one.scope == "module" for found in used for one in found) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """A test that ends its worker is one red test."""
    if config.getoption("dist") != "loadgroup":
        return None
    from tests.crashed_workers import CrashOnceScheduling

    return CrashOnceScheduling(config, log)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNATSServer]:
    """A real server for this worker's whole session. Shared: use stream names and subjects of your own, do no harm."""
    from polaris.messaging import EmbeddedNATSConfig, EmbeddedNATSServer

    # What streams may take is reserved, and no test knows how many others have left theirs here.
    config = EmbeddedNATSConfig(data_dir=tmp_path_factory.mktemp("nats"), store_bytes_max=1 << 50)
    server = EmbeddedNATSServer(config)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make_nats_server(tmp_path: Path) -> AsyncIterator[MakeNATSServer]:
    """Starts real servers of this test's own, to be killed, frozen and restarted; arguments as of `EmbeddedNATSConfig`.

    Without `data_dir` each gets a new folder.
    """
    from polaris.messaging import EmbeddedNATSConfig, EmbeddedNATSServer

    servers: list[EmbeddedNATSServer] = []

    async def make(**settings: Any) -> EmbeddedNATSServer:
        folder = settings.pop("data_dir", tmp_path / f"nats-{len(servers)}")
        server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=folder, **settings))
        servers.append(server)
        await server.start()
        return server

    yield make
    for server in servers:
        await server.stop()


@pytest.fixture
async def connect_nats() -> AsyncIterator[ConnectNATS]:
    """Connects brokers to a server and disconnects them after the test; further arguments as of `NATSConfig`."""
    from polaris.messaging import NATSMessageBroker

    brokers: list[NATSMessageBroker] = []

    async def connect(server: EmbeddedNATSServer, **settings: Any) -> NATSMessageBroker:
        broker = NATSMessageBroker(server.client_config(f"test-{os.getpid()}", **settings))
        brokers.append(broker)
        await broker.connect()
        return broker

    yield connect
    for broker in brokers:
        await broker.disconnect()
