"""Marks an error with the service that it came from, on its way up to `resolve`."""

from __future__ import annotations

from typing import NoReturn

from polaris.di._registration import ServiceRegistration
from polaris.exceptions import DependencyInjectionError


class ProviderFailedError(Exception):
    """Carries the registration whose provider raised up to `resolve`, which draws the path; never seen outside."""

    def __init__(self, registration: ServiceRegistration) -> None:
        super().__init__(registration.name)
        self.registration = registration


def blame(error: Exception, registration: ServiceRegistration) -> NoReturn:
    """Raise `error` on, marked with the service that it came from unless it is marked already."""
    if isinstance(error, (ProviderFailedError, DependencyInjectionError)):
        raise error
    raise ProviderFailedError(registration) from error
