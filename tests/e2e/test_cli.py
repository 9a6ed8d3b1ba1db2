"""The commands beside one running node, each a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from tests.commands import Polaris, end_of
from tests.nodes import NodeUnderTest, a_node, eventually_true
from tests.witness_connector import read_journal

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryEvent

pytestmark = pytest.mark.xdist_group("cli")

BEGUN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SAMPLES = 90
RANGE = ("--start", "2026-03-01T12:00:00Z", "--end", "2026-03-01T13:00:00+00:00")


def sample(number: int) -> SystemState:
    """One a second; the tenth has no reading of the temperature."""
    metrics = {
        "load": MetricValue("load", number / 2),
        "memory.usage": MetricValue("memory.usage", number * 1024.0, "By"),
        "temperature": MetricValue("temperature", None if number == 9 else 20.0, "Cel"),
    }
    return SystemState("web shop", BEGUN + timedelta(seconds=number), metrics, HealthStatus.WARNING)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeUnderTest]:
    """A node with a system that does what it is told, a slow one, and one that pushes and has gone silent."""
    witness = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.2}
    systems = {
        "pump": {**witness, "options": {"journal": "pump.jsonl"}},
        "slow": {**witness, "options": {"journal": "slow.jsonl", "before_s": 60.0}},
        "steady": {**witness, "options": {"journal": "steady.jsonl", "before_s": 2.0}},
    }
    async with a_node(tmp_path_factory.mktemp("cli"), {"systems": systems}) as running:
        async with running.bus() as bus, running.store() as store:
            for number in range(SAMPLES):
                await bus.publish_telemetry(TelemetryEvent(sample(number)))

            async def stored() -> bool:
                newest = await store.states.get_current_state("web shop")
                return newest is not None and newest.timestamp == sample(SAMPLES - 1).timestamp

            await eventually_true(stored, "the samples are stored")
        yield running


@pytest.fixture
def polaris(node: NodeUnderTest) -> Polaris:
    return Polaris(node.folder)


# status and check


def test_status_tells_how_the_node_and_its_components_do(polaris: Polaris, node: NodeUnderTest) -> None:
    ended = polaris("status")
    assert ended.code == 0, ended
    assert ended.lines[0].startswith("under-test")
    assert str(node.file.http_url) in ended.output
    assert ["store", "healthy"] in ended.rows
    assert ["connector:pump", "healthy"] in ended.rows


def test_status_as_json_is_complete(polaris: Polaris, node: NodeUnderTest) -> None:
    told = polaris("status", "--json").json
    assert told["running"] is True
    assert told["pid"] == node.process.pid
    assert told["readiness"]["status"] == "ok"
    assert {"bus", "store", "telemetry ingest"} <= {component["name"] for component in told["components"]}
    assert node.file.bus_token is not None
    assert node.file.bus_token not in json.dumps(told)


def test_check_does_not_take_the_port_of_the_running_node_for_a_mistake(polaris: Polaris) -> None:
    ended = polaris("check", "--all")
    assert (ended.code, ended.complaint) == (0, "")
    assert ended.lines[0] == "configuration is fine"
    assert '  node.name = "under-test"' in ended.lines
    assert "  nats.token = not set" in ended.lines


# systems and query


def test_systems_lists_what_has_reported(polaris: Polaris) -> None:
    ended = polaris("systems")
    assert ended.code == 0
    assert ended.rows[0] == ["SYSTEM", "HEALTH", "LAST SAMPLE", "METRICS"]
    # Another test of this file publishes for a system of its own.
    assert [row[:2] for row in ended.rows[1:] if row[0] != "pushed"] == [
        ["pump", "healthy"],
        ["slow", "healthy"],
        ["steady", "healthy"],
        ["web shop", "warning"],
    ]
    listed = [one for one in polaris("systems", "--json").json["systems"] if one["system_id"] != "pushed"]
    assert [system["system_id"] for system in listed] == ["pump", "slow", "steady", "web shop"]
    assert listed[3]["metrics"]["load"]["value"] == (SAMPLES - 1) / 2


def test_query_shows_the_latest_state_of_a_system(polaris: Polaris) -> None:
    ended = polaris("query", "web shop")
    assert ended.code == 0
    assert ended.lines[0].startswith("web shop  warning  2026-03-01T12:01:29.000Z (")
    assert ["load", "44.5", "ok"] in ended.rows
    assert ["memory.usage", "89 KiB", "ok"] in ended.rows
    assert ["temperature", "20 Cel", "ok"] in ended.rows
    assert polaris("query", "web shop", "--json").json["timestamp"] == "2026-03-01T12:01:29Z"


def test_query_shows_the_points_of_a_metric_and_none_where_it_is_missing(polaris: Polaris) -> None:
    ended = polaris("query", "web shop", "temperature", *RANGE)
    assert ended.code == 0
    assert ended.rows[0] == ["TIME", "temperature"]
    assert ended.rows[1] == ["2026-03-01T12:00:00.000Z", "20 Cel"]
    assert ended.rows[10] == ["2026-03-01T12:00:09.000Z", "-"]
    assert len(ended.rows) == 1 + SAMPLES
    told = polaris("query", "web shop", "temperature", *RANGE, "--json").json
    assert told["unit"] == "Cel"
    assert told["points"][9] == {"timestamp": "2026-03-01T12:00:09Z", "value": None}


def test_query_says_when_it_leaves_older_points_out(polaris: Polaris) -> None:
    ended = polaris("query", "web shop", "load", *RANGE, "--limit", "3")
    assert ended.code == 0
    assert [row[1] for row in ended.rows[1:]] == ["43.5", "44", "44.5"]
    assert "there are more in the range" in ended.complaint
    assert polaris("query", "web shop", "load", *RANGE, "--limit", "3", "--json").json["truncated"] is True
    assert polaris("query", "web shop", "load", *RANGE, "--limit", str(SAMPLES), "--json").json["truncated"] is False


def test_query_aggregates_by_bucket(polaris: Polaris) -> None:
    ended = polaris("query", "web shop", "load", *RANGE, "--agg", "max", "--bucket", "1m")
    assert ended.rows == [
        ["FROM", "max(load)", "COUNT"],
        ["2026-03-01T12:00:00.000Z", "29.5", "60"],
        ["2026-03-01T12:01:00.000Z", "44.5", "30"],
    ]
    told = polaris("query", "web shop", "temperature", *RANGE, "--agg", "count", "-b", "30s", "--json").json
    assert [bucket["value"] for bucket in told["buckets"]] == [29, 30, 30]
    assert (told["unit"], told["bucket_s"], told["aggregation"]) == (None, 30.0, "count")


def test_query_of_the_last_minutes_takes_its_range_from_now(polaris: Polaris) -> None:
    recent = polaris("query", "pump", "number", "--last", "10m", "--json").json["points"]
    assert recent
    newest = datetime.fromisoformat(recent[-1]["timestamp"])
    assert datetime.now(UTC) - newest < timedelta(seconds=30)
    silent = polaris("query", "web shop", "load", "--last", "10m")
    assert silent.code == 4
    assert "no values of load in that range; its newest state is of 2026-03-01T12:01:29.000Z" in silent.complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["web-shop"], "no system 'web-shop' has reported; did you mean web shop?"),
        (["elevator"], "no system 'elevator' has reported; known: pump, "),
        (["elevator", "load"], "no system 'elevator' has reported; known: pump, "),
        (["web shop", "laod"], "web shop has no metric 'laod'; did you mean load?"),
        (["web shop", "memory.percent.used"], "did you mean memory.usage?"),
        (["web shop", "xyz"], "it reports load, memory.usage, temperature"),
    ],
)
def test_query_of_something_unknown_says_what_there_is(polaris: Polaris, arguments: list[str], complaint: str) -> None:
    ended = polaris("query", *arguments)
    assert (ended.code, ended.output) == (4, "")
    assert complaint in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--last", "soon"], "--last"),
        (["--start", "2026-03-01T12:00:00"], "--start"),
        (["--agg", "p50"], "--agg"),
    ],
)
def test_query_refuses_a_wrong_option_by_its_name(polaris: Polaris, arguments: list[str], option: str) -> None:
    ended = polaris("query", "web shop", "load", *arguments)
    assert (ended.code, ended.output) == (2, "")
    assert option in ended.complaint.splitlines()[-1]


def test_a_reader_that_goes_away_is_no_failure(polaris: Polaris) -> None:
    for arguments in (["query", "web shop", "load", *RANGE, "--json"], ["systems"], ["--help"]):
        process = polaris.start(*arguments)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) == 0, arguments
        assert process.stderr is not None
        assert process.stderr.read() == "", arguments
        process.stderr.close()


# publish


def test_publish_takes_fields_and_tells_the_guarantee(polaris: Polaris) -> None:
    fields = {"system_state": {"system_id": "pushed", "timestamp": "2026-03-01T12:00:00Z", "metrics": {}}}
    ended = polaris("publish", "polaris.telemetry.pushed", json.dumps(fields))
    assert ended.code == 0
    assert "stored as POLARIS_TELEMETRY #" in ended.output
    assert "(at least once)" in ended.output


def test_publish_takes_a_cloud_event_from_standard_input_and_knows_it_the_second_time(polaris: Polaris) -> None:
    state = {"system_id": "pushed", "timestamp": "2026-03-01T12:00:01Z"}
    event = {"specversion": "1.0", "id": "ce-1", "source": "test", "type": "polaris.telemetry"}
    text = json.dumps({**event, "data": {"system_state": state}})
    receipt = polaris("publish", "polaris.telemetry.pushed", "--json", stdin=text).json
    assert (receipt["event_id"], receipt["delivery"], receipt["duplicate"]) == ("ce-1", "at_least_once", False)
    assert receipt["stream"] == "POLARIS_TELEMETRY"
    again = polaris("publish", "polaris.telemetry.pushed", "-", "--json", stdin=text).json
    assert (again["duplicate"], again["sequence"]) == (True, receipt["sequence"])
    assert "was there already" in polaris("publish", "polaris.telemetry.pushed", stdin=text).output


def test_publish_on_a_topic_that_nothing_stores_says_so(polaris: Polaris) -> None:
    ended = polaris("publish", "plant.health", '{"component": "a", "status": "healthy"}', "--type", "polaris.health")
    assert ended.code == 0
    assert "at most once" in ended.output


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["polaris.telemetry.web", '{"system_state": 3}'], 1, "Expected `object`, got `int` - at `$.system_state`"),
        (["polaris.telemetry.web", '{"system_st'], 1, "not valid JSON"),
        (["polaris.health.*", '{"component": "a", "status": "healthy"}'], 2, "is not a legal topic"),
    ],
)
def test_publish_refuses_what_is_no_event(polaris: Polaris, arguments: list[str], code: int, complaint: str) -> None:
    ended = polaris("publish", *arguments)
    assert (ended.code, ended.output) == (code, "")
    assert complaint in ended.complaint
    assert len(ended.complaint) < 1000


def test_publish_names_size_and_limit_of_an_event_that_is_too_large(polaris: Polaris) -> None:
    fields = {"component": "a", "status": "healthy", "message": "x" * 1_200_000}
    ended = polaris("publish", "polaris.health.a", stdin=json.dumps(fields))
    assert ended.code == 1
    assert "1048576" in ended.complaint


# tail


def test_tail_follows_one_part_of_the_topic_with_a_star(polaris: Polaris) -> None:
    ended = polaris("tail", "polaris.telemetry.*", "--count", "12")
    assert ended.code == 0
    assert len(ended.lines) == 12
    assert {line.split("  ")[1] for line in ended.lines} == {"telemetry"}
    assert {line.split()[2] for line in ended.lines} == {"pump", "slow", "steady"}


def test_tail_as_json_gives_one_object_a_line(polaris: Polaris) -> None:
    ended = polaris("tail", "polaris.telemetry.pump", "-n", "2", "--json")
    events = [json.loads(line) for line in ended.lines]
    assert [event["topic"] for event in events] == ["polaris.telemetry.pump"] * 2
    assert [event["type"] for event in events] == ["polaris.telemetry"] * 2
    numbers = [event["system_state"]["metrics"]["number"]["value"] for event in events]
    assert numbers[1] == numbers[0] + 1


def test_tail_shows_an_action_and_its_result(polaris: Polaris) -> None:
    tail = polaris.start("tail", "polaris.>", "--json")
    wanted = {"polaris.adaptation", "polaris.execution"}
    seen: dict[str, str] = {}
    assert tail.stdout is not None
    action = None
    for line in tail.stdout:
        if action is None:
            # A first event shows that it follows.
            action = polaris.start("act", "pump", "poke", "--id", "watched")
        event = json.loads(line)
        if event["type"] in wanted:
            seen[event["type"]] = (event.get("action") or event.get("result"))["action_id"]
        if seen.keys() == wanted:
            break
    tail.send_signal(signal.SIGINT)
    assert action is not None
    assert end_of(action).code == 0
    assert seen == dict.fromkeys(wanted, "watched")
    assert tail.wait(30) == 0
    end_of(tail)


async def test_tail_shows_what_polaris_cannot_read_and_puts_nothing_aside(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    from polaris.messaging import OutgoingMessage

    foreign = b'{"specversion":"1.0","id":"o1","source":"shop","type":"shop.order","data":{"amount":3}}'
    process = polaris.start("tail", "shop.>", "-n", "3")
    broker = node.broker()
    await broker.connect()
    try:
        while process.poll() is None:
            for payload in (b"\x00\xff junk", foreign, b"[" + foreign + b"]"):
                await broker.publish(OutgoingMessage("shop.orders", payload))
            time.sleep(0.05)
        assert list(await broker.read_stored("POLARIS_DEAD_LETTER")) == []
    finally:
        await broker.disconnect()
    ended = end_of(process)
    assert ended.code == 0
    assert any("unreadable  on shop.orders  7 bytes" in line for line in ended.lines), ended
    assert any('shop.order  on shop.orders  {"amount":3}' in line for line in ended.lines), ended


def test_tail_ends_well_when_its_reader_goes_away(polaris: Polaris) -> None:
    process = polaris.start("tail", "polaris.telemetry.>")
    assert process.stdout is not None
    assert "telemetry" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_well_on_a_signal(polaris: Polaris, number: signal.Signals) -> None:
    process = polaris.start("tail")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    ended = end_of(process)
    assert (ended.code, ended.complaint) == (0, "")


def test_tail_refuses_an_impossible_pattern(polaris: Polaris) -> None:
    ended = polaris("tail", "polaris.>.x")
    assert (ended.code, ended.output) == (2, "")
    assert "is not a legal topic" in ended.complaint


# replay


def test_replay_tells_what_passed_in_its_order_and_ends(polaris: Polaris) -> None:
    for number in (1, 2, 3):
        assert polaris("act", "pump", "poke", "--id", f"replayed-{number}").code == 0
    told = polaris("replay", "polaris.adaptations.pump")
    assert told.code == 0
    ours = [line for line in told.lines if "replayed-" in line]
    assert [line.split()[-1] for line in ours] == ["replayed-1", "replayed-2", "replayed-3"]
    as_json = [json.loads(line) for line in polaris("replay", "polaris.adaptations.*", "--json").lines]
    known = [event for event in as_json if event["action"]["action_id"] == "replayed-2"]
    assert [(event["topic"], event["type"]) for event in known] == [("polaris.adaptations.pump", "polaris.adaptation")]
    first = polaris("replay", "polaris.adaptations.*", "--count", "1")
    assert (first.code, len(first.lines), first.complaint) == (0, 1, "")


def test_replay_keeps_to_its_window(polaris: Polaris) -> None:
    assert polaris("act", "pump", "poke", "--id", "windowed").code == 0
    assert "windowed" in polaris("replay", "polaris.adaptations.pump", "--since", "1h").output
    over = polaris("replay", "polaris.adaptations.pump", "--until", "2026-03-01T12:00:00Z")
    assert (over.code, over.output) == (4, "")
    assert over.complaint == "polaris: nothing on polaris.adaptations.pump is stored in that time\n"
    for arguments, complaint in (
        (["polaris.>", "--since", "soon"], "--since"),
        (["polaris..x"], "polaris..x"),
    ):
        refused = polaris("replay", *arguments)
        assert (refused.code, refused.output) == (2, "")
        assert complaint in refused.complaint
    nowhere = polaris("replay", "elsewhere.>")
    assert (nowhere.code, nowhere.output) == (1, "")
    assert "elsewhere.>" in nowhere.complaint


# act


def effects(folder: Path, system_id: str, action_id: str) -> int:
    """How often the action took effect, by the managed system's own account."""
    journal = read_journal(folder / f"{system_id}.jsonl")
    return sum(line.event == "effect" and line.action_id == action_id for line in journal)


