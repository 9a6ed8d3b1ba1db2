"""The public names of the room, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import polaris.messaging


def test_importing_the_room_loads_no_driver() -> None:
    code = (
        "import sys, polaris.messaging as m\n"
        "heavy = {'nats', 'apsw', 'structlog', 'prometheus_client', 'starlette', 'psutil'}\n"
        "heavy |= {'zstandard', 'opentelemetry'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'polaris.messaging.brokers._memory' not in sys.modules\n"
        "m.InMemoryMessageBroker\n"
        "assert 'nats' not in sys.modules\n"
        "m.NATSConfig\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", polaris.messaging.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(polaris.messaging, name) is not None
    assert name in dir(polaris.messaging)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = polaris.messaging.Nothing
