"""The driver, asyncpg, as this package uses it; nothing else imports it. It ships no types."""

from __future__ import annotations

import asyncpg  # type: ignore[import-untyped]
from asyncpg import exceptions as driver_errors

__all__ = ["asyncpg", "driver_errors"]
