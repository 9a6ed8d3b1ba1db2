"""What a node in memory shows of its inside: plain values that a test may change at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polaris.api import BreakerView, ComponentView, ConfigurationView, HealthReport, SettingView
from polaris.domain import HealthStatus


class LivingInspection:
    """An `Inspection` over plain attributes."""

    def __init__(self, components: Callable[[], Sequence[ComponentView]]) -> None:
        self._components = components
        self.breakers: list[BreakerView] = []
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
