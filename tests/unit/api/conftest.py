"""An app over a node in memory, asked without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx2
import pytest
from starlette.applications import Starlette
from tests.living_view import LivingView

from polaris.api import create_app
from polaris.testing import VirtualClock

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def view() -> LivingView:
    return LivingView(now=NOW, history_s=120)


@pytest.fixture
def app(view: LivingView) -> Starlette:
    return create_app(view, clock=VirtualClock(wall=NOW))


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client
