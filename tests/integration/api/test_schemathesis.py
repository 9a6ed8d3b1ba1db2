"""The API of a real node, asked by schemathesis what its own document says: good questions, bad ones, and odd ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.integration.api.foreign_questions import DEAD_LETTERS
from tests.nodes import ROOT, NodeUnderTest, a_node, eventually_true

# A stream never ends, and schemathesis waits for the end of an answer; they have tests of their own.
ENDLESS = ("/api/v1/stream", "/api/v1/tap")
EXAMPLES = 5


class Asked:
    """What came of a run: the exit code, what was said, and how each operation was answered, by status."""

    def __init__(self, ended: subprocess.CompletedProcess[str], report: Path) -> None:
        self.code = ended.returncode
        self.said = ended.stdout + ended.stderr
        self.answers: dict[str, Counter[int]] = {}
        for line in report.read_text().splitlines() if report.exists() else ():
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for case_id, interaction in recorder.get("interactions", {}).items():
                asked, answer = recorder["cases"].get(case_id), interaction["response"]
                if asked is not None and answer is not None:
                    name = f"{asked['value']['method'].upper()} {asked['value']['path']}"
                    self.answers.setdefault(name, Counter())[answer["status_code"]] += 1


def ask(folder: Path, address: str, *arguments: str) -> Asked:
    """Let schemathesis ask whoever answers there, always the same questions."""
    report = folder / "report.ndjson"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--generation-deterministic", "--no-shrink"),
        *("--exclude-checks", "positive_data_acceptance,not_a_server_error", "--request-timeout", "30", "--no-color"),
        *("--report-ndjson-path", str(report)),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "SCHEMATHESIS_HOOKS": "tests.integration.api.foreign_questions",
    }
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    return Asked(ended, report)


@contextlib.asynccontextmanager
async def node_with_content(folder: Path) -> AsyncIterator[NodeUnderTest]:
    """A node that knows a system with samples, and some dead letters."""
    pump = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1}
    systems = {"pump": {**pump, "options": {"journal": str(folder / "pump.jsonl")}}}
    async with a_node(folder, {"systems": systems}) as node:
        bus = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
        try:
            for number in range(DEAD_LETTERS):
                await bus.jetstream().publish("polaris.telemetry.web", b"\xff no event %d" % number)
        finally:
            await bus.close()

        async def all_there() -> bool:
            letters = (await node.get("api/v1/dead-letters"))[1]["dead_letters"]
            systems = (await node.get("api/v1/systems"))[1]["systems"]
            return len(letters) == DEAD_LETTERS and bool(systems) and bool(systems[0]["metrics"])

        await eventually_true(all_there, "samples and dead letters are there")
        await eventually_true(node.is_ready, "the node is ready")
        yield node


@pytest.mark.slow
async def test_a_real_node_answers_as_its_document_says_whatever_it_is_asked(tmp_path: Path) -> None:
    async with node_with_content(tmp_path) as node:
        left_out = [argument for path in ENDLESS for argument in ("--exclude-path", path)]
        token = ("--header", f"Authorization: Bearer {node.file.http_token}")
        asked = await asyncio.to_thread(ask, tmp_path, str(node.file.http_url), *left_out, *token)
        assert asked.code == 0, asked.said
        status, metrics = await node.get("metrics")
        assert status == 200
        document = (await node.get("openapi.json"))[1]
        untidy = node.untidy_lines()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path not in ENDLESS
    }
    assert set(operations) <= set(asked.answers), "an operation was not asked"
    for name, operation in operations.items():
        answers = asked.answers[name]
        assert any(200 <= status < 300 for status in answers), (name, answers)
        if "422" in operation["responses"]:
            assert answers[422], (name, answers)
    assert untidy == []
    failed = re.findall(r'polaris_http_requests_total\{method="\w+",route="([^"]+)",status="5xx"\} [1-9]', metrics)
    assert set(failed) <= {"/readyz"}


class Sloppy(BaseHTTPRequestHandler):
    """A node that breaks its word in three ways."""

    DOCUMENT: dict[str, Any] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answers: dict[str, tuple[int, Any]] = {
            "/openapi.json": (200, self.DOCUMENT),
            "/fails": (500, {}),
            "/surprises": (418, {}),
            "/lies": (200, {"name": 7}),
        }
        status, body = answers.get(path, (404, {}))
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def sloppy() -> Iterator[str]:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    answer = {"200": {"description": "It.", "content": {"application/json": {"schema": schema}}}}
    Sloppy.DOCUMENT = {
        "openapi": "3.1.0",
        "info": {"title": "Sloppy", "version": "1"},
        "paths": {path: {"get": {"responses": answer}} for path in ("/fails", "/surprises", "/lies")},
    }
    server = HTTPServer(("127.0.0.1", 0), Sloppy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_node_that_breaks_its_word_would_be_found_out(tmp_path: Path, sloppy: str) -> None:
    asked = ask(tmp_path, sloppy)
    assert asked.code == 1
    for operation, fault in (("fails", "ST101 Server error"), ("surprises", "ST103"), ("lies", "ST108")):
        section = re.search(rf"__ GET /{operation} __+\n(.*?)(\n__|\Z)", asked.said, re.DOTALL)
        assert section is not None, operation
        assert fault in section[1]
