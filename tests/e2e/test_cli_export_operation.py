"""What operators take out: dashboard, unit, compose file, documents; each judged by the tool that it is for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.commands import Polaris
from tests.nodes import a_node

from polaris import __version__
from polaris.observability._catalogue import CATALOGUE

BY_NAME = {metric.name: metric for metric in CATALOGUE}
OF_PROMETHEUS = {"instance", "job", "le"}
NEVER_YET = {
    # What only a fault brings about; the names and labels of these are checked all the same.
    "polaris_redeliveries_total",
    "polaris_messages_dropped_total",
    "polaris_retries_total",
    "polaris_dead_letters_total",
    "polaris_system_health_score",
    "polaris_connector_poll_seconds_bucket",
}


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def expressions(dashboard: Any) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def metric_of(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name) if name not in BY_NAME else name


def wrong_with(expression: str) -> list[str]:
    """Names and labels in an expression that the catalogue does not know."""
    names = {metric_of(name) for name in re.findall(r"\bpolaris_\w+", expression)}
    unknown = sorted(names - BY_NAME.keys())
    labels = {label for text in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", text)}
    labels |= {label for text in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", text)}
    known = OF_PROMETHEUS.union(*(BY_NAME[name].labels for name in names & BY_NAME.keys()))
    return [*unknown, *sorted(labels - known)]


def test_every_expression_of_the_dashboard_names_metrics_and_labels_that_exist(polaris: Polaris) -> None:
    dashboard = polaris("export", "grafana").json
    found = expressions(dashboard)
    assert len(found) > 30
    assert {expression: wrong for expression in found if (wrong := wrong_with(expression))} == {}
    legends = [target["legendFormat"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    for expression, legend in zip(found, legends, strict=True):
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert wrong_with(f"{expression} by ({label})") == [], (expression, legend)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"]), "panels lie upon each other"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])


def test_a_metric_or_label_that_does_not_exist_is_found_out() -> None:
    assert wrong_with("polaris_deadletters_total") == ["polaris_deadletters_total"]
    assert wrong_with('polaris_dead_letters_total{tpoic="x"}') == ["tpoic"]
    assert wrong_with("sum by (system) (polaris_dead_letters_total)") == ["system"]
    assert wrong_with("sum by (reason, le) (rate(polaris_dead_letters_total[1m]))") == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read()) from None
    except OSError:
        return None


async def test_a_real_prometheus_answers_every_expression_from_a_real_node(polaris: Polaris, tmp_path: Path) -> None:
    witness = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1}
    systems = {"pump": {**witness, "options": {"journal": "pump.jsonl"}}}
    dashboard = polaris("export", "grafana").json
    assert polaris("export", "alerts", "-o", "alerts.yaml").code == 0
    async with a_node(tmp_path, {"systems": systems}) as node:
        assert Polaris(node.folder)("act", "pump", "poke").code == 0
        target = str(node.file.http_url).removeprefix("http://").strip("/")
        port = free_port()
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yaml]\n"
            f"scrape_configs: [{{job_name: polaris, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is missing: it comes with the package `prometheus`"
        arguments = [
            "--config.file=prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.path=tsdb",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            server = subprocess.Popen([program, *arguments], cwd=tmp_path, stdout=log, stderr=log)
        try:
            silent = await silent_expressions(port, expressions(dashboard))
            rules = await asyncio.to_thread(ask, port, "/api/v1/rules")
            metadata = await asyncio.to_thread(ask, port, "/api/v1/metadata")
        finally:
            server.terminate()
            server.wait(20)
    for expression in silent:
        assert set(re.findall(r"\bpolaris_\w+", expression)) <= NEVER_YET, f"a panel stays empty: {expression}"
    health = {rule["name"]: rule["health"] for group in rules["groups"] for rule in group["rules"]}
    assert len(health) > 15
    assert set(health.values()) == {"ok"}, health
    names = {
        metric_of(name) for expression in expressions(dashboard) for name in re.findall(r"polaris_\w+", expression)
    }
    assert {name for name in names if name not in metadata and name.removesuffix("_total") not in metadata} == set()


async def silent_expressions(port: int, wanted: list[str]) -> list[str]:
    """The expressions that give nothing yet although Prometheus has scraped for a while; wrong ones raise."""
    filled = {
        one: one.replace("$__rate_interval", "20s").replace("$instance", ".+").replace("$system", ".+")
        for one in wanted
    }
    deadline_s = time.monotonic() + 40
    silent = list(wanted)
    while time.monotonic() < deadline_s:
        answers = [await asyncio.to_thread(ask, port, "/api/v1/query", query=filled[one]) for one in silent]
        silent = [one for one, answer in zip(silent, answers, strict=True) if not answer or not answer["result"]]
        if all(set(re.findall(r"\bpolaris_\w+", one)) <= NEVER_YET or "== 1" in one for one in silent):
            return [one for one in silent if "== 1" not in one]
        await asyncio.sleep(1)
    return silent


def test_systemd_accepts_the_unit(polaris: Polaris, tmp_path: Path) -> None:
    folder = tmp_path / "a folder with 100% $PATH"
    folder.mkdir()
    (folder / "polaris.toml").write_text("")
    ended = Polaris(folder)("export", "systemd", "--user", "root", "-o", "polaris.service")
    assert (ended.code, ended.output) == (0, "")
    unit = (folder / "polaris.service").read_text()
    assert "User=root" in unit
    assert "100%% $$PATH/polaris.toml" in unit
    assert "TimeoutStopSec=20" in unit
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None, "systemd-analyze is missing: it comes with the package `systemd`"
    verify = subprocess.run(
        [analyze, "verify", "--man=no", str(folder / "polaris.service")], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stderr) == (0, "")


def test_the_compose_file_holds_what_prometheus_and_grafana_need(polaris: Polaris, tmp_path: Path) -> None:
    text = polaris("export", "compose").output
    assert f"polaris-infrastructure=={__version__}" in text
    assert "@{" not in text
    assert "\t" not in text
    embedded = dict(re.findall(r"^  (\w+):\n    content: \|\n((?:      .*\n|\n)+)", text, re.MULTILINE))
    assert list(embedded) == ["prometheus", "alerts", "datasource", "dashboards", "dashboard"]
    plain = {
        name: re.sub(r"^      ", "", body, flags=re.MULTILINE).replace("$$", "$") for name, body in embedded.items()
    }
    assert re.search(r"(?<!\$)\$(?!\$)", re.sub(r"\$\$", "", embedded["dashboard"])) is None
    assert json.loads(plain["dashboard"]) == polaris("export", "grafana").json
    assert plain["alerts"] == polaris("export", "alerts").output
    (tmp_path / "alerts.yaml").write_text(plain["alerts"])
    (tmp_path / "prometheus.yml").write_text(plain["prometheus"])
    promtool = shutil.which("promtool")
    assert promtool is not None
    checked = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_compose_file_keeps_to_the_schema_of_the_compose_specification(polaris: Polaris, tmp_path: Path) -> None:
    """Compose itself is not asked: that takes a container engine."""
    text = polaris("export", "compose").output

    def judged(text: str) -> tuple[int, str]:
        (tmp_path / "compose.yaml").write_text(text)
        tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
        ended = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stdout

    assert judged(text)[0] == 0
    code, told = judged(text.replace("stop_grace_period", "stop_grace_perod"))
    assert code == 1
    assert "stop_grace_perod" in told


async def test_the_openapi_document_is_the_one_that_a_node_answers(polaris: Polaris, tmp_path: Path) -> None:
    exported = polaris("export", "openapi").json
    assert exported["openapi"] == "3.1.0"
    async with a_node(tmp_path) as node:
        assert await node.get("openapi.json") == (200, exported)


def test_the_schema_of_the_settings_describes_them_and_refuses_what_is_wrong(polaris: Polaris) -> None:
    schema = polaris("export", "settings").json
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"http": {"port": 8080}, "systems": {"a": {"connector": "host"}}})
    assert not validator.is_valid({"http": {"prot": 8080}})
    assert not validator.is_valid({"http": {"port": "many"}})
    assert "Seconds between two samples." in json.dumps(schema)


def test_a_file_that_cannot_be_written_is_said_by_name(polaris: Polaris) -> None:
    ended = polaris("export", "alerts", "-o", f"no{os.sep}such{os.sep}folder.yaml")
    assert (ended.code, ended.output) == (2, "")
    assert "--output" in ended.complaint
