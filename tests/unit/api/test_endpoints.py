from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from tests.living_view import WEIRD_ID, LivingView

from polaris.domain import HealthStatus, SystemState
from polaris.exceptions import StoreConnectionError

from .conftest import NOW

IDS = (
    *("a.b", "two words", "*", ">", "ümläut→", "a/b", "a%2Fb", "/", "?x=1", "#", "x" * 256, "%", "+", "..x", "a&b"),
    *("~", "~x.", "...", "~..."),
)


async def get(client: httpx2.AsyncClient, path: str, *, status: int = 200, **query: Any) -> Any:
    answer = await client.get(path, params=query or None)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json" if status == 200 else "application/problem+json"
    return answer.json()


def path_of(system_id: str, rest: str = "") -> str:
    return f"/api/v1/systems/{quote(system_id, safe='')}{rest}"


async def test_the_node_says_who_it_is(client: httpx2.AsyncClient) -> None:
    node = await get(client, "/api/v1/node")
    assert node["name"] == "atlas"
    assert node["started_at"] == "2026-03-01T08:48:00Z"
    assert node["rates"]["samples_per_s"] == 3.0
    assert node["dead_letters"] == 0


async def test_systems_come_with_their_latest_readings(client: httpx2.AsyncClient) -> None:
    answer = await get(client, "/api/v1/systems")
    assert [system["system_id"] for system in answer["systems"]] == ["host", WEIRD_ID, "web-shop"]
    shop = answer["systems"][2]
    assert shop["last_sample_at"] == "2026-03-01T11:59:59Z"
    assert shop["supported_actions"] == ["add_worker", "remove_worker"]
    assert shop["metrics"]["service.request.duration.p95"]["unit"] == "s"
    assert answer["next_cursor"] is None


