"""The middlewares that ship with the bus: one concern each."""

from polaris.messaging.middleware._circuit_breaker import CircuitBreakerMiddleware
from polaris.messaging.middleware._compression import CompressionMiddleware
from polaris.messaging.middleware._correlation import CorrelationMiddleware
from polaris.messaging.middleware._deduplication import DeduplicationMiddleware
from polaris.messaging.middleware._logging import LoggingMiddleware
from polaris.messaging.middleware._metrics import MetricsMiddleware
from polaris.messaging.middleware._rate_limit import RateLimitMiddleware
from polaris.messaging.middleware._retry import RetryMiddleware
from polaris.messaging.middleware._seen_ids import SeenIds
from polaris.messaging.middleware._tracing import TracingMiddleware
from polaris.messaging.middleware._validation import ValidationMiddleware

__all__ = [
    "CircuitBreakerMiddleware",
    "CompressionMiddleware",
    "CorrelationMiddleware",
    "DeduplicationMiddleware",
    "LoggingMiddleware",
    "MetricsMiddleware",
    "RateLimitMiddleware",
    "RetryMiddleware",
    "SeenIds",
    "TracingMiddleware",
    "ValidationMiddleware",
]
