"""The message bus: typed events over brokers that move bytes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from polaris.messaging._broker import (
    MESSAGE_ID_HEADER,
    Capabilities,
    ConnectionState,
    ConsumerInfo,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    PullConsumer,
    Receipt,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._bus import PolarisMessageBus
from polaris.messaging._chain import MessageMiddleware, MiddlewareChain, NextHandler
from polaris.messaging._cloudevents import BATCH_CONTENT_TYPE, CONTENT_TYPE, DecodedEvent, EventCodec, Undecodable
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._dead_letter_entry import DeadLetter, DeadLetterReason
from polaris.messaging._dead_letters import DeadLetterRecord, DeadLetters
from polaris.messaging._handlers import EventHandler
from polaris.messaging._redelivery import RedeliveryPolicy
from polaris.messaging._requests import RequestFailure
from polaris.messaging._streams import (
    ADAPTATIONS_STREAM,
    DEAD_LETTER_STREAM,
    EXECUTIONS_STREAM,
    STANDARD_STREAMS,
    TELEMETRY_STREAM,
)
from polaris.messaging._subjects import (
    CONFIG_TOPIC,
    adaptation_topic,
    dead_letter_topic,
    decode_token,
    encode_token,
    execution_topic,
    health_topic,
    telemetry_topic,
    topic_of,
    topic_pattern,
)
from polaris.messaging._subscription import Subscription, SubscriptionOptions, SubscriptionStats
from polaris.messaging.middleware import (
    CorrelationMiddleware,
    DeduplicationMiddleware,
    LoggingMiddleware,
    MetricsMiddleware,
    ValidationMiddleware,
)

if TYPE_CHECKING:
    from polaris.messaging.brokers._embedded import EmbeddedNATSServer, ServerExit
    from polaris.messaging.brokers._embedded_config import EmbeddedNATSConfig
    from polaris.messaging.brokers._memory import InMemoryMessageBroker
    from polaris.messaging.brokers._memory_hub import InMemoryHub
    from polaris.messaging.brokers._nats import NATSMessageBroker
    from polaris.messaging.brokers._nats_config import NATSConfig, TLSConfig

__all__ = [
    "PolarisMessageBus",
    "Subscription",
    "SubscriptionOptions",
    "SubscriptionStats",
    "RedeliveryPolicy",
    "Receipt",
    "DeliveryClass",
    "EventHandler",
    "MessageContext",
    "MessageDirection",
    "MessageMiddleware",
    "MiddlewareChain",
    "NextHandler",
    "CorrelationMiddleware",
    "DeduplicationMiddleware",
    "LoggingMiddleware",
    "MetricsMiddleware",
    "ValidationMiddleware",
    "MessageBroker",
    "InMemoryMessageBroker",
    "InMemoryHub",
    "NATSMessageBroker",
    "NATSConfig",
    "EmbeddedNATSServer",
    "EmbeddedNATSConfig",
    "ServerExit",
    "TLSConfig",
    "Capabilities",
    "ConnectionState",
    "ConsumerInfo",
    "ConsumerSpec",
    "Delivery",
    "OutgoingMessage",
    "PullConsumer",
    "StoredMessage",
    "StreamSpec",
    "MESSAGE_ID_HEADER",
    "STANDARD_STREAMS",
    "TELEMETRY_STREAM",
    "ADAPTATIONS_STREAM",
    "EXECUTIONS_STREAM",
    "DEAD_LETTER_STREAM",
    "DeadLetters",
    "DeadLetter",
    "DeadLetterReason",
    "DeadLetterRecord",
    "RequestFailure",
    "EventCodec",
    "DecodedEvent",
    "Undecodable",
    "CONTENT_TYPE",
    "BATCH_CONTENT_TYPE",
    "telemetry_topic",
    "adaptation_topic",
    "execution_topic",
    "health_topic",
    "CONFIG_TOPIC",
    "dead_letter_topic",
    "topic_of",
    "topic_pattern",
    "encode_token",
    "decode_token",
]

# Loaded when first used: the drivers behind them are heavy, and a program uses one broker.
_BROKERS = {
    "InMemoryHub": "_memory_hub",
    "InMemoryMessageBroker": "_memory",
    "NATSMessageBroker": "_nats",
    "NATSConfig": "_nats_config",
    "EmbeddedNATSServer": "_embedded",
    "EmbeddedNATSConfig": "_embedded_config",
    "ServerExit": "_embedded",
    "TLSConfig": "_nats_config",
}


def __getattr__(name: str) -> object:
    home = _BROKERS.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"polaris.messaging.brokers.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
