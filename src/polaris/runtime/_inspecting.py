"""Puts together what looks into a node."""

from __future__ import annotations

from polaris.di import DIContainer, ServiceLifetime
from polaris.messaging import MessageBroker
from polaris.observability import StructuredLogger
from polaris.runtime._brokers import broker_of_taps
from polaris.runtime._bus_host import BusHost
from polaris.runtime._bus_survey import BusSurvey
from polaris.runtime._effective import Origination
from polaris.runtime._health import HealthBoard
from polaris.runtime._inspection import RuntimeInspection
from polaris.runtime._settings import Settings
from polaris.runtime._taps import Taps


def bus_survey(broker: MessageBroker, board: HealthBoard) -> BusSurvey:
    return BusSurvey(broker, board, StructuredLogger("polaris.inspection"))


def inspection(
    settings: Settings, origination: Origination, board: HealthBoard, survey: BusSurvey, taps: Taps
) -> RuntimeInspection:
    return RuntimeInspection(settings, origination, board, survey, taps)


def taps(settings: Settings) -> Taps:
    return Taps(broker_of_taps(settings), own_broker=True)


def taps_of_host(settings: Settings, host: BusHost) -> Taps:
    return Taps(broker_of_taps(settings, host), own_broker=True)


def register_inspecting(container: DIContainer, settings: Settings) -> None:
    """Add all of it to the container of a node."""
    container.register_factory(BusSurvey, bus_survey, lifetime=ServiceLifetime.SINGLETON)
    container.register_factory(
        Taps, taps if settings.nats.servers else taps_of_host, lifetime=ServiceLifetime.SINGLETON
    )
    container.register_factory(RuntimeInspection, inspection, lifetime=ServiceLifetime.SINGLETON)
