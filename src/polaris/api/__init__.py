"""The HTTP side of a node: JSON API, health, metrics and live updates over a `NodeView`.

The view's types load at once and are light; `create_app` and `HttpServer` load the web framework when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names
from polaris.api._bus_view import BusView, ConsumerView, PublishedView, StreamsView, StreamView, SubscriptionView
from polaris.api._commands import ActionRequest, DeadLetterDetails, DeadLetterView, NodeCommands
from polaris.api._history_view import HealthPeriod, KeptHealth, PeriodFilter, PeriodKey
from polaris.api._hosts import hosts_for, is_loopback
from polaris.api._inspection_view import BreakerView, ConfigurationView, HealthReport, Inspection, SettingView
from polaris.api._live import LiveFeed, LiveSubscription
from polaris.api._tap_view import Tap, TappedEvent
from polaris.api._view import (
    ActionKey,
    ActionRecord,
    Aggregates,
    AggregationName,
    Check,
    ComponentView,
    DependencyKey,
    LiveUpdate,
    NodeFacts,
    NodeRates,
    NodeView,
    Reading,
    SampleBooks,
    SampleUpdate,
    Series,
    SystemView,
    Verdict,
)

if TYPE_CHECKING:
    from polaris.api._access import Access
    from polaris.api._app import create_app
    from polaris.api._server import HttpServer

_HOMES = {
    "create_app": "_app",
    "Access": "_access",
    "HttpServer": "_server",
}

__all__ = [
    "create_app",
    "hosts_for",
    "is_loopback",
    "Access",
    "HttpServer",
    "NodeCommands",
    "ActionRequest",
    "DeadLetterView",
    "DeadLetterDetails",
    "NodeView",
    "LiveFeed",
    "LiveSubscription",
    "LiveUpdate",
    "NodeFacts",
    "NodeRates",
    "Verdict",
    "Check",
    "ComponentView",
    "SystemView",
    "SampleBooks",
    "KeptHealth",
    "HealthPeriod",
    "PeriodFilter",
    "PeriodKey",
    "Inspection",
    "HealthReport",
    "BreakerView",
    "ConfigurationView",
    "SettingView",
    "BusView",
    "Tap",
    "TappedEvent",
    "StreamsView",
    "StreamView",
    "ConsumerView",
    "PublishedView",
    "SubscriptionView",
    "Reading",
    "SampleUpdate",
    "Series",
    "Aggregates",
    "AggregationName",
    "ActionRecord",
    "ActionKey",
    "DependencyKey",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
