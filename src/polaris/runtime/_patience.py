"""How long the runtime waits for a store that is away: until it is back, since nobody else can take what it holds."""

from __future__ import annotations

from polaris.exceptions import DataStoreError
from polaris.resilience import RetryConfig

UNTIL_STORED = RetryConfig(
    max_attempts=1_000_000_000, base_delay=0.1, max_delay=5.0, jitter="equal", retryable=(DataStoreError,)
)
"""For writes that are safe to repeat. Errors that no repetition changes, such as a conflict, are raised at once."""

REDELIVERY_AFTER_S = 5.0
"""How long what a killed node had in its hands waits before the bus delivers it again; heartbeats keep it meanwhile."""

DELIVERIES_MAX = 20
"""How often a message is delivered before it is put aside: a node that is killed again and again is not its fault."""
