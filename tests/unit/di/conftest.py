"""Every asynchronous test of this folder runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from polaris.di import DIContainer
from polaris.testing import VirtualClock, VirtualTimeLoop, running_clock


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
async def clock() -> VirtualClock:
    return running_clock()


@pytest.fixture
def container() -> DIContainer:
    return DIContainer()
