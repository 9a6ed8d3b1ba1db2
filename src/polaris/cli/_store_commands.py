"""The commands of `polaris store` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from polaris.cli._commands import Argument, Commands, Option
from polaris.cli._options import Config, DataDir, Json, settings_of

BACKUP_EXAMPLES = """\b
Examples:
  polaris store backup /backups
  polaris store backup /backups/before-the-move.db
"""
RESTORE_EXAMPLES = """\b
Examples:
  polaris store restore /backups/before-the-move.db
  polaris store restore /backups/before-the-move.db --force
"""
VERIFY_EXAMPLES = """\b
Examples:
  polaris store verify
  polaris store verify /backups/before-the-move.db
"""

MOVE_EXAMPLES = """\b
Examples:
  polaris store move web --to south
  polaris store move web --to south --drop-rollups
"""

store_app = Commands(
    "store",
    about="The data store: figures, compaction, backups, checks of a file; several servers, and moves between them.",
    short_help="The data store: figures, compaction, backups, servers.",
)

Force = Annotated[bool, Option("--force", "-f", about="Replace a file that exists.")]


@store_app.add(short_help="What is in the store, and how much room it takes.")
def stats(
    count: Annotated[bool, Option("--count", about="Count the points too; that reads all of them.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What is in the store, and how much room it takes, whether the node runs or not."""
    from polaris.cli._store_figures import show_stats

    raise SystemExit(show_stats(settings_of(config, data_dir), count_points=count, as_json=as_json))


@store_app.add(short_help="Give back the room that the store does not use.")
def compact(
    rewrite: Annotated[
        bool | None,
        Option(
            "--rewrite/--no-rewrite", about="Write the file anew; by default when a fifth is free.", show_default=False
        ),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Bring the store's file into its densest form. The node, which compacts without giving room back, must not run.

    A store on PostgreSQL is refused (exit code 78): its server has VACUUM.
    """
    from polaris.cli._store_upkeep import compact_store

    raise SystemExit(compact_store(settings_of(config, data_dir), rewrite_file=rewrite, as_json=as_json))


@store_app.add(short_help="Copy the store as it is now, also while the node runs.", epilog=BACKUP_EXAMPLES)
def backup(
    destination: Annotated[
        Path,
        Argument(
            metavar="DESTINATION", about="The file, or a folder: then it is named by the time.", show_default=False
        ),
    ],
    force: Force = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy the store's file as it is now, also while the node runs. The copy is checked before it gets its name.

    A store on PostgreSQL is refused (exit code 78): use pg_dump.
    """
    from polaris.cli._store_upkeep import back_up_store

    raise SystemExit(back_up_store(settings_of(config, data_dir), destination, force=force, as_json=as_json))


@store_app.add(short_help="Make a backup the store of the node.", epilog=RESTORE_EXAMPLES)
def restore(
    backup_file: Annotated[Path, Argument(metavar="BACKUP", about="What `backup` made.", show_default=False)],
    force: Force = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a backup the store of the node, which must not run. The backup is checked before, and stays.

    A store on PostgreSQL is refused (exit code 78): use pg_restore.
    """
    from polaris.cli._store_upkeep import restore_backup

    raise SystemExit(restore_backup(settings_of(config, data_dir), backup_file, force=force, as_json=as_json))


@store_app.add(short_help="Check the store, or a backup, from its first byte to its last.", epilog=VERIFY_EXAMPLES)
def verify(
    file: Annotated[
        Path | None,
        Argument(metavar="FILE", about="A backup; without it, the store.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Check the store, or a backup, from its first byte to its last, also while the node runs. Changes nothing.

    Of a store on PostgreSQL all that its tables hold is checked, and nothing below them: pg_amcheck does that.
    """
    from polaris.cli._store_upkeep import verify_store

    raise SystemExit(verify_store(settings_of(config, data_dir), file, as_json=as_json))


@store_app.add(short_help="The servers that systems are spread over, and how they do.")
def servers(
    adopt: Annotated[
        bool, Option("--adopt", about="Make the configured list the recorded one; every server must answer.")
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The servers of `[store.routing]`: how each does, and how many systems it has."""
    from polaris.cli._store_servers import show_servers

    raise SystemExit(show_servers(settings_of(config, data_dir), adopt=adopt, as_json=as_json))


@store_app.add(short_help="Move a managed system to another server, while it is used.", epilog=MOVE_EXAMPLES)
def move(
    system: Annotated[str, Argument(metavar="SYSTEM", about="The system's id.", show_default=False)],
    to: Annotated[str, Option("--to", metavar="SERVER", about="The server's name.", show_default=False)],
    drop_rollups: Annotated[
        bool, Option("--drop-rollups", about="Leave behind summaries whose samples are gone: they are deleted.")
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Move a managed system to another server, while it is used. Broken off, the same command goes on with it."""
    from polaris.cli._store_servers import move_system

    raise SystemExit(
        move_system(settings_of(config, data_dir), system, to=to, drop_rollups=drop_rollups, as_json=as_json)
    )


@store_app.add(short_help="The moves between servers that are not finished.")
def moves(
    resume: Annotated[
        bool, Option("--resume", about="Finish them; not while somebody is at one: it would be taken over.")
    ] = False,
    abandon: Annotated[
        str | None,
        Option("--abandon", metavar="SYSTEM", about="Give one up: the system stays.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The moves between servers that are not finished."""
    from polaris.cli._store_servers import show_moves

    raise SystemExit(show_moves(settings_of(config, data_dir), resume=resume, abandon=abandon, as_json=as_json))
