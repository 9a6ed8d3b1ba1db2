"""The connection of a sampler and actions: opened by whoever needs it first, never closed under an action."""

from __future__ import annotations

import asyncio

import pytest
from tests.scripted_connector import ScriptedConnector

from polaris.exceptions import ConnectorError
from polaris.observability import StructuredLogger
from polaris.runtime._connection import CONNECT_TIMEOUT_S, DISCONNECT_TIMEOUT_S, Connection, Connections
from polaris.testing import run_virtual, running_clock

LOGGER = StructuredLogger("test")


def test_those_who_need_the_system_at_once_connect_it_once() -> None:
    class Slow(ScriptedConnector):
        async def connect(self) -> None:
            await running_clock().sleep(1.0)
            await super().connect()

    async def scenario() -> None:
        connector = Slow()
        connection = Connection(connector, LOGGER)
        await asyncio.gather(connection.open(), connection.open(), connection.open())
        assert connector.connections == 1

    run_virtual(scenario())


def test_a_connection_is_renewed_but_not_under_an_action() -> None:
    async def scenario() -> None:
        connector = ScriptedConnector()
        connection = Connection(connector, LOGGER)
        async with connection.for_action():
            await connection.renew()
            assert connector.connected
        await connection.renew()
        assert not connector.connected
        await connection.open()
        assert connector.connections == 2

    run_virtual(scenario())


def test_a_connect_that_hangs_says_that_nothing_was_done_and_leaves_the_connection_usable() -> None:
    class HangsOnce(ScriptedConnector):
        hung = False

        async def connect(self) -> None:
            if not self.hung:
                self.hung = True
                await asyncio.Event().wait()
            await super().connect()

    async def scenario() -> None:
        connection = Connection(HangsOnce(), LOGGER)
        begun = running_clock().monotonic()
        with pytest.raises(ConnectorError, match="not connected within"):
            await connection.open()
        assert running_clock().monotonic() - begun == CONNECT_TIMEOUT_S
        await connection.open()

    run_virtual(scenario())


def test_a_disconnect_that_hangs_or_fails_keeps_nobody_from_being_let_go() -> None:
    class Hanging(ScriptedConnector):
        async def disconnect(self) -> None:
            await asyncio.Event().wait()

    class Failing(ScriptedConnector):
        async def disconnect(self) -> None:
            raise OSError("gone")

    async def scenario() -> None:
        well = ScriptedConnector("well")
        connections = Connections({"h": Hanging("h"), "f": Failing("f"), "well": well}, LOGGER)
        for connection in connections.by_system.values():
            await connection.open()
        begun = running_clock().monotonic()
        await connections.stop()
        assert running_clock().monotonic() - begun == DISCONNECT_TIMEOUT_S
        assert not well.connected

    run_virtual(scenario())
