"""What a node in memory shows of its inside: plain values that a test may change at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from polaris.api import (
    BreakerView,
    ComponentView,
    ConfigurationView,
    ConsumerView,
    HealthPeriod,
    HealthReport,
    PeriodFilter,
    PeriodKey,
    SettingView,
    StreamsView,
    StreamView,
    Tap,
)
from polaris.domain import HealthStatus, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError
from polaris.messaging import EventCodec, InMemoryMessageBroker, OutgoingMessage, telemetry_topic
from polaris.runtime._taps import Taps

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STORE_TELEMETRY = ConsumerView(
    name="store-telemetry",
    patterns=("polaris.telemetry.>",),
    ack="all",
    durable=True,
    pending=3,
    unacknowledged=2,
    redelivered=0,
    in_flight_max=1024,
    last_active_at=NOW,
)


class LivingHealth:
    """A `KeptHealth` over a list, the newest period first."""

    def __init__(self, *periods: HealthPeriod) -> None:
        self.all = list(periods)

    async def periods(
        self, wanted: PeriodFilter, *, limit: int, before: PeriodKey | None
    ) -> list[tuple[PeriodKey, HealthPeriod]]:
        keyed = [(PeriodKey(int(one.since.timestamp() * 1e6), one.period_id), one) for one in self.all]
        return [
            (key, one)
            for key, one in sorted(keyed, key=lambda pair: (pair[0].since_us, pair[0].period_id), reverse=True)
            if wanted.system_id in (None, one.system_id)
            and wanted.component in (None, one.component)
            and (one.until is None or not wanted.lasting_only)
            and (wanted.start is None or one.until is None or one.until > wanted.start)
            and (wanted.end is None or one.since < wanted.end)
            and (before is None or (key.since_us, key.period_id) < (before.since_us, before.period_id))
        ][:limit]


class LivingInspection:
    """An `Inspection` over plain attributes."""

    def __init__(self, components: Callable[[], Sequence[ComponentView]]) -> None:
        self._components = components
        self.breakers: list[BreakerView] = []
        self.dead_letters: int | None = 0
        self.broker = InMemoryMessageBroker()
        """What passes on it can be tapped, once it is connected."""
        self.taps = Taps(self.broker)
        self._codec = EventCodec()
        self.mute = False
        """Whether the broker does not answer."""
        self.stream = StreamView(
            name="POLARIS_TELEMETRY",
            subjects=("polaris.telemetry.>",),
            messages=1200,
            bytes=640_000,
            bytes_max=1 << 30,
            age_max_s=86_400.0,
            first_sequence=1,
            last_sequence=1200,
            first_at=NOW - timedelta(hours=2),
            last_at=NOW,
            replicas=1,
            consumers=(STORE_TELEMETRY,),
            consumers_total=1,
        )
        self.settings = [
            SettingView(
                key="node.name", value="atlas", source="file", origin="polaris.toml", description="This process."
            ),
            SettingView(key="http.port", value=None, source="default"),
            SettingView(
                key="nats.token", value="[redacted]", source="environment", origin="POLARIS_NATS__TOKEN", is_secret=True
            ),
        ]

    def health(self) -> HealthReport:
        components = tuple(self._components())
        failing = [f"{part.name}: {part.message}" for part in components if part.status is not HealthStatus.HEALTHY]
        return HealthReport(
            ready=not failing,
            health_status=HealthStatus.UNHEALTHY if failing else HealthStatus.HEALTHY,
            message="; ".join(failing),
            components=components,
            breakers=tuple(self.breakers),
        )

    async def configuration(self) -> ConfigurationView:
        return ConfigurationView(settings=tuple(self.settings), file="polaris.toml", facts={"Python": "3.11.2"})

    async def streams(self) -> StreamsView:
        if self.mute:
            raise BusConnectionError("no answer")
        return StreamsView(asked_at=NOW, streams=(self.stream,), streams_total=1)

    async def tap(self, pattern: str) -> Tap:
        return await self.taps.open(pattern)

    async def let_pass(self, state: SystemState) -> None:
        """Publish the state, for whoever taps the bus."""
        payload = self._codec.encode(TelemetryEvent(state, source="polaris/atlas"))
        await self.broker.publish(OutgoingMessage(telemetry_topic(state.system_id), payload))
