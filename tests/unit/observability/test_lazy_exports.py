"""The package is cheap to import, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import polaris.observability as room


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from polaris.observability import correlation_scope", "structlog prometheus_client msgspec logging asyncio"),
        ("from polaris.observability import TraceContext", "structlog prometheus_client opentelemetry"),
        ("from polaris.observability import MetricsCollector", "structlog"),
        ("from polaris.observability import LoggingConfig", "structlog prometheus_client"),
        ("from polaris.observability import StructuredLogger", "prometheus_client"),
    ],
)
def test_a_name_brings_only_the_libraries_it_needs(statement: str, absent: str) -> None:
    program = f"import sys; {statement}; print([name for name in {absent!r}.split() if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    assert len(set(room.__all__)) == len(room.__all__)
    for name in room.__all__:
        assert getattr(room, name) is not None
        assert name in dir(room)
    assert set(room._HOMES) == set(room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        room.Nonsense  # noqa: B018