async def test_systems_come_in_pages_that_neither_repeat_nor_skip(client: httpx2.AsyncClient, view: LivingView) -> None:
    for number in range(7):
        view.states[f"extra-{number}"] = []
        view.connectors[f"extra-{number}"] = "push"
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await get(client, "/api/v1/systems", limit=3, **cursor)
        seen += [system["system_id"] for system in page["systems"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sorted(view.states)


async def test_a_system_that_never_reported_has_no_sample_and_no_readings(
    client: httpx2.AsyncClient, view: LivingView
) -> None:
    view.states["silent"] = []
    view.connectors["silent"] = "push"
    system = await get(client, "/api/v1/systems/silent")
    assert system["last_sample_at"] is None
    assert system["health_status"] == "unknown"
    assert system["metrics"] == {}


@pytest.mark.parametrize("system_id", IDS)
async def test_any_id_works_in_the_path(client: httpx2.AsyncClient, view: LivingView, system_id: str) -> None:
    view.states[system_id] = [SystemState(system_id, NOW)]
    view.connectors[system_id] = "push"
    assert (await get(client, path_of(system_id)))["system_id"] == system_id
    series = await get(client, path_of(system_id, "/series"), metric="system.cpu.utilization")
    assert series["system_id"] == system_id
    actions = await client.get("/api/v1/actions", params={"system": system_id})
    assert actions.json() == {"actions": [], "next_cursor": None}


# As ids, and as they are written in a path.
DOTTED = {".": "~.", "..": "~..", "~.": "~~.", "~..": "~~..", "~" * 254 + "..": "~" * 255 + ".."}


@pytest.mark.parametrize("system_id", DOTTED)
async def test_an_id_that_is_a_step_in_a_path_is_written_with_a_tilde(
    client: httpx2.AsyncClient, view: LivingView, system_id: str
) -> None:
    for other in (*DOTTED, system_id):
        view.states[other] = [SystemState(other, NOW)]
        view.connectors[other] = "push"
    view.records.append(msgspec.structs.replace(view.records[0], action_id=system_id))
    address = path_of(DOTTED[system_id])
    assert (await get(client, address))["system_id"] == system_id
    assert (await get(client, f"{address}/series", metric="m"))["system_id"] == system_id
    assert (await get(client, f"/api/v1/actions/{DOTTED[system_id]}"))["action_id"] == system_id
    # Where no path is meant nothing is written otherwise.
    history = await get(client, "/api/v1/health/history", system=system_id)
    assert history["periods"] == []


async def test_a_system_says_why_it_is_not_healthy(client: httpx2.AsyncClient, view: LivingView) -> None:
    reasons = {"health.reasons": ["cpu at 98 %", "disk nearly full"]}
    view.states["host"].append(SystemState("host", NOW, health_status=HealthStatus.WARNING, metadata=reasons))
    assert (await get(client, "/api/v1/systems/host"))["message"] == "cpu at 98 %; disk nearly full"


async def test_a_series_has_its_values_units_and_gaps(client: httpx2.AsyncClient) -> None:
    series = await get(client, path_of("host", "/series"), metric="system.disk.io.write.rate")
    assert series["unit"] == "By/s"
    assert len(series["timestamps"]) == len(series["values"]) == 120
    assert series["timestamps"] == sorted(series["timestamps"])
    assert None in series["values"]
    assert series["truncated"] is False


async def test_a_long_series_gives_its_newest_points_and_says_so(client: httpx2.AsyncClient) -> None:
    series = await get(client, path_of("host", "/series"), metric="system.cpu.utilization", limit=5)
    assert series["truncated"] is True
    assert series["timestamps"][-1] == "2026-03-01T11:59:59Z"
    assert len(series["values"]) == 5


async def test_the_range_of_a_series_is_half_open(client: httpx2.AsyncClient) -> None:
    start, end = NOW - timedelta(seconds=30), NOW - timedelta(seconds=10)
    series = await get(
        client,
        path_of("host", "/series"),
        metric="system.cpu.utilization",
        start=start.isoformat(),
        end=end.isoformat(),
    )
    assert series["timestamps"][0] == "2026-03-01T11:59:30Z"
    assert series["timestamps"][-1] == "2026-03-01T11:59:49Z"


@pytest.mark.parametrize("text", ["2026-03-01T17:29:30+05:30", "2026-03-01T11:59:30Z", "2026-03-01T06:59:30-0500"])
async def test_times_of_any_offset_are_the_same_instant(client: httpx2.AsyncClient, text: str) -> None:
    # Written into the address as it is: a "+" that nobody encoded must still mean what it says.
    answer = await client.get(f"{path_of('host', '/series')}?metric=system.cpu.utilization&start={text}")
    assert answer.json()["start"] == "2026-03-01T11:59:30Z"


async def test_a_metric_nobody_saw_has_an_empty_series(client: httpx2.AsyncClient) -> None:
    series = await get(client, path_of("host", "/series"), metric="no.such")
    assert series["values"] == []


async def test_aggregates_have_one_value_a_bucket(client: httpx2.AsyncClient) -> None:
    answer = await get(
        client, path_of("host", "/aggregates"), metric="system.cpu.utilization", aggregation="count", bucket_s=30
    )
    assert answer["values"] == [30.0, 30.0, 30.0, 30.0]
    assert answer["starts"][0] == "2026-03-01T11:58:00Z"


async def test_actions_are_newest_first_in_pages_that_neither_repeat_nor_skip(
    client: httpx2.AsyncClient, view: LivingView
) -> None:
    for index in range(4, 20):
        view._act(index, NOW)  # all at the same instant: the id decides
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await get(client, "/api/v1/actions", limit=7, **cursor)
        seen += [action["action_id"] for action in page["actions"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"action-{index:05d}" for index in range(19, -1, -1)]


async def test_an_action_tells_its_outcome_and_hides_secrets(client: httpx2.AsyncClient) -> None:
    action = await get(client, "/api/v1/actions/action-00002")
    assert action["status"] == "failed"
    assert action["error_message"] == "the arbiter did not start a worker within 10 s"
    assert action["duration_s"] == pytest.approx(0.052)
    assert action["source"] == "rule-controller"


async def test_components_and_dependencies_are_listed(client: httpx2.AsyncClient) -> None:
    components = (await get(client, "/api/v1/components"))["components"]
    assert [component["name"] for component in components][:2] == ["bus", "store"]
    answer = await get(client, "/api/v1/dependencies")
    assert [edge["dependency_type"] for edge in answer["dependencies"]] == ["uses", "runs_on", "sends_to"]
    assert (answer["truncated"], answer["next_cursor"]) == (False, None)


async def test_dependencies_come_in_pages(client: httpx2.AsyncClient) -> None:
    seen: list[str] = []
    path = "/api/v1/dependencies?limit=1"
    while True:
        answer = await get(client, path)
        seen += [edge["dependency_type"] for edge in answer["dependencies"]]
        assert answer["truncated"] is (answer["next_cursor"] is not None)
        if answer["next_cursor"] is None:
            break
        path = f"/api/v1/dependencies?limit=1&cursor={answer['next_cursor']}"
    assert seen == ["uses", "runs_on", "sends_to"]


@pytest.mark.parametrize(
    "path",
    ["/api/v1/systems/none", "/api/v1/systems/none/series?metric=m", "/api/v1/systems/none/aggregates?metric=m",
     "/api/v1/actions/none", "/api/v1/nothing", "/api/v2/systems", "/api/v1/systems/", "/nothing"],
)  # fmt: skip
async def test_what_does_not_exist_is_a_404_problem(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "polaris.request.not_found"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/v1/systems?limit=0", "limit"),
        ("/api/v1/systems?limit=1001", "limit"),
        ("/api/v1/systems?limit=many", "limit"),
        ("/api/v1/systems?limit=-1", "limit"),
        ("/api/v1/systems?limit=%D9%A3", "limit"),  # a digit, but not one of ours
        ("/api/v1/systems?limit=1&limit=2", "limit"),
        ("/api/v1/systems?limits=3", "limits"),
        ("/api/v1/node?verbose=1", "verbose"),
        ("/api/v1/actions?cursor=zzz", "cursor"),
        ("/api/v1/actions?cursor=WzEsMl0", "cursor"),
        ("/api/v1/actions?cursor=" + "A" * 2000, "cursor"),
        ("/api/v1/actions?system=", "system"),
        ("/api/v1/systems/" + "x" * 257, "system_id"),
        ("/api/v1/systems/a%00b", "system_id"),
        ("/api/v1/systems/host/series", "metric"),
        ("/api/v1/systems/host/series?metric=m&start=2026-03-01T11:00:00", "start"),  # names no instant
        ("/api/v1/systems/host/series?metric=m&start=yesterday", "start"),
        ("/api/v1/systems/host/series?metric=m&start=2026-03-01T13:00:00Z", "start"),
        ("/api/v1/systems/host/series?metric=m&start=1900-03-01T13:00:00Z", "start"),
        ("/api/v1/systems/host/series?metric=m&end=0001-01-01T00:00:00Z", "end"),
        ("/api/v1/systems/host/series?metric=m&end=0001-01-01T00:00:00%2B14:00", "end"),
        ("/api/v1/systems/host/aggregates?metric=m&aggregation=mode", "aggregation"),
        ("/api/v1/systems/host/aggregates?metric=m&bucket_s=0", "bucket_s"),
        ("/api/v1/systems/host/aggregates?metric=m&bucket_s=nan", "bucket_s"),
        ("/api/v1/systems/host/aggregates?metric=m&bucket_s=1e3", "bucket_s"),
        ("/api/v1/systems/host/aggregates?metric=m&bucket_s=1&start=2026-02-01T00:00:00Z", "bucket_s"),
    ],
)  # fmt: skip
async def test_a_bad_parameter_is_refused_by_name(client: httpx2.AsyncClient, path: str, parameter: str) -> None:
    answer = await client.get(path)
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == "polaris.value.invalid"
    assert problem["errors"][0]["parameter"] == parameter
    assert parameter in problem["detail"]


@pytest.mark.parametrize("path", ["/api/v1/systems/%ff", "/api/v1/systems?cursor=%ff", "/api/v1/systems?" + "a" * 5000])
async def test_what_is_no_text_or_too_long_is_a_400_problem(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["code"] == "polaris.request"


async def test_an_error_of_the_store_shows_no_inner_detail(
    client: httpx2.AsyncClient, view: LivingView, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: Any) -> None:
        raise StoreConnectionError("cannot open polaris.db as user joe")

    monkeypatch.setattr(view, "systems", broken)
    answer = await client.get("/api/v1/systems")
    assert answer.status_code == 503
    assert answer.json()["title"] == "Data store unavailable"
    assert "joe" not in answer.text


async def test_an_unexpected_error_is_a_500_problem_and_logged(
    client: httpx2.AsyncClient, view: LivingView, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise KeyError("inner secret")

    monkeypatch.setattr(view, "node", broken)
    answer = await client.get("/api/v1/node")
    assert answer.status_code == 500
    assert answer.json()["code"] == "polaris.error"
    assert answer.json()["correlation_id"]
    assert "inner secret" not in answer.text
    assert "inner secret" in caplog.text


async def test_health_and_readiness_are_green_when_all_is_well(client: httpx2.AsyncClient) -> None:
    assert (await get(client, "/healthz"))["status"] == "ok"
    ready = await get(client, "/readyz")
    assert ready["status"] == "ok"
    assert ready["failing"] == []


async def test_readiness_names_what_fails_and_why(client: httpx2.AsyncClient, view: LivingView) -> None:
    view.failing["bus"] = "no connection for 12 s"
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failing"] == ["bus: no connection for 12 s"]
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_come_in_the_text_format_of_the_view(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("up 1\n")


async def test_the_asyncapi_document_is_there_only_when_the_node_has_one(
    client: httpx2.AsyncClient, view: LivingView
) -> None:
    assert (await get(client, "/asyncapi.json"))["asyncapi"] == "3.0.0"
    view.document = None
    assert (await client.get("/asyncapi.json")).status_code == 404


async def test_the_account_of_the_bus_names_every_reason(client: httpx2.AsyncClient) -> None:
    answer = await get(client, "/api/v1/bus")
    assert answer["state"] == "connected"
    (readings,) = answer["published"]
    assert readings == {
        "kind": "telemetry",
        "published": 9,
        "confirmed": 5,
        "waiting": 1,
        "dropped": {"buffer_full": 3},
    }
    (subscription,) = answer["subscriptions"]
    assert subscription["name"] == "store-telemetry"
    assert subscription["counts"]["missed"] == 0
