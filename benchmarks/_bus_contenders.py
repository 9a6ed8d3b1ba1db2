"""Who takes part in the benchmark of the bus, table by table.

A server cuts off a subscriber for whom more than 64 MiB wait: what a round sends over core NATS stays below that,
unless its subscriber is known to be as quick as its publisher.
"""

from __future__ import annotations

from typing import NamedTuple


class Contender(NamedTuple):
    """Who takes part, how many times the events it gets (a round should take a while), and where it is written."""

    label: str
    times: float
    module: str


RECEIVED = {
    "libnats": Contender("C libnats, raw bytes", 10, "libnats"),
    "raw": Contender("nats-py, raw bytes", 4, "_bus_hand"),
    "hand": Contender("nats-py, typed by hand (msgspec)", 3, "_bus_hand"),
    "hand-headers": Contender("nats-py, full chain by hand, ids in headers", 2, "_bus_hand"),
    "hand-chain": Contender("nats-py, full chain by hand, CloudEvents", 2, "_bus_hand"),
    "faststream": Contender("FastStream, typed (pydantic)", 1, "_bus_faststream"),
    "faststream-full": Contender("FastStream, full chain", 0.5, "_bus_faststream"),
    "polaris": Contender("POLARIS, typed", 2, "_bus_polaris"),
    "polaris-full": Contender("POLARIS, full chain", 2, "_bus_polaris"),
}
BATCHED = {
    "polaris-many-100": Contender("publish_many, 100 events a message, batch handler", 4, "_bus_polaris"),
    "polaris-many-512": Contender("publish_many, 512 events a message, batch handler", 4, "_bus_polaris"),
    "polaris-columns": Contender("100 samples a TelemetryBatch, handled as columns", 15, "_bus_polaris"),
    "polaris-states": Contender("100 samples a TelemetryBatch, read as 100 states", 10, "_bus_polaris"),
}
PROTOTYPES = {
    "prototype": Contender("the prototype, raw bytes", 6, "_bus_prototype"),
    "polaris-prototype": Contender("POLARIS, full chain, on the prototype", 2, "_bus_polaris"),
}
STORED = {
    "libnats-store": Contender("C libnats, raw, 4096 in flight", 5, "libnats"),
    "nats-py-256": Contender("nats-py, raw, 256 in flight", 1, "_bus_stored"),
    "nats-py-4096": Contender("nats-py, raw, 4096 in flight", 1, "_bus_stored"),
    "polaris-many": Contender("POLARIS publish_many, 100 events a message", 8, "_bus_polaris"),
    "polaris-store-columns": Contender("POLARIS, 100 samples a TelemetryBatch", 20, "_bus_polaris"),
    "polaris-telemetry-64": Contender("POLARIS publish_telemetry, 64 tasks, one system", 2, "_bus_polaris"),
    "polaris-telemetry-256": Contender("POLARIS publish_telemetry, 256 tasks, one system", 3, "_bus_polaris"),
    "polaris-telemetry-256x256": Contender("POLARIS publish_telemetry, 256 tasks, a system each", 1, "_bus_polaris"),
}
CONSUMED = {
    "libnats-fetch": Contender("C libnats, raw, fetch 1024", 1, "libnats"),
    "nats-py-pull": Contender("nats-py, raw, fetch 1024", 1, "_bus_stored"),
    "faststream-pull": Contender("FastStream, full chain, pull 1024", 0.25, "_bus_faststream"),
    "polaris-single": Contender("POLARIS, full chain, durable, single handler", 1, "_bus_polaris"),
    "polaris-batch": Contender("POLARIS, full chain, durable, batch handler", 1, "_bus_polaris"),
    "polaris-batches": Contender("the same, 100 events a message", 5, "_bus_polaris"),
    "polaris-consumed-columns": Contender(
        "POLARIS, full chain, durable, 100 samples a TelemetryBatch", 10, "_bus_polaris"
    ),
}
BOTH_WAYS = {
    "polaris-stored": Contender("POLARIS, 100 events a message, acknowledged both ways", 5, "_bus_polaris"),
    "polaris-stored-columns": Contender(
        "POLARIS, 100 samples a TelemetryBatch, acknowledged both ways", 10, "_bus_polaris"
    ),
}
LATENCY = {
    "raw-paced": Contender("nats-py, raw bytes", 1, "_bus_hand"),
    "hand-paced": Contender("nats-py, full chain by hand, CloudEvents", 1, "_bus_hand"),
    "faststream-paced": Contender("FastStream, full chain", 1, "_bus_faststream"),
    "polaris-paced": Contender("POLARIS, full chain", 1, "_bus_polaris"),
    "polaris-stored-paced": Contender("POLARIS, full chain, publish_telemetry, stored", 1, "_bus_polaris"),
}
MEMORY = {
    "polaris": Contender("POLARIS, full chain, in-memory broker", 2, "_bus_polaris"),
    "polaris-typed": Contender("POLARIS, typed", 2, "_bus_polaris"),
    "polaris-lists": Contender("POLARIS, full chain, 100 events a message, batch handler", 8, "_bus_polaris"),
    "faststream": Contender("FastStream, full chain, broker for tests", 0.2, "_bus_faststream"),
}
FILLERS = {"polaris-batches": "fill-batches", "polaris-consumed-columns": "fill-columns"}
"""What those read that do not read one event a message."""
NATIVE = {"libnats": ("pub", "sub"), "libnats-store": ("store", ""), "libnats-fetch": ("", "fetch")}
