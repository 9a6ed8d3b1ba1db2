"""The contract of `ManagedSystemConnector` as tests: every connector passes all of them.

Derive a class named `Test...` from `ConnectorSuite` and give it a fixture `make_connector`: a function without
arguments that returns a new connector, not yet connected, each time to one and the same managed system. The fixture
disconnects them all afterwards. Override `actions` when the connector offers any.

    class TestMyConnector(ConnectorSuite):
        @pytest.fixture
        async def make_connector(self):
            ...
            yield make
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import psutil
import pytest

from polaris.clock import utc_now
from polaris.connectors import ConnectorType, ManagedSystemConnector, RecallsActions
from polaris.domain import AdaptationAction, ExecutionStatus, HealthStatus
from polaris.exceptions import ActionNotSupportedError, ConfigurationError, ConnectorError
from polaris.ids import new_id

MakeConnector = Callable[[], ManagedSystemConnector]

OVERLAPPING = 5


def _action(
    connector: ManagedSystemConnector,
    action_type: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    target: str = "",
) -> AdaptationAction:
    return AdaptationAction(new_id(), action_type, target or connector.system_id, dict(parameters or {}))


def _descriptors() -> int | None:
    process = psutil.Process()
    return process.num_fds() if hasattr(process, "num_fds") else None


class ConnectorSuite:
    """The promises of `ManagedSystemConnector`, and of `RecallsActions` where a connector makes them."""

    def actions(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Action types with parameters that are valid now and harmless, in the order in which they may be executed."""
        return ()

    async def test_a_new_connector_is_unconnected_and_says_so(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        assert (await connector.health()).status is HealthStatus.UNKNOWN
        with pytest.raises(ConnectorError):
            await connector.collect_metrics()

    async def test_a_connected_connector_is_healthy(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        assert (await connector.health()).status is HealthStatus.HEALTHY

    async def test_connecting_and_disconnecting_twice_does_no_harm(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.disconnect()
        await connector.connect()
        await connector.connect()
        await connector.collect_metrics()
        await connector.disconnect()
        await connector.disconnect()
        assert (await connector.health()).status is HealthStatus.UNKNOWN

    async def test_a_disconnected_connector_reads_nothing_and_can_be_connected_again(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        await connector.connect()
        await connector.disconnect()
        with pytest.raises(ConnectorError):
            await connector.collect_metrics()
        await connector.connect()
        assert (await connector.collect_metrics()).metrics

    async def test_disconnecting_gives_back_every_task_and_descriptor(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        # The first round may load what stays loaded (a time zone, a library); the later ones must leave nothing.
        await connector.connect()
        await connector.collect_metrics()
        await connector.disconnect()
        await asyncio.sleep(0)
        tasks, descriptors = asyncio.all_tasks(), _descriptors()
        for _ in range(3):
            await connector.connect()
            await connector.collect_metrics()
            await connector.disconnect()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks
        assert _descriptors() == descriptors

    async def test_a_cancelled_connect_leaves_the_connector_unconnected_and_usable(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        for turns in range(4):
            connecting = asyncio.ensure_future(connector.connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])
            if connecting.cancelled():
                assert (await connector.health()).status is HealthStatus.UNKNOWN
            await connector.disconnect()
        await connector.connect()
        assert (await connector.collect_metrics()).metrics

    async def test_a_state_names_its_system_and_the_time_it_was_read(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        before = utc_now()
        state = await connector.collect_metrics()
        assert state.system_id == connector.system_id
        assert before - timedelta(seconds=1) <= state.timestamp <= utc_now() + timedelta(seconds=1)

    async def test_every_reading_has_a_unit_and_a_key_that_begins_with_its_name(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        await connector.connect()
        state = await connector.collect_metrics()
        assert state.metrics
        for key, metric in state.metrics.items():
            assert key.startswith(metric.name), key
            assert metric.unit, key

    async def test_a_rate_is_missing_not_zero_until_there_is_something_to_compare_with(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        await connector.connect()
        state = await connector.collect_metrics()
        assert {key: metric.value for key, metric in state.metrics.items() if key.endswith(".rate")} == {
            key: None for key in state.metrics if key.endswith(".rate")
        }

    async def test_overlapping_collections_all_succeed_with_timestamps_of_their_own(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        await connector.connect()
        states = await asyncio.gather(*(connector.collect_metrics() for _ in range(OVERLAPPING)))
        assert len({state.timestamp for state in states}) == OVERLAPPING

    async def test_a_cancelled_collection_leaves_the_connector_usable(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        for turns in range(4):
            collecting = asyncio.ensure_future(connector.collect_metrics())
            for _ in range(turns):
                await asyncio.sleep(0)
            collecting.cancel()
            await asyncio.wait([collecting])
        assert (await connector.collect_metrics()).metrics

    async def test_the_offered_actions_are_described_and_the_same_at_any_time(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        offered = list(connector.supported_actions())
        names = [description.name for description in offered]
        assert len(set(names)) == len(names)
        assert set(names) == {name for name, _ in self.actions()}
        for description in offered:
            assert description.description
            assert description.parameters["type"] == "object"
        await connector.connect()
        assert list(connector.supported_actions()) == offered

    async def test_an_unknown_action_is_refused(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        with pytest.raises(ActionNotSupportedError):
            await connector.execute_action(_action(connector, "no_such_action"))

    async def test_unknown_parameters_are_refused(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        for name, parameters in self.actions():
            with pytest.raises(ActionNotSupportedError, match="no_such_parameter"):
                await connector.execute_action(_action(connector, name, {**parameters, "no_such_parameter": 1}))

    async def test_an_action_for_another_system_is_refused(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        for name, parameters in self.actions() or [("no_such_action", {})]:
            with pytest.raises(ActionNotSupportedError):
                await connector.execute_action(_action(connector, name, parameters, target="another-system"))

    async def test_an_action_on_an_unconnected_connector_is_not_done(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        for name, parameters in self.actions():
            with pytest.raises(ConnectorError):
                await connector.execute_action(_action(connector, name, parameters))

    async def test_an_executed_action_has_a_final_result_of_its_own(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        await connector.connect()
        for name, parameters in self.actions():
            action = _action(connector, name, parameters)
            result = await connector.execute_action(action)
            assert result.action_id == action.action_id
            assert result.status is ExecutionStatus.SUCCESS, (name, result)
            assert result.started_at is not None
            assert result.completed_at is not None
            assert result.started_at <= result.completed_at

    async def test_what_was_never_asked_is_never_recalled_as_done(self, make_connector: MakeConnector) -> None:
        connector = make_connector()
        if not isinstance(connector, RecallsActions):
            return
        for _ in range(2):
            recalled = await connector.recall_action(new_id())
            assert recalled is None or recalled.status is ExecutionStatus.PENDING
            await connector.connect()

    async def test_an_executed_action_is_recalled_with_its_result_or_not_at_all(
        self, make_connector: MakeConnector
    ) -> None:
        connector = make_connector()
        if not isinstance(connector, RecallsActions):
            return
        await connector.connect()
        results = []
        for name, parameters in self.actions():
            results.append(await connector.execute_action(_action(connector, name, parameters)))
        await connector.disconnect()
        later = make_connector()
        assert isinstance(later, RecallsActions)
        for result in results:
            assert await later.recall_action(result.action_id) in (result, None)

    async def test_every_mistake_in_the_options_is_reported_at_once(self, make_connector: MakeConnector) -> None:
        connector_type = type(make_connector())
        if not isinstance(connector_type, ConnectorType):
            return
        with pytest.raises(ConfigurationError) as caught:
            connector_type.from_options("some-system", {"no_such_option": 1, "nor_this_one": 2})
        assert any("no_such_option" in problem for problem in caught.value.problems)
        assert any("nor_this_one" in problem for problem in caught.value.problems)
