"""`polaris graph dependencies`: which managed system needs which, as the store knows it, in formats of others."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from polaris.cli import _exit
from polaris.cli._store import opened_store
from polaris.cli._waiting import Doing
from polaris.exceptions import InvalidValueError

if TYPE_CHECKING:
    from polaris.runtime import Settings


class Picture(NamedTuple):
    """What of the dependencies is asked for: all of them, or those around a system."""

    system_id: str | None
    depth: int
    direction: Any
    types: list[str]
    form: Any


def show_dependencies(settings: Settings, picture: Picture) -> int:
    """Print the dependencies, whether the node runs or not."""
    return Doing("reading the store").run(_show(settings, picture))


async def _show(settings: Settings, picture: Picture) -> int:
    from polaris.storage import Direction, GraphFormat

    choices = (("--format", picture.form, GraphFormat), ("--direction", picture.direction, Direction))
    for option, value, kinds in choices:
        if value not in get_args(kinds):
            raise InvalidValueError(option, f"one of {', '.join(get_args(kinds))}", value)
    async with opened_store(settings) as store:
        if picture.system_id is not None and await store.graph.get_node(picture.system_id) is None:
            _exit.complain(f"no dependency of {picture.system_id} is known")
            return _exit.NOTHING_FOUND
        async for piece in store.graph.export(
            picture.form,
            picture.system_id,
            picture.depth,
            direction=picture.direction,
            relationship_type=picture.types or None,
        ):
            sys.stdout.write(piece)
    return _exit.OK
