"""The endpoints that look into the node itself."""

from __future__ import annotations

from polaris.api._endpoints import Arguments, Context, Endpoint
from polaris.api._inspection_view import ConfigurationView, HealthReport


async def _health(context: Context, _: Arguments) -> HealthReport:
    """How everything does."""
    return context.view.inspection.health()


async def _configuration(context: Context, _: Arguments) -> ConfigurationView:
    """What the node was told, and where from."""
    return await context.view.inspection.configuration()


INSPECTION_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/v1/health",
        "health",
        "How the node and its parts do; of what is not well the cause and what to do, and the breakers that are open.",
        _health,
        HealthReport,
    ),
    Endpoint(
        "/api/v1/configuration",
        "configuration",
        "The settings in effect, each with where it comes from; secrets are masked.",
        _configuration,
        ConfigurationView,
    ),
)
