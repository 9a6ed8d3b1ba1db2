"""The node's own inside as the API shows it, and what it asks of whoever looks into it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from polaris.api._bus_view import StreamsView
from polaris.api._tap_view import Tap
from polaris.api._view import ComponentView
from polaris.domain import HealthStatus


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit breaker that is not closed."""

    name: str
    state: str
    """`open`, `half_open` or `isolated`."""
    consecutive_failures: int
    rejected_total: int
    """Calls that it refused, since the node began."""
    retry_after_s: float | None = None
    """Until it lets a call through to see; None when it does already, or only somebody can close it."""
    remedy: str = ""
    """What to do."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the node does, and of everything that is not well the cause and what to do."""

    ready: bool
    health_status: HealthStatus
    message: str
    """Why the node is not healthy, in words; empty when it is."""
    components: tuple[ComponentView, ...]
    """All of them; `message` is the cause."""
    breakers: tuple[BreakerView, ...] = ()


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it is in effect."""

    key: str
    """As TOML writes it."""
    value: Any
    """A secret shows as `[redacted]`, or null when there is none."""
    source: Literal["default", "file", "environment", "command line", "secret file", "program"]
    """`secret file`: the one that a `..._file` setting names. `program`: whoever made the node made the settings."""
    origin: str = ""
    """The file as it was given, or the variable."""
    default: Any = None
    """None also where there is no default."""
    is_secret: bool = False
    description: str = ""


class ConfigurationView(msgspec.Struct, frozen=True, kw_only=True):
    """What the node was told, and where from."""

    settings: tuple[SettingView, ...]
    left_out: int = 0
    """More than are shown."""
    file: str | None = None
    """The configuration file as it was given; None without one."""
    facts: dict[str, str] = {}
    """About the process: where its data is, on what it runs."""


class Inspection(Protocol):
    """Who looks into a node: its health, configuration and broker, and what passes on the bus. Changes nothing."""

    @property
    def dead_letters(self) -> int | None:
        """How many messages waited in the dead-letter stream a moment ago; None when the broker cannot tell."""
        ...

    def health(self) -> HealthReport:
        """How everything does, from memory."""
        ...

    async def configuration(self) -> ConfigurationView:
        """The settings in effect, with every secret masked."""
        ...

    async def streams(self) -> StreamsView:
        """What the broker holds. It is asked at most once a second, however many ask for it here.

        Raises `BusConnectionError` when it does not answer in time.
        """
        ...

    async def tap(self, pattern: str) -> Tap:
        """Begin to look on at what passes on the subjects of `pattern`, which comes checked. Whoever asked closes it.

        Raises `BulkheadRejectedException` when enough people look on, and `MessageBusError` when the bus is away.
        """
        ...
