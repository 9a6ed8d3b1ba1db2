"""Whether the bus stores what is published: judged by what becomes of real publishes, and by a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import BusConnectionError, MessageBusError, PublishError, UnconfirmedPublishError
from polaris.messaging import (
    STANDARD_STREAMS,
    ConnectionState,
    DeliveryClass,
    MessageDirection,
    MessageMiddleware,
    OutgoingMessage,
    StreamSpec,
    topic_pattern,
)
from polaris.runtime._health import HealthBoard

if TYPE_CHECKING:
    from polaris.messaging import MessageBroker, MessageContext, NextHandler

COMPONENT = "bus storage"
PROBE_EVERY_S = 5.0
PROBE_AGAIN_S = 1.0
PROBE_TIMEOUT_S = 2.5
PROBES_FAILED_MAX = 2
"""So many failures in a row are more than a moment's pause of the server."""
STORE_NOT_MADE = 10_049
"""The number with which JetStream says that it tried to make a stream's files, and failed: no room, as a rule."""
OUTCOME_LASTS_S = 60.0
"""A failure that nobody repeats for so long says nothing any more of the stream."""

PROBE_STREAM = StreamSpec(
    name="POLARIS_PROBE", subjects=("polaris-probe.stored",), max_age_s=60.0, max_bytes=1 << 17, duplicate_window_s=1.0
)
"""Of the probe alone: its subject is in no family of topics, and nothing stays in it for longer than a minute."""
# Larger than a page: a full disk has no room for it, though it may have for a few bytes at the end of a file.
_PROBE = OutgoingMessage(PROBE_STREAM.subjects[0], bytes(8_192))
_PATTERNS = {
    topic_pattern(subject.replace(">", "x")): stream.name for stream in STANDARD_STREAMS for subject in stream.subjects
}


class PublishOutcomes(MessageMiddleware):
    """Remembers which streams have last failed to confirm a publish of this node. A success clears its stream.

    Every stream has a file store of its own, and one that could not be written refuses everything until the server is
    started again, while others go on.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction is not MessageDirection.PUBLISH or context.delivery is not DeliveryClass.AT_LEAST_ONCE:
            return await next_handler(context)
        try:
            result = await next_handler(context)
        except (UnconfirmedPublishError, PublishError) as error:
            if error.retryable is True:
                self._note(_stream_of(context.topic), error.message)
            raise
        if self._failed:
            self._failed.pop(_stream_of(context.topic), None)
        return result

    def _note(self, stream: str, reason: str) -> None:
        # The first reason stays: a new wording each time would be news each time.
        _, first_reason = self._failed.get(stream, (0.0, reason))
        self._failed[stream] = self._clock.monotonic(), first_reason

    def failing(self) -> dict[str, str]:
        """The streams that do not store, and what was said of the last publish to each."""
        fresh_s = self._clock.monotonic() - OUTCOME_LASTS_S
        self._failed = {name: failed for name, failed in self._failed.items() if failed[0] >= fresh_s}
        return {name: reason for name, (_, reason) in self._failed.items()}

    def forget(self) -> None:
        """The server is another one, or was started again: what is known is of the former."""
        self._failed.clear()


class StorageWatch:
    """Reports the component `bus storage`: unhealthy when publishes of the node, or two probes, were not confirmed.

    A probe is a small message to a tiny stream of its own every five seconds, every second while it fails. A server
    that does not allow the probe's stream is judged by publishes alone, with a warning; one that cannot make its files
    has failed the probe. While the connection is away, which the component `bus` tells, nothing is reported.
    """

    def __init__(
        self, broker: MessageBroker, board: HealthBoard, outcomes: PublishOutcomes, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._broker = broker
        self._board = board
        self._outcomes = outcomes
        self._clock = clock
        self._ensured = False
        self._failures = 0
        self._reason = ""

    def connected_anew(self) -> None:
        """What is known is of a former connection: the next look decides."""
        self._outcomes.forget()
        self._ensured = False
        self._failures = 0

    async def look_for_ever(self) -> None:
        """Look until cancelled."""
        while True:
            await self._clock.sleep(PROBE_AGAIN_S if self._failures or self._outcomes.failing() else PROBE_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Probe once, and report."""
        warning = ""
        if self._broker.state is ConnectionState.CONNECTED:
            warning = await self._probe()
        if self._broker.state is not ConnectionState.CONNECTED:
            self._failures = 0
            return
        failing = self._outcomes.failing()
        if failing:
            told = "; ".join(f"{stream}: {reason}" for stream, reason in sorted(failing.items()))
            self._board.report(COMPONENT, HealthStatus.UNHEALTHY, f"the bus cannot store: {told}")
        elif self._failures >= PROBES_FAILED_MAX:
            self._board.report(COMPONENT, HealthStatus.UNHEALTHY, f"the bus cannot store: {self._reason}")
        elif not self._failures:
            self._board.report(COMPONENT, HealthStatus.WARNING if warning else HealthStatus.HEALTHY, warning)

    async def _probe(self) -> str:
        """Publish the probe and count its failures in a row; a warning when the server does not allow it."""
        if not self._ensured:
            try:
                await self._broker.ensure_stream(PROBE_STREAM)
            except BusConnectionError:
                return ""
            except MessageBusError as error:
                if error.context.get("err_code") != STORE_NOT_MADE:
                    return f"storing cannot be probed: {error.message}"
                self._failed(error)
                return ""
            self._ensured = True
        try:
            await self._broker.publish(_PROBE, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=PROBE_TIMEOUT_S)
        except BusConnectionError:
            return ""
        except MessageBusError as error:
            # The stream may have been deleted, which the next look mends.
            self._ensured = False
            self._failed(error)
        else:
            self._failures = 0
        return ""

    def _failed(self, error: MessageBusError) -> None:
        self._failures += 1
        if self._failures == 1:
            self._reason = f"a probe failed: {error.message}"


def _stream_of(topic: str) -> str:
    return _PATTERNS.get(topic_pattern(topic), topic_pattern(topic))
