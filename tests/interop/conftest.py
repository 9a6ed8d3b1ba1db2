"""The npm packages are there before the first test needs them."""

from __future__ import annotations

import pytest
from tests.interop import packages


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    packages.install()
