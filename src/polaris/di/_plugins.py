"""Lets installed packages register services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris.exceptions import DependencyInjectionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from polaris.di._container import DIContainer


def load_entry_points(container: DIContainer, group: str) -> list[str]:
    """Call every entry point of the group with the container, in order of name; see `DIContainer.load_plugins`."""
    from importlib.metadata import entry_points  # it is slow to import, and few programs have plugins

    loaded: list[str] = []
    errors: list[Exception] = []
    for point in sorted(entry_points(group=group), key=lambda one: one.name):
        try:
            _load(container, point)
        except Exception as error:  # boundary: a plugin is foreign code, and the others must still load
            container.discard(point.name)
            failure = DependencyInjectionError(
                f"plugin {point.name!r} ({point.value}) failed to load: {type(error).__name__}: {error}", cause=error
            )
            errors.append(failure)
        else:
            loaded.append(point.name)
    if errors:
        raise ExceptionGroup(f"plugins of {group} failed to load", errors)
    return loaded


def _load(container: DIContainer, point: EntryPoint) -> None:
    register = point.load()
    if not callable(register):
        raise DependencyInjectionError(f"{point.value} is no callable that takes a container")
    with container.owned_by(point.name):
        register(container)
