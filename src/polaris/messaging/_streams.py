"""The streams every POLARIS node keeps, and which topics they hold."""

from __future__ import annotations

from polaris.messaging._broker import GIVEN_UP_PREFIX, StreamSpec
from polaris.messaging._subjects import ADAPTATION_PREFIX, DEAD_LETTER_PREFIX, EXECUTION_PREFIX, TELEMETRY_PREFIX

DAY_S = 86_400.0

TELEMETRY_STREAM = StreamSpec(
    name="POLARIS_TELEMETRY", subjects=(TELEMETRY_PREFIX + ">",), max_age_s=DAY_S, max_bytes=1 << 30
)
"""A day or 1 GiB: the store keeps telemetry, the stream carries it there and survives an outage of the store."""

ADAPTATIONS_STREAM = StreamSpec(
    name="POLARIS_ADAPTATIONS", subjects=(ADAPTATION_PREFIX + ">",), max_age_s=7 * DAY_S, max_bytes=1 << 28
)
"""A week or 256 MiB."""

EXECUTIONS_STREAM = StreamSpec(
    name="POLARIS_EXECUTIONS", subjects=(EXECUTION_PREFIX + ">",), max_age_s=7 * DAY_S, max_bytes=1 << 28
)
"""A week or 256 MiB."""

DEAD_LETTER_STREAM = StreamSpec(
    name="POLARIS_DEAD_LETTER", subjects=(DEAD_LETTER_PREFIX + ">",), max_age_s=30 * DAY_S, max_bytes=1 << 28
)
"""A month or 256 MiB."""

ADVISORY_STREAM = StreamSpec(
    name="POLARIS_ADVISORIES", subjects=(GIVEN_UP_PREFIX + ">",), max_age_s=7 * DAY_S, max_bytes=1 << 26
)
"""A week or 64 MiB of what the broker announces once and to whoever listens; see `GivenUpWatch`."""

STANDARD_STREAMS = (TELEMETRY_STREAM, ADAPTATIONS_STREAM, EXECUTIONS_STREAM, DEAD_LETTER_STREAM)
"""What `PolarisMessageBus.start` ensures. Health and configuration travel on core NATS and are stored by nobody."""
