"""The middlewares that ship with the bus: one concern each."""

from polaris.messaging.middleware._correlation import CorrelationMiddleware
from polaris.messaging.middleware._deduplication import DeduplicationMiddleware
from polaris.messaging.middleware._logging import LoggingMiddleware
from polaris.messaging.middleware._metrics import MetricsMiddleware
from polaris.messaging.middleware._validation import ValidationMiddleware

__all__ = [
    "CorrelationMiddleware",
    "DeduplicationMiddleware",
    "LoggingMiddleware",
    "MetricsMiddleware",
    "ValidationMiddleware",
]
