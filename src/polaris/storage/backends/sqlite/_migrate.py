"""Bringing the schema of a file up to date: numbered, checksummed, forward only."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

import apsw
import msgspec

from polaris.clock import utc_now
from polaris.exceptions import MigrationError, StoreCorruptError
from polaris.storage._ranges import to_micros
from polaris.storage.backends.sqlite._sql import rows, scalar

APPLICATION_ID = 0x504F4C41
""""POLA": tells a store from other SQLite files."""

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema. Once released, its text never changes."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """The steps that this version knows, in order."""
    folder = files("polaris.storage.backends.sqlite") / "migrations"
    found: list[Migration] = []
    for entry in folder.iterdir():
        match = _FILE_NAME.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def check_schema(connection: apsw.Connection, migrations: list[Migration]) -> int:
    """The version of the file's schema.

    Raises `MigrationError` for foreign, newer and altered ones, `StoreCorruptError` when a table or an index is not
    what the migrations made of it. Tables that others added are left alone.
    """
    version = int(connection.pragma("user_version"))
    application = int(connection.pragma("application_id"))
    if application != APPLICATION_ID:
        tables = scalar(connection, "SELECT count(*) FROM sqlite_schema")
        if application != 0 or version != 0 or tables:
            raise MigrationError(
                "the file is an SQLite database of another application", {"application_id": application}
            )
        return 0
    if version > len(migrations):
        raise MigrationError(
            f"the store's schema has version {version}, this release knows {len(migrations)}: use a newer release",
            {"version": version, "known": len(migrations)},
        )
    applied = connection.execute("SELECT number, name, checksum FROM polaris_migrations ORDER BY number").fetchall()
    if [number for number, _, _ in applied] != list(range(1, version + 1)):
        raise MigrationError(f"the store's list of applied migrations does not fit its version {version}")
    for (number, name, checksum), migration in zip(applied, migrations, strict=False):
        if checksum != migration.checksum:
            raise MigrationError(f"migration {number} ({name}) of the store is not the one this release knows")
    present = _objects(connection)
    for key, sql in _made_by(tuple(migrations[:version])).items():
        if present.get(key) != sql:
            raise StoreCorruptError(f"the store's {key[0]} {key[1]} is not the one of version {version}")
    return version


def _objects(connection: apsw.Connection) -> dict[tuple[str, str], str]:
    found = rows(connection, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {(kind, name): sql for kind, name, sql in found}


@cache
def _made_by(migrations: tuple[Migration, ...]) -> dict[tuple[str, str], str]:
    """The tables and indexes that the migrations make, with their texts."""
    connection = apsw.Connection(":memory:")
    try:
        for migration in migrations:
            connection.execute(migration.sql)
        return _objects(connection)
    finally:
        connection.close()


def migrate(connection: apsw.Connection, migrations: list[Migration]) -> int:
    """Apply what is missing, each step in a transaction of its own; gives how many were applied."""
    version = check_schema(connection, migrations)
    for migration in migrations[version:]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if migration.number == 1:
                connection.pragma("application_id", APPLICATION_ID)
                connection.execute(
                    "CREATE TABLE polaris_migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                    " checksum TEXT NOT NULL, applied_us INTEGER NOT NULL) STRICT"
                )
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO polaris_migrations VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, to_micros(utc_now())),
            )
            connection.pragma("user_version", migration.number)
            connection.execute("COMMIT")
        except BaseException:  # boundary: undone, then raised again
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(migrations) - version
