"""The message bus: typed events over brokers that move bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names
from polaris.messaging._broker import (
    MESSAGE_ID_HEADER,
    AckPolicy,
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
    Start,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._bus import PolarisMessageBus
from polaris.messaging._chain import MessageMiddleware, MiddlewareChain, NextHandler
from polaris.messaging._cloudevents import EventCodec, Undecodable
from polaris.messaging._content_encoding import unpacked
from polaris.messaging._context import MessageContext, MessageDirection, PayloadEncoding
from polaris.messaging._dead_letter_entry import DeadLetter, DeadLetterFilter, DeadLetterReason
from polaris.messaging._dead_letters import DeadLetterPage, DeadLetterRecord, DeadLetters
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging._handlers import EventHandler
from polaris.messaging._outage import OutageBuffer, WhenFull
from polaris.messaging._publish_account import PublishAccount
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
from polaris.messaging._wire_format import BATCH_CONTENT_TYPE, CONTENT_TYPE, WireFormat
from polaris.messaging.middleware import (
    CircuitBreakerMiddleware,
    CompressionMiddleware,
    CorrelationMiddleware,
    DeduplicationMiddleware,
    LoggingMiddleware,
    MetricsMiddleware,
    RateLimitMiddleware,
    RetryMiddleware,
    SeenIds,
    TracingMiddleware,
    ValidationMiddleware,
)

if TYPE_CHECKING:
    from polaris.messaging._asyncapi import asyncapi_document
    from polaris.messaging.brokers._embedded import EmbeddedNATSServer, ServerExit
    from polaris.messaging.brokers._embedded_config import EmbeddedNATSConfig
    from polaris.messaging.brokers._lanes import LanedMessageBroker
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
    "OutageBuffer",
    "WhenFull",
    "PublishAccount",
    "Receipt",
    "DeliveryClass",
    "AckPolicy",
    "EventHandler",
    "MessageContext",
    "MessageDirection",
    "MessageMiddleware",
    "MiddlewareChain",
    "NextHandler",
    "PayloadEncoding",
    "CorrelationMiddleware",
    "TracingMiddleware",
    "LoggingMiddleware",
    "MetricsMiddleware",
    "ValidationMiddleware",
    "DeduplicationMiddleware",
    "SeenIds",
    "RetryMiddleware",
    "CircuitBreakerMiddleware",
    "RateLimitMiddleware",
    "CompressionMiddleware",
    "MessageBroker",
    "InMemoryMessageBroker",
    "InMemoryHub",
    "NATSMessageBroker",
    "LanedMessageBroker",
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
    "Start",
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
    "DeadLetterFilter",
    "DeadLetterPage",
    "RequestFailure",
    "EventCodec",
    "WireFormat",
    "DecodedEvent",
    "Undecodable",
    "unpacked",
    "CONTENT_TYPE",
    "BATCH_CONTENT_TYPE",
    "asyncapi_document",
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

# Loaded when first used: the drivers behind the brokers are heavy, and a program uses one broker.
_LAZY = {
    "InMemoryHub": "brokers._memory_hub",
    "InMemoryMessageBroker": "brokers._memory",
    "NATSMessageBroker": "brokers._nats",
    "LanedMessageBroker": "brokers._lanes",
    "NATSConfig": "brokers._nats_config",
    "EmbeddedNATSServer": "brokers._embedded",
    "EmbeddedNATSConfig": "brokers._embedded_config",
    "ServerExit": "brokers._embedded",
    "TLSConfig": "brokers._nats_config",
    "asyncapi_document": "_asyncapi",
}

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
