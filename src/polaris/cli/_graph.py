"""`polaris graph services`: the services of a node as configured, and what each of them needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polaris.cli import _exit
from polaris.cli._output import print_json
from polaris.di import DIContainer, ProviderKind, ServiceRegistration

if TYPE_CHECKING:
    from polaris.runtime import Settings


def show_services(settings: Settings, *, as_json: bool) -> int:
    """Print the wiring that `polaris run` would start, proved complete. Nothing is built, started or written."""
    from polaris.runtime._assembly import assemble

    container = assemble(settings)
    if as_json:
        print_json({"services": services_of(container)})
    else:
        print(container.graph(), end="")
    return _exit.OK


def services_of(container: DIContainer) -> list[dict[str, Any]]:
    """Every service in order of registration; `needs` holds names, in the order of the provider's parameters."""
    wiring = container.wiring
    return [
        {
            "name": one.name,
            "key": one.key if one.key is None or isinstance(one.key, str) else repr(one.key),
            "lifetime": one.lifetime,
            "provider": _provider_of(one),
            "needs": [need.name for need in wiring.needs(one)],
        }
        for one in wiring.registrations()
    ]


def _provider_of(registration: ServiceRegistration) -> str:
    """What makes the service, by its full name; of an object that is there already, its class."""
    provider = registration.provider
    if registration.kind is ProviderKind.INSTANCE or not hasattr(provider, "__qualname__"):
        provider = type(provider)
    return f"{provider.__module__}.{provider.__qualname__}"
