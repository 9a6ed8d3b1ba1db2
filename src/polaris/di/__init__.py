"""Dependency injection: services wired from annotations, built once, started and stopped in dependency order."""

from polaris.di._container import DIContainer
from polaris.di._injectable import Injectable
from polaris.di._override import Override
from polaris.di._registration import Dependency, Key, ProviderKind, ServiceLifetime, ServiceRegistration
from polaris.di._scope import Scope

__all__ = [
    "DIContainer",
    "Scope",
    "ServiceLifetime",
    "ServiceRegistration",
    "Injectable",
    "Key",
    "Dependency",
    "ProviderKind",
    "Override",
]