def test_act_waits_for_the_success_of_a_managed_system(polaris: Polaris, node: NodeUnderTest) -> None:
    ended = polaris("act", "pump", "poke", "--id", "p1", "--param", "count=4", "--param", "name=red", "--json")
    assert ended.code == 0
    assert ended.json["action"]["parameters"] == {"count": 4, "name": "red"}
    assert ended.json["result"]["status"] == "success"
    assert ended.json["result"]["result_data"] == {"pid": node.process.pid}
    assert effects(node.folder, "pump", "p1") == 1
    told = polaris("act", "pump", "poke")
    assert told.code == 0
    assert told.lines[0].startswith("cli-")
    assert "  success  in " in told.lines[0]
    assert f"  pid: {node.process.pid}" in told.lines


def test_act_on_a_system_that_nobody_configured_is_rejected(polaris: Polaris) -> None:
    ended = polaris("act", "elevator", "poke")
    assert ended.code == 1
    assert "  rejected" in ended.output
    assert "no managed system 'elevator' is configured" in ended.output


def test_act_tells_when_the_execution_ran_out_of_time(polaris: Polaris, node: NodeUnderTest) -> None:
    ended = polaris("act", "slow", "poke", "--id", "late", "--timeout", "300ms")
    assert ended.code == 1
    assert ended.lines[0].startswith("late  timeout")
    assert effects(node.folder, "slow", "late") == 0


