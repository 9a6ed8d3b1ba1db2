"""Says whether what one owner registered can be taken away without hurting anybody else."""

from __future__ import annotations

from polaris.di._registration import MISSING, ServiceLifetime, ServiceRegistration
from polaris.di._registry import Registry
from polaris.di._validation import find_problems
from polaris.di._wiring import Wiring
from polaris.exceptions import DependencyInjectionError, ServiceNotRegisteredException


def refuse_unload(wiring: Wiring, registry: Registry, owner: str) -> None:
    """Raise DependencyInjectionError if a service of somebody else holds, decorates or needs one of the owner's."""
    everything = wiring.registrations()
    mine = {one for one in everything if one.owner == owner}
    for one in everything:
        if one.owner != owner and one.decorates in mine:
            raise _refusal(owner, f"{one.name} is decorated by somebody else")
        if one.owner != owner and _is_live(wiring, one):
            chain = wiring.path_to(one, lambda need: need in mine)
            if len(chain) > 1:
                raise _refusal(owner, f"{one.name} is alive and holds {chain[-1].name}")
    before = _missing(wiring)
    after = _missing(Wiring(registry.without(owner), wiring.root, (), wiring.built_ins, wiring.scoped_built_ins))
    lost = sorted(after - before)
    if lost:
        raise _refusal(owner, f"{lost[0][0]} would lose {lost[0][1]}")


def _is_live(wiring: Wiring, registration: ServiceRegistration) -> bool:
    return registration.lifetime is ServiceLifetime.SINGLETON and wiring.held(registration) is not MISSING


def _missing(wiring: Wiring) -> set[tuple[str, str]]:
    problems = find_problems(wiring)
    return {(one.path[-1], one.service) for one in problems if isinstance(one, ServiceNotRegisteredException)}


def _refusal(owner: str, reason: str) -> DependencyInjectionError:
    return DependencyInjectionError(f"{owner} cannot be unloaded: {reason}")
