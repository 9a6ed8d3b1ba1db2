"""The server delivers no more actions, or has lost their consumer: the node says so, mends what it can, and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.nodes import NodeUnderTest, a_node, eventually, eventually_true
from tests.witness_connector import read_journal

from polaris.domain import AdaptationAction, AdaptationEvent
from polaris.ids import new_id
from polaris.messaging import NATSMessageBroker, adaptation_topic

CONSUMER = "POLARIS_ADAPTATIONS.execute-pump"


async def ask_server(broker: NATSMessageBroker, endpoint: str, body: object = None) -> None:
    """Ask the server's own administration, as an operator would."""
    payload = b"" if body is None else json.dumps(body).encode()
    answer = await broker._connection.ask(f"$JS.API.{endpoint}", payload, timeout_s=5.0)
    assert "error" not in json.loads(answer.payload), answer.payload  # type: ignore[union-attr]


async def complaint(node: NodeUnderTest) -> str:
    """What the action path says against readiness; empty when nothing."""
    _, body = await node.get("readyz")
    (check,) = [check for check in body["checks"] if check["component"] == "action path"]
    return str(check.get("reason", "")) if not check["ok"] else ""


@pytest.mark.slow
async def test_a_lane_of_actions_that_gets_nothing_withdraws_readiness_and_a_lost_one_is_made_again(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "pump.jsonl"
    pump = {"connector": "tests.witness_connector:WitnessConnector", "options": {"journal": str(journal)}}

    async with a_node(tmp_path, {"systems": {"pump": pump}}) as node, node.bus() as bus:

        async def act() -> str:
            action = AdaptationAction(new_id(), "poke", "pump")
            await bus.publish(adaptation_topic("pump"), AdaptationEvent(action))
            return action.action_id

        def effects() -> list[str]:
            return [line.action_id for line in read_journal(journal) if line.event == "effect"]

        broker = bus.broker
        assert isinstance(broker, NATSMessageBroker)
        await eventually_true(node.is_ready, "the node is ready")

        await ask_server(broker, f"CONSUMER.PAUSE.{CONSUMER}", {"pause_until": "2999-01-01T00:00:00Z"})
        held = await act()

        async def complains() -> bool:
            return "execute-pump: messages wait" in await complaint(node)

        await eventually_true(complains, "readiness is withdrawn", timeout_s=20.0)
        assert effects() == []
        await ask_server(broker, f"CONSUMER.PAUSE.{CONSUMER}", {})
        await eventually(lambda: effects() == [held], "what was held is carried out")
        await eventually_true(node.is_ready, "the node is ready again")

        await ask_server(broker, f"CONSUMER.DELETE.{CONSUMER}")
        after = await act()
        await eventually(lambda: effects() == [held, after], "a lost consumer is made again, and repeats nothing")
        await eventually_true(node.is_ready, "the node is ready after the loss")
        assert await node.stop() == 0
        assert node.untidy_lines() == []
        assert effects() == [held, after]
