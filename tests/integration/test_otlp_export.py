"""OTLP over HTTP by the standard variables: received by an independent collector, and no trouble when it is away."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.nodes import a_node, eventually

from polaris.domain import AdaptationAction, AdaptationEvent
from polaris.messaging import adaptation_topic
from polaris.observability import trace_of

CONNECTOR = "tests.witness_connector:WitnessConnector"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Received:
    """What a collector handed on: spans by name, and the resource that they belong to."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[str, str]]] = {}
        self.resources: set[tuple[str, str]] = set()
        self.requests = 0

    def take(self, body: bytes) -> None:
        self.requests += 1
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources |= {(one.key, one.value.string_value) for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.setdefault(span.name, []).append((span.trace_id.hex(), span.parent_span_id.hex()))


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    """An HTTP server that takes what the collector sends on."""
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            received.take(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", received
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def rotel(folder: Path, hands_on_to: str) -> Iterator[str]:
    """The independent collector, on a port of its own."""
    found = importlib.util.find_spec("rotel")
    assert found is not None, "the collector of the tests is missing: the package rotel"
    assert found.origin is not None
    http_port, grpc_port = free_port(), free_port()
    command = [
        str(Path(found.origin).parent / "rotel-agent"),
        "start",
        *("--otlp-http-endpoint", f"127.0.0.1:{http_port}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"),
        *("--exporter", "otlp", "--otlp-exporter-endpoint", hands_on_to, "--otlp-exporter-protocol", "http"),
    ]
    with (folder / "rotel.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            assert process.poll() is None, (folder / "rotel.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", http_port), 1):
                break
            assert time.monotonic() < deadline_s, (folder / "rotel.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{http_port}"
    finally:
        process.terminate()
        process.wait(20)


async def test_an_independent_collector_receives_the_whole_trace(tmp_path: Path) -> None:
    pump = {"connector": CONNECTOR, "options": {"journal": str(tmp_path / "pump.jsonl")}}
    with receiver() as (address, received), rotel(tmp_path, address) as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_RESOURCE_ATTRIBUTES": "deployment=test"}
        settings = {"systems": {"pump": pump}, "tracing": {"ratio": 0.0}}
        async with a_node(tmp_path, settings, environment=environment) as node:
            event = AdaptationEvent(AdaptationAction("a-1", "poke", "pump"), source="me")
            async with node.bus() as bus:
                await bus.publish(adaptation_topic("pump"), event)
            wanted = {"decide", "execute action", "attempt action", "publish polaris.executions.*"}
            await eventually(lambda: wanted <= set(received.spans), "the trace has arrived")
            assert await node.stop() == 0
    assert {trace_id for name in wanted for trace_id, _ in received.spans[name]} == {trace_of(event.event_id).trace_id}
    assert received.spans["decide"][0][1] == "", "the decision began the trace"
    assert {("service.name", "polaris"), ("deployment", "test")} <= received.resources


async def test_a_collector_that_is_away_or_deaf_holds_up_neither_the_node_nor_its_end(tmp_path: Path) -> None:
    pump = {"connector": CONNECTOR, "interval_s": 0.2, "options": {"journal": str(tmp_path / "pump.jsonl")}}
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)  # takes connections and never answers
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        settings = {"systems": {"pump": pump}, "tracing": {"ratio": 1.0}}
        async with a_node(tmp_path, settings, environment=environment) as node:
            async with node.bus() as bus:
                await bus.publish(
                    adaptation_topic("pump"), AdaptationEvent(AdaptationAction("a-1", "poke", "pump"), source="me")
                )
            journal = tmp_path / "pump.jsonl"
            await eventually(lambda: journal.exists() and "end" in journal.read_text(), "the action is carried out")
            began_s = time.monotonic()
            node.send(signal.SIGINT)
            assert await node.ended() == 0
            assert time.monotonic() - began_s < 12
            assert node.untidy_lines() == []
