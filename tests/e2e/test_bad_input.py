"""What no client should send, sent to a real node: the good is stored, the bad is put aside, the node stays well."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from tests.nodes import NodeUnderTest, a_node, eventually_true
from tests.witness_connector import read_journal

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ExecutionStatus,
    MetricValue,
    SystemState,
    TelemetryEvent,
)
from polaris.exceptions import InvalidTopicError, InvalidValueError, PayloadTooLargeError
from polaris.messaging import DeadLetters, adaptation_topic, decode_token, telemetry_topic
from polaris.runtime._ingest import CLOCK_AHEAD_KEY
from polaris.storage import TimeRange

LIMIT_BYTES = 262_144
GROWTH_BYTES_MAX = 200 << 20
NOW = datetime.now(UTC).replace(microsecond=0)
ODD_IDS = (
    "a.b.c",
    "with space",
    "*",
    ">",
    "polaris.telemetry.>",
    "$SYS.REQ",
    "čaj-寿司-🍣",
    "..",
    "%2E",
    "/../../etc/passwd",
    "x" * 256,
    "ÿ" * 256,
    "' OR 1=1; --",
    "<script>alert(1)</script>",
)


def envelope(system_id: str, **fields: Any) -> dict[str, Any]:
    """A telemetry event as a client in any language would write it."""
    state = {"system_id": system_id, "timestamp": NOW.isoformat(), "metrics": {"v": {"name": "v", "value": 1.0}}}
    event = {
        "specversion": "1.0",
        "type": "polaris.telemetry",
        "id": f"{system_id}-{random.getrandbits(64):x}",
        "source": "any-client",
        "time": NOW.isoformat(),
        "data": {"system_state": {**state, **fields.pop("state", {})}},
    }
    return {**event, **fields}


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def nested(depth: int) -> bytes:
    """An event whose metadata is nested so deep."""
    inside = b'{"a":' * depth + b"1" + b"}" * depth
    return text(envelope("deep", state={"metadata": "@"})).replace(b'"@"', inside)


def bad_messages() -> Iterator[bytes]:
    draw = random.Random(11)
    for size in (1, 2, 3, 7, 64, 1_000, 100_000):
        yield b"\xff" + draw.randbytes(size)
    whole = text(envelope("truncated"))
    for part in (1, 2, 10, len(whole) // 2, len(whole) - 1):
        yield whole[:part]
    yield b""
    for document in (0, 1.5, True, None, "text", {}, {"specversion": "1.0"}):
        yield text(document)
    yield whole + b"}"
    yield whole + whole
    yield b"\xef\xbb\xbf" + whole
    yield whole.replace(b"any-client", b"any-\xff\xfe")
    yield text(envelope("unknown", type="acme.nobody.knows"))
    yield text(envelope("version", specversion="2.0"))
    wrongs: list[object] = [5, [], "text", None, {"value": {}}]
    for wrong in wrongs:
        yield text(envelope("types", data=wrong))
        yield text(envelope("types", data={"system_state": wrong}))
    for state in (
        {"metrics": [1]},
        {"metrics": {"v": 1}},
        {"metrics": {"v": {"name": "v", "value": []}}},
        {"metrics": {"v": {"name": "v", "value": 10**400}}},
        {"metrics": {"v": {"name": "v", "value": 2**63}}},
        {"metrics": {"v": {"name": "v", "value": 1.0, "unit": 7}}},
        {"metrics": {"v": {"name": "v", "value": 1.0, "tags": {"a": 1}}}},
        {"timestamp": "yesterday"},
        {"timestamp": 12},
        {"timestamp": "2026-01-01T00:00:00"},
        {"timestamp": "2026-13-41T00:00:00Z"},
        {"timestamp": "0001-01-01T00:00:00+05:30"},
        {"system_id": ""},
        {"system_id": 5},
        {"system_id": "x" * 10_240},
        {"system_id": "with\u0000nul"},
        {"system_id": "with\nline"},
        {"health_status": "splendid"},
        {"metadata": {"big": 10**30}},
        {"metadata": {"wide": [0] * 10_001}},
    ):
        yield text(envelope("types", state=state))
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"01", b"0x10", b"1_000"):
        yield text(envelope("numbers", state={"metrics": {"v": {"name": "v", "value": "@"}}})).replace(b'"@"', number)
    yield text(envelope("surrogate")).replace(b'"surrogate"', b'"\\ud800"')
    for depth in (17, 5_000, 20_000):
        yield nested(depth)
    for depth in (5_000, 100_000):
        yield b"[" * depth
        yield b"[" * depth + b"]" * depth
        yield b'{"a":' * (depth // 5)


def good_messages() -> Iterator[tuple[str, bytes]]:
    """Telemetry that is unusual and right."""
    for number in range(60):
        yield "steady", text(envelope("steady", state={"timestamp": (NOW + timedelta(seconds=number)).isoformat()}))
    yield "newer", text(envelope("newer", surprise={"of": "a newer version"}, state={"mood": "fine"}))
    yield "ahead", text(envelope("ahead", state={"timestamp": (NOW + timedelta(days=3)).isoformat()}))
    yield "behind", text(envelope("behind", state={"timestamp": (NOW - timedelta(days=3)).isoformat()}))
    yield "kolkata", text(envelope("kolkata", state={"timestamp": "2026-03-01T05:30:00+05:30"}))
    yield "ancient", text(envelope("ancient", state={"timestamp": "0001-01-01T00:00:00Z"}))
    yield "distant", text(envelope("distant", state={"timestamp": "9999-12-31T23:59:59Z"}))
    yield "missing", text(envelope("missing", state={"metrics": {"v": {"name": "v", "value": None}}}))
    yield "no-metrics", text(envelope("no-metrics", state={"metrics": {}}))
    many = {f"m{n}": {"name": f"m{n}", "value": n} for n in range(4_000)}
    yield "many-metrics", text(envelope("many-metrics", state={"metrics": many}))
    odd = {key: {"name": key, "value": key} for key in ("@form", "a.b", " ", "é", "x" * 256, "$where")}
    yield "odd-metrics", text(envelope("odd-metrics", state={"metrics": odd}))
    twice = text(envelope("twice"))
    yield "twice", twice
    yield "twice", twice
    for offset in (3, 1, 2):
        moment = (NOW + timedelta(seconds=offset)).isoformat()
        yield "disordered", text(envelope("disordered", state={"timestamp": moment}))
    yield "spaces", b" \n\t" + text(envelope("spaces")) + b" \n"


@asynccontextmanager
async def raw_client(node: NodeUnderTest) -> AsyncIterator[Client]:
    client = await nats.connect(node.file.bus_url or "", token=node.file.bus_token)
    try:
        yield client
    finally:
        await client.close()


def settings(folder: Path) -> Mapping[str, Any]:
    witness = {
        "connector": "tests.witness_connector:WitnessConnector",
        "interval_s": 60.0,
        "options": {"journal": str(folder / "pump.jsonl")},
    }
    return {"systems": {"pump": witness}, "nats": {"max_payload_bytes": LIMIT_BYTES}}


async def stored(node: NodeUnderTest, system_id: str) -> list[SystemState]:
    async with node.store() as store:
        return await store.states.get_state_history(system_id, TimeRange.all())


async def put_aside(letters: DeadLetters) -> list[tuple[str, bytes, str]]:
    """Topic, original bytes and error of every dead letter."""
    found = []
    for record in await letters.list(count_max=10_000):
        shown = await letters.show(record.sequence)
        found.append((shown.entry.topic, shown.entry.payload, shown.entry.error_code))
    return found


async def test_the_good_is_stored_the_bad_is_put_aside_and_the_node_stays_well(tmp_path: Path) -> None:
    good, bad = list(good_messages()), list(bad_messages())
    assert max(map(len, bad)) < LIMIT_BYTES
    messages: list[tuple[str, bytes]] = [(f"polaris.telemetry.{name}", payload) for name, payload in good]
    messages += [(f"polaris.telemetry.bad-{n}", payload) for n, payload in enumerate(bad)]
    random.Random(5).shuffle(messages)
    async with a_node(tmp_path, settings(tmp_path)) as node:
        before_bytes = await node.memory_bytes()
        async with raw_client(node) as client:
            stream = client.jetstream()
            for topic, payload in messages:
                await stream.publish(topic, payload, timeout=5.0)
        async with node.bus() as bus:

            async def all_is_put_aside() -> bool:
                return len(await put_aside(bus.dead_letters)) >= len(bad)

            await eventually_true(all_is_put_aside, "what is bad is put aside")
            letters = await put_aside(bus.dead_letters)
        by_topic = {topic: payload for topic, payload, _ in letters}
        # Of an array each member is judged by itself: "[[]]" holds one, whose bytes are "[]".
        for number, payload in enumerate(bad):
            kept = by_topic[f"polaris.telemetry.bad-{number}"]
            assert kept == payload or (payload[:1] == b"[" and kept == payload[1:-1]), payload[:80]
        assert len(letters) == len(bad)
        assert {code for _, _, code in letters} == {"polaris.bus.decode", "polaris.bus.unknown_event_type"}

        async def all_good_is_stored() -> bool:
            return len(await stored(node, "steady")) == 60 and bool(await stored(node, "spaces"))

        await eventually_true(all_good_is_stored, "what is good is stored")
        counts = {name: len(await stored(node, name)) for name, _ in good}
        assert counts == {**dict.fromkeys(counts, 1), "steady": 60, "disordered": 3}
        async with node.store() as store:
            assert {summary.system_id for summary in await store.states.systems()} == {*counts, "pump"}
        (kolkata,) = await stored(node, "kolkata")
        assert kolkata.timestamp == datetime(2026, 3, 1, tzinfo=UTC)
        (ahead,), (behind,), (missing,) = [await stored(node, name) for name in ("ahead", "behind", "missing")]
        assert ahead.timestamp == NOW + timedelta(days=3)
        assert ahead.metadata[CLOCK_AHEAD_KEY] == pytest.approx(3 * 86_400, abs=1800)
        assert behind.timestamp == NOW - timedelta(days=3)
        assert CLOCK_AHEAD_KEY not in behind.metadata
        assert missing.metrics["v"].value is None
        assert len((await stored(node, "many-metrics"))[0].metrics) == 4_000
        assert set((await stored(node, "odd-metrics"))[0].metrics) == {"@form", "a.b", " ", "é", "x" * 256, "$where"}
        await stays_well(node, before_bytes)


async def stays_well(node: NodeUnderTest, before_bytes: int) -> None:
    assert await node.is_ready()
    assert await node.memory_bytes() - before_bytes < GROWTH_BYTES_MAX
    status, body = await node.get("api/v1/systems")
    assert status == 200
    for system in body["systems"]:
        assert (await node.get(f"api/v1/systems/{_quoted(system['system_id'])}"))[0] == 200, system["system_id"]
    assert await node.stop() == 0
    assert node.untidy_lines() == []


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


async def test_bad_actions_are_put_aside_and_good_ones_are_executed(tmp_path: Path) -> None:
    def action(name: str, **fields: Any) -> dict[str, Any]:
        asked = {"action_id": name, "action_type": "poke", "target_system": "pump", **fields}
        return envelope("x", type="polaris.adaptation", id=name, data={"action": asked})

    bad = [
        b"\x00\xff",
        text(action("a"))[:-2],
        text(action("a", action_id="")),
        text(action("a", timeout_seconds=-1)),
        text(action("a", priority="high")),
        text(action("a", parameters=[1])),
        text(action("a", parameters="@")).replace(b'"@"', b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
        text(action("a", target_system="y" * 300)),
        text(action("a", parameters={"n": "@"})).replace(b'"@"', b"NaN"),
    ]
    async with a_node(tmp_path, settings(tmp_path)) as node:
        before_bytes = await node.memory_bytes()
        async with raw_client(node) as client:
            stream = client.jetstream()
            for number, payload in enumerate(bad):
                await stream.publish(f"polaris.adaptations.{'pump' if number % 2 else 'nobody'}", payload, timeout=5.0)
                await stream.publish("polaris.adaptations.pump", text(action(f"good-{number}")), timeout=5.0)
            await stream.publish("polaris.adaptations.pump", text(action("elsewhere", target_system="valve")))
            await stream.publish("polaris.adaptations.valve", text(action("astray")))
            await stream.publish("polaris.adaptations.a.b", text(action("undone", target_system="a.b")))
        wanted = {f"good-{number}": ExecutionStatus.SUCCESS for number in range(len(bad))}
        wanted |= dict.fromkeys(("elsewhere", "astray", "undone"), ExecutionStatus.REJECTED)

        async def outcomes() -> dict[str, ExecutionStatus]:
            async with node.store() as store:
                return {result.action_id: result.status for result in await store.results.find_all()}

        async def all_have_ended() -> bool:
            return await outcomes() == wanted

        await eventually_true(all_have_ended, "the good are executed, the others rejected")
        begun = [line.action_id for line in read_journal(tmp_path / "pump.jsonl") if line.event == "begin"]
        assert begun == [f"good-{number}" for number in range(len(bad))]
        async with node.bus() as bus:

            async def all_is_put_aside() -> bool:
                return {payload for _, payload, _ in await put_aside(bus.dead_letters)} >= set(bad)

            await eventually_true(all_is_put_aside, "what is bad is put aside")
            assert {payload for _, payload, _ in await put_aside(bus.dead_letters)} == set(bad)
        await stays_well(node, before_bytes)


async def test_ids_of_any_form_stay_themselves_and_widen_nothing(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path)) as node:
        before_bytes = await node.memory_bytes()
        heard: dict[str, list[str]] = {}
        async with node.bus() as bus:
            for system_id in ODD_IDS:
                heard[system_id] = []

                async def listen(event: TelemetryEvent, into: list[str] = heard[system_id]) -> None:
                    into.append(event.system_state.system_id)

                await bus.subscribe(telemetry_topic(system_id), listen, event_type=TelemetryEvent)
            for system_id in (*ODD_IDS, "innocent"):
                state = SystemState(system_id, NOW, {"v": MetricValue("v", 1.0)})
                await bus.publish_telemetry(TelemetryEvent(state))
                asked = AdaptationAction(f"poke {system_id}"[:256], "poke", system_id)
                await bus.publish(adaptation_topic(system_id), AdaptationEvent(asked))
                topic = telemetry_topic(system_id)
                assert topic.count(".") == 2
                assert decode_token(topic.rpartition(".")[2]) == system_id

            async def each_heard_its_own() -> bool:
                return all(heard.values())

            await eventually_true(each_heard_its_own, "each listener heard its system")
            for system_id in ("i" * 257, "ü" * 10_240, "x" * 10_240, "", "nul\0", "line\nbreak", "\ud800"):
                with pytest.raises(InvalidValueError) as refused:
                    SystemState(system_id, NOW, {"v": MetricValue("v", 1.0)})
                assert len(refused.value.message) < 500
            for system_id in ("", "x" * 10_240, "\ud800"):
                with pytest.raises(InvalidTopicError) as no_topic:
                    telemetry_topic(system_id)
                assert len(no_topic.value.message) < 500
            for topic in ("polaris.telemetry.*", "polaris.telemetry.>", "polaris.telemetry.", "polaris.telemetry.a b"):
                with pytest.raises(InvalidTopicError):
                    await bus.publish(topic, TelemetryEvent(SystemState("a", NOW, {})))
        assert heard == {system_id: [system_id] for system_id in ODD_IDS}

        async def all_are_rejected() -> bool:
            async with node.store() as store:
                return len(await store.results.find_all()) == len(ODD_IDS) + 1

        await eventually_true(all_are_rejected, "nobody configured these systems")
        for system_id in ODD_IDS:
            (state,) = await stored(node, system_id)
            assert state.system_id == system_id
        assert not (tmp_path / "pump.jsonl").exists()
        await stays_well(node, before_bytes)


async def test_a_payload_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path)) as node, node.bus() as bus:
        metrics = {f"m{n}": MetricValue(f"m{n}", "x" * 100) for n in range(3_000)}
        event = TelemetryEvent(SystemState("heavy", NOW, metrics))
        light = [TelemetryEvent(SystemState("heavy", NOW, {"m": MetricValue("m", n)})) for n in range(2)]
        before = await bus.publish_telemetry(light[0])
        with pytest.raises(PayloadTooLargeError) as refused:
            await bus.publish_telemetry(event)
        assert refused.value.context["payload_bytes_max"] == LIMIT_BYTES
        assert refused.value.context["payload_bytes"] > LIMIT_BYTES
        assert str(LIMIT_BYTES) in refused.value.message
        after = await bus.publish_telemetry(light[1])
        assert after.sequence == (before.sequence or 0) + 1, "something was sent before the refusal"
        # The server itself ends a client that ignores the limit; the node does not mind.
        async with raw_client(node) as client:
            with pytest.raises(nats.errors.MaxPayloadError):
                await client.publish("polaris.telemetry.heavy", b"x" * (LIMIT_BYTES + 1))
        reader, writer = await asyncio.open_connection("127.0.0.1", int((node.file.bus_url or "").rpartition(":")[2]))
        await reader.readline()
        hello = json.dumps({"verbose": False, "auth_token": node.file.bus_token})
        writer.write(f"CONNECT {hello}\r\nPUB polaris.telemetry.heavy {LIMIT_BYTES + 1}\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10.0)
        assert b"Maximum Payload Violation" in answer
        writer.close()

        async def the_light_one_is_stored() -> bool:
            return [state.value("m") for state in await stored(node, "heavy")] == [1]

        await eventually_true(the_light_one_is_stored, "the last of the light ones is stored")
        assert await node.is_ready()
