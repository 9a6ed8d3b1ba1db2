"""One acknowledgement for many, and the process that owes it is killed: nothing is lost, and little comes twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import MakeNATSServer
from tests.faults.sizes import size
from tests.faults.test_bus_consumers import PATIENCE_S, a_child, nothing_waits, published, worker_info

from polaris.messaging import NATSMessageBroker, PolarisMessageBus
from polaris.messaging._settlement import SETTLED_TOGETHER_MAX

KILLS = 3
BACKLOG = size(2_000, 20_000)
SLACK = BACKLOG // 20
"""So many events after the moment for a kill the consumer waits for it."""
TWICE_MAX = KILLS * 2 * SETTLED_TOGETHER_MAX
"""For each kill: what was handled since the last acknowledgement, and as much again if that had not arrived."""


@pytest.mark.slow
async def test_a_consumer_killed_three_times_between_two_acknowledgements_loses_nothing(
    make_nats_server: MakeNATSServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = await make_nats_server()
    file = tmp_path / "handled"
    file.touch()
    async with PolarisMessageBus(NATSMessageBroker(server.client_config())) as bus:
        events = await published(bus, BACKLOG)
        line_bytes = len(next(iter(events))) + 1
        floors = []
        for kill in range(1, KILLS + 2):
            begun = file.stat().st_size // line_bytes
            # In the middle of a run of messages that one acknowledgement is to cover; much later than that is too late.
            target = begun + BACKLOG // (KILLS + 1)
            hold_bytes = (target + SLACK if kill <= KILLS else 2 * BACKLOG) * line_bytes
            async with a_child("settle", server, tmp_path, hold_bytes) as child, asyncio.timeout(PATIENCE_S):
                assert await child.says() == {"ready": True}
                if kill <= KILLS:
                    while file.stat().st_size // line_bytes < target:
                        await asyncio.sleep(0.0005)
                    await child.kill()
                    info = await worker_info(bus)
                    assert info["num_ack_pending"] > 0, "the kill hit nothing in hand"
                    floors.append(info["ack_floor"]["stream_seq"])
                    handled = len(set(file.read_text().split()))
                    assert floors[-1] <= handled, "something was acknowledged that was not handled"
                else:
                    await nothing_waits(bus)
        counts = Counter(file.read_text().split())
        assert set(counts) == events
        twice = sum(counts.values()) - BACKLOG
        assert twice <= TWICE_MAX
        assert await bus.dead_letters.list() == []
        info = await worker_info(bus)
        assert (info["num_pending"], info["num_ack_pending"], info["ack_floor"]["stream_seq"]) == (0, 0, BACKLOG)
        assert 0 < floors[0] < floors[-1]
    record_property("twice", twice)
