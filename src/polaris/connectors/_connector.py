"""The port between POLARIS and one managed system: read its state, change it, say how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import msgspec

from polaris.domain import AdaptationAction, ExecutionResult, HealthStatus, SystemState


class ActionDescription(msgspec.Struct, frozen=True):
    """One thing a managed system can be asked to do: its name, a sentence, and the JSON Schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]


class ConnectorHealth(msgspec.Struct, frozen=True):
    """How a connector and its way to the system stand, with the reason in one sentence.

    It is about reaching the system. How the system itself is doing is `SystemState.health_status`.
    """

    status: HealthStatus
    message: str = ""


@runtime_checkable
class ManagedSystemConnector(Protocol):
    """The way to one managed system.

    Life: made unconnected, by its constructor or by `from_options`, without touching the system. Whoever calls
    `connect` also calls `disconnect`, in every case; a connector never disconnects itself. After `disconnect` it may be
    connected again. All calls belong to one event loop and may overlap; the connector puts in order what must not.

    A connector never blocks the event loop, bounds everything it keeps, and keeps no task, thread, socket or file
    after `disconnect` (a blocking call of the operating system that hangs keeps its daemon thread until it returns).
    Cancelling a call stops it at its next await and leaves the connector usable.
    """

    @property
    def system_id(self) -> str:
        """The managed system this connector leads to."""
        ...

    async def connect(self) -> None:
        """Make the system readable and changeable. Connecting a connected connector does nothing.

        Raises `ConnectorError` when the system is not there, `ConfigurationError` when it is not what the options say;
        then, and when cancelled, the connector is unconnected and holds nothing.
        """
        ...

    async def disconnect(self) -> None:
        """Let go of everything; the managed system itself goes on as it is.

        An action that is being carried out may end first, in its own time. Never raises because the system is gone.
        Doing it twice, or without `connect`, does nothing.
        """
        ...

    async def collect_metrics(self) -> SystemState:
        """The state of the system now.

        What could not be read is a reading of quality `missing`, or absent; it is never 0 and never an older value
        passed off as new. No two states of one connector bear the same timestamp. Raises `ConnectorError` when not
        connected or when the system as a whole could not be read.
        """
        ...

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        """Carry the action out once and return what came of it, with a final status.

        An exception means that *nothing was done* to the system: `ActionNotSupportedError` for an unknown type, refused
        parameters or another system's action; `ConnectorError` when the system cannot be reached. From the first effect
        on the outcome is a result: `success`, `partial`, `failed`, `timeout` (asked for, not seen to happen in time),
        or `unknown`. `rejected` is the result of an action that the connector's guards forbid now; nothing was done.
        When the call is cancelled its outcome is unknown, unless the connector can recall it (`RecallsActions`).

        The connector executes what it is given; that no action id is executed twice is the business of the caller.
        """
        ...

    def supported_actions(self) -> Sequence[ActionDescription]:
        """What can be asked of the system; the same answer at any time, connected or not."""
        ...

    async def health(self) -> ConnectorHealth:
        """How the way to the system stands now: cheap, never raises, `unknown` while unconnected."""
        ...


@runtime_checkable
class RecallsActions(Protocol):
    """What a connector offers in addition when it can tell by its id whether an action was carried out."""

    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        """What is known of an action whose execution was cut off.

        A result with a final status: it was carried out, and this came of it. A result with the status `pending`: it
        was certainly not begun, and executing it is safe. None: nobody can tell. Works connected and unconnected, and
        changes nothing.
        """
        ...


@runtime_checkable
class ConnectorType(Protocol):
    """What an entry point of the group `polaris.connectors` leads to: a class that makes connectors from options."""

    summary: ClassVar[str]
    """One sentence for listings."""
    options_type: ClassVar[type[msgspec.Struct]]
    """The options with their types, limits and defaults; their JSON Schema is generated from it."""

    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> ManagedSystemConnector:
        """A connector, not yet connected. Raises `ConfigurationError` whose `problems` list every mistake."""
        ...


class ConnectorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One managed system as configured: its id, the name of its connector, and that connector's options."""

    system_id: str
    connector: str
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def build(self) -> ManagedSystemConnector:
        """The connector, not yet connected. Raises `ConfigurationError` with every mistake found."""
        from polaris.connectors._discovery import find_connector

        return find_connector(self.connector).from_options(self.system_id, self.options)


class ConnectorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What options types derive from: immutable, by keyword, unknown keys refused.

    The default of every optional field is one that makes sense without a second thought.
    """

    def problems(self) -> Sequence[str]:
        """Mistakes that only several fields together show, each as `key: what is wrong`."""
        return ()

    @classmethod
    def read(cls, options: Mapping[str, object]) -> Self:
        """The options, checked as a whole. Raises `ConfigurationError` whose `problems` list every mistake."""
        from polaris.connectors._options import read_options

        return read_options(cls, options)
