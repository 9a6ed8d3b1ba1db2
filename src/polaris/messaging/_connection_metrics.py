"""The connection to the broker in the metrics: whether it is up, how often it came back, for how long it was away."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from polaris.clock import Clock
from polaris.messaging._broker import ConnectionState, MessageBroker
from polaris.messaging._weak_listening import listen_weakly
from polaris.messaging.brokers._lanes import LanedMessageBroker

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector

ONLY = "main"
"""The name of a connection without others beside it."""
CONNECTION_TYPE = "broker"


def show_connections(broker: MessageBroker, collector: MetricsCollector, *, clock: Clock) -> None:
    """Keep the metrics of every connection of `broker` true, for as long as it lives; each lane has its own.

    A connection is shown once in a collector, however many buses use it. A further one has a number to its name.
    """
    shown = _shown.setdefault(collector, WeakKeyDictionary())
    for name, lane in connections_of(broker).items():
        if lane not in shown:
            taken = {connection.name for connection in shown.values()}
            free = next(one for number in count(1) if (one := f"{name}-{number}" if number > 1 else name) not in taken)
            shown[lane] = _Connection(free, lane, collector, clock)


def connections_of(broker: MessageBroker) -> Mapping[str, MessageBroker]:
    """The connections of which the broker consists, by the name that they have in the metrics."""
    return broker.lanes if isinstance(broker, LanedMessageBroker) else {ONLY: broker}


class _Connection:
    """One connection in one collector. It goes on from what the series say of one that had its name before."""

    def __init__(self, name: str, broker: MessageBroker, collector: MetricsCollector, clock: Clock) -> None:
        self.name = name
        instruments = collector.instruments
        self._up = instruments.broker_connected(name)
        self._reconnects = instruments.broker_reconnects(name)
        self._open = collector.active_connections.labels(CONNECTION_TYPE)
        self._clock = clock
        self._connected = False
        self._lost_s: float | None = None
        away = instruments.broker_away_seconds(name)
        self._away_s = away.get()
        away.set_function(self._read_away_s)
        listen_weakly(broker, self._changed)
        self._changed(broker.state)

    def _changed(self, state: ConnectionState) -> None:
        connected = state is ConnectionState.CONNECTED
        if connected is not self._connected:
            self._connected = connected
            self._up.set(1.0 if connected else 0.0)
            self._open.inc(1.0 if connected else -1.0)
        if state is ConnectionState.RECONNECTING:
            self._lost_s = self._clock.monotonic() if self._lost_s is None else self._lost_s
        elif self._lost_s is not None:
            self._away_s += self._clock.monotonic() - self._lost_s
            self._lost_s = None
            if connected:
                self._reconnects.inc()

    def _read_away_s(self) -> float:
        lost_s = self._lost_s
        return self._away_s + (0.0 if lost_s is None else self._clock.monotonic() - lost_s)


_shown: WeakKeyDictionary[MetricsCollector, WeakKeyDictionary[MessageBroker, _Connection]] = WeakKeyDictionary()
