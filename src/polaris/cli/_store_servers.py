"""`polaris store servers`, `move` and `moves`: the managed systems of several servers, and which one has them."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from polaris.cli import _exit
from polaris.cli._output import print_json, print_table, say_next
from polaris.cli._waiting import Doing
from polaris.exceptions import InvalidValueError, PolarisException, StoreConnectionError

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import RoutedDataStore

LOOK_AGAIN_S = 1.0
PHASES = {
    "copying": "copying {system} to {to}; it is used where it is",
    "frozen": "switching {system} to {to}; its writers wait",
    "gone": "{system} is used at {to}; deleting what is left at {source}",
}


def show_servers(settings: Settings, *, adopt: bool, as_json: bool) -> int:
    """The servers with how they do; with `adopt`, after their list was made the recorded one."""

    async def look() -> list[dict[str, Any]]:
        async with _connected(settings, adopt=adopt, read_only=not adopt) as routed:
            healths = await routed.health()
            counts: dict[str, int] = {}
            for name, store in routed.stores.items():
                if store.is_connected:
                    with suppress(StoreConnectionError):
                        counts[name] = len(await routed.systems(stores=[name]))
            return [
                {
                    "server": name,
                    "weight": settings.store.routing.servers[name].weight,
                    "shared": routed.stores[name] is routed.shared,
                    "systems": counts.get(name),
                    "status": health.status.value,
                    "message": health.message,
                }
                for name, health in healths.items()
            ]

    found = Doing("asking the servers").run(look())
    if as_json:
        print_json({"adopted": adopt, "servers": found})
    else:
        rows = [
            (
                one["server"],
                one["status"],
                str(one["weight"]),
                "-" if one["systems"] is None else str(one["systems"]),
                "shared" if one["shared"] else "",
                one["message"],
            )
            for one in found
        ]
        print_table(("SERVER", "STATUS", "WEIGHT", "SYSTEMS", "", ""), rows, status_column=1)
    return _exit.OK if all(one["systems"] is not None for one in found) else _exit.UNAVAILABLE


def move_system(settings: Settings, system_id: str, *, to: str, drop_rollups: bool, as_json: bool) -> int:
    """Move a system to another server, or go on with the move that was begun."""
    _require_server(settings, to)
    doing = Doing("asking the servers")

    async def work() -> tuple[str, bool] | None:
        async with _connected(settings) as routed:
            source = await routed.store_of(system_id)
            if not await _is_known(routed, system_id):
                return None
            watching = asyncio.create_task(_tell_phase(routed, system_id, doing))
            try:
                await routed.move_system(system_id, to, drop_rollups=drop_rollups)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
            return source, source != to

    done = doing.run(work())
    if done is None:
        _exit.complain(f"no server has a system {system_id!r}; polaris store servers shows how many each has")
        return _exit.NOTHING_FOUND
    source, moved = done
    if as_json:
        print_json({"system_id": system_id, "from": source, "to": to, "moved": moved})
    elif moved:
        print(f"{system_id}: moved from {source} to {to}")
    else:
        print(f"{system_id}: is at {to} already")
    return _exit.OK


def show_moves(settings: Settings, *, resume: bool, abandon: str | None, as_json: bool) -> int:
    """The moves that are not finished; with `resume` they are finished first, with `abandon` one is given up."""
    if resume and abandon is not None:
        raise InvalidValueError("--resume", "not to be given together with --abandon", resume)
    doing = Doing("asking the servers")

    async def work() -> tuple[list[str], list[dict[str, str]]]:
        async with _connected(settings) as routed:
            resumed: list[str] = []
            if abandon is not None:
                await routed.abandon_move(abandon)
            elif resume:
                doing.text = "finishing the moves"
                resumed = await routed.resume_moves()
            left = await routed.moves()
            return resumed, [
                {"system_id": system_id, "from": source, "to": target, "phase": entry.phase}
                for system_id, (source, target, entry) in sorted(left.items())
            ]

    resumed, left = doing.run(work())
    if as_json:
        print_json({"resumed": resumed, "abandoned": abandon, "moves": left})
        return _exit.OK
    for system_id in resumed:
        print(f"{system_id}: moved")
    if abandon is not None:
        print(f"{abandon}: stays where it is")
    if left:
        print_table(("SYSTEM", "FROM", "TO", "PHASE"), [tuple(one.values()) for one in left])
        say_next("polaris store moves --resume, unless somebody is at them")
    elif not resumed and abandon is None:
        print("no move is under way")
    return _exit.OK


@asynccontextmanager
async def _connected(
    settings: Settings, *, adopt: bool = False, read_only: bool = False
) -> AsyncIterator[RoutedDataStore]:
    from polaris.runtime import open_routed_store

    routed = open_routed_store(settings, read_only=read_only)
    await routed.connect(adopt=adopt)
    try:
        yield routed
    finally:
        await routed.disconnect()


def _require_server(settings: Settings, name: str) -> None:
    from polaris.runtime import open_routed_store

    known = open_routed_store(settings).stores
    if name not in known:
        raise InvalidValueError("--to", f"one of {', '.join(sorted(known))}", name)


async def _is_known(routed: RoutedDataStore, system_id: str) -> bool:
    """Whether there is anything of the system to be moved, or a move of it to be finished."""
    if await routed.get_current_state(system_id) is not None:
        return True
    if await routed.read(system_id, lambda store: store.actions.find_by_system(system_id, limit=1)):
        return True
    return system_id in await routed.moves()


async def _tell_phase(routed: RoutedDataStore, system_id: str, doing: Doing) -> None:
    """Keep the line of what is done true, until cancelled."""
    while True:
        # boundary: the line is for people only, and what fails here fails in the move as well
        with suppress(PolarisException):
            found = (await routed.moves()).get(system_id)
            if found is not None:
                source, target, entry = found
                doing.text = PHASES[entry.phase].format(system=shlex.quote(system_id), source=source, to=target)
        await asyncio.sleep(LOOK_AGAIN_S)