def test_act_answers_an_id_that_was_carried_out_at_once_with_its_result(polaris: Polaris, node: NodeUnderTest) -> None:
    first = polaris("act", "pump", "poke", "--id", "once")
    begun_s = time.monotonic()
    again = polaris("act", "pump", "poke", "--id", "once")
    assert time.monotonic() - begun_s < 25.0  # it does not wait for an answer, which would take 40 s or more
    assert (again.code, again.output) == (0, first.output)
    assert "is not executed again" in again.complaint
    assert polaris("act", "pump", "poke", "--id", "once", "--json").json["result"]["status"] == "success"
    assert polaris("act", "pump", "poke", "--id", "once", "--no-wait").code == 0
    assert effects(node.folder, "pump", "once") == 1


def test_act_answers_a_rejected_id_with_its_rejection(polaris: Polaris) -> None:
    assert polaris("act", "elevator", "poke", "--id", "refused").code == 1
    again = polaris("act", "elevator", "poke", "--id", "refused")
    assert again.code == 1
    assert "no managed system 'elevator' is configured" in again.output


def test_act_does_not_pass_the_result_of_one_action_off_as_that_of_another(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    assert polaris("act", "pump", "poke", "--id", "mine").code == 0
    other = polaris("act", "pump", "prod", "--id", "mine")
    assert other.code == 1
    assert "the id mine belongs to another action (poke on pump); nothing was done now" in other.complaint
    assert polaris("act", "steady", "poke", "--id", "mine").code == 1
    assert polaris("act", "pump", "poke", "--id", "mine", "--param", "n=1").code == 1
    assert effects(node.folder, "pump", "mine") == 1
    assert effects(node.folder, "steady", "mine") == 0


def test_act_without_waiting_stores_the_action_and_a_second_one_waits_for_the_same(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    stored = polaris("act", "steady", "poke", "--id", "long", "--no-wait")
    assert (stored.code, stored.output) == (0, "long  stored\n")
    waited = polaris("act", "steady", "poke", "--id", "long")
    assert waited.code == 0
    assert waited.lines[0].startswith("long  success")
    assert effects(node.folder, "steady", "long") == 1


def test_act_that_is_interrupted_leaves_the_action_to_the_node(polaris: Polaris, node: NodeUnderTest) -> None:
    process = polaris.start("act", "steady", "poke", "--id", "left")
    deadline_s = time.monotonic() + 30
    while not any(line.action_id == "left" for line in read_journal(node.folder / "steady.jsonl")):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    ended = end_of(process)
    assert ended.code == 130, ended
    assert polaris("act", "steady", "poke", "--id", "left").code == 0
    assert effects(node.folder, "steady", "left") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pump", "poke", "--param", "count"], "--param: 'count' is no key=value"),
        (["pump", "poke", "--timeout", "2d"], "timeout_seconds: expected seconds"),
        (["pump", "poke", "--id", "x" * 10_000], "action_id: expected"),
        (["", "poke"], "target_system: expected"),
        (["pump"], "Missing argument"),
    ],
)
def test_act_refuses_wrong_arguments(polaris: Polaris, arguments: list[str], complaint: str) -> None:
    ended = polaris("act", *arguments)
    assert (ended.code, ended.output) == (2, "")
    assert complaint in ended.complaint
    assert len(ended.complaint) < 1000


def test_the_results_of_actions_on_systems_with_odd_ids_come_back(polaris: Polaris) -> None:
    for system_id in ("a.b", "x *>", "größe"):
        ended = polaris("act", system_id, "poke")
        assert ended.code == 1
        assert "is configured" in ended.output


def test_commands_find_the_node_by_its_data_folder_alone(node: NodeUnderTest, tmp_path: Path) -> None:
    elsewhere = Polaris(tmp_path)
    folder = ("--data-dir", str(node.data.path))
    assert elsewhere("status", *folder).code == 0
    assert elsewhere("query", "web shop", "load", *RANGE, *folder).code == 0
    assert elsewhere("tail", "-n", "1", *folder).code == 0
    assert elsewhere("act", "pump", "poke", *folder).code == 0


def test_two_commands_at_once_do_not_disturb_each_other(polaris: Polaris) -> None:
    processes: list[subprocess.Popen[str]] = [polaris.start("act", "pump", "poke", "--json") for _ in range(4)]
    processes += [polaris.start("query", "web shop", "load", *RANGE, "--json") for _ in range(2)]
    assert [end_of(process).code for process in processes] == [0] * 6
