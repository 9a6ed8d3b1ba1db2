"""Bringing the schema of a server up to date: numbered, checksummed, forward only, by one node at a time."""

from __future__ import annotations

import re
import zlib
from hashlib import sha256
from importlib.resources import files

import msgspec

from polaris.exceptions import MigrationError
from polaris.storage.backends.postgresql._link import Link

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
SCHEMA_LOCK, OUTBOX_LOCK = 0x504F4C41, 0x504F4C42
"""The classes of the advisory locks; what they lock within a database is told apart by the schema."""


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
    folder = files("polaris.storage.backends.postgresql") / "migrations"
    found: list[Migration] = []
    for entry in folder.iterdir():
        match = _FILE_NAME.fullmatch(entry.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def lock_number(schema: str) -> int:
    """A number of 31 bits that stands for the schema in advisory locks."""
    return zlib.crc32(schema.encode()) & 0x7FFFFFFF


async def check_schema(link: Link, schema: str, migrations: list[Migration]) -> int:
    """The version of the schema, 0 when there is none. Raises `MigrationError` for foreign, newer and altered ones."""
    tables = await link.value("SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema)
    if not tables:
        return 0
    known = await link.value("SELECT to_regclass($1) IS NOT NULL", f"{schema}.polaris_migrations")
    if not known:
        raise MigrationError(f"the schema {schema!r} has tables of another application", {"tables": tables})
    applied = await link.rows("SELECT number, name, checksum FROM polaris_migrations ORDER BY number")
    if not applied:
        raise MigrationError(f"the schema {schema!r} has lost the list of its applied migrations")
    if len(applied) > len(migrations):
        raise MigrationError(
            f"the store's schema has version {len(applied)}, this release knows {len(migrations)}: use a newer release",
            {"version": len(applied), "known": len(migrations)},
        )
    for (number, name, checksum), migration in zip(applied, migrations, strict=False):
        if number != migration.number or checksum != migration.checksum:
            raise MigrationError(f"migration {number} ({name}) of the store is not the one this release knows")
    return len(applied)


async def migrate(link: Link, schema: str, migrations: list[Migration]) -> int:
    """Apply what is missing in one transaction; gives how many steps that were. Several nodes may do so at once."""
    if await check_schema(link, schema, migrations) == len(migrations):
        return 0
    async with link.atomic():
        # Another node may be at it, with a step that takes its time.
        await link.run("SET LOCAL lock_timeout = 0")
        await link.run_long(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK}, {lock_number(schema)})")
        await link.run("SET LOCAL lock_timeout TO DEFAULT")
        version = await check_schema(link, schema, migrations)
        if version == len(migrations):
            return 0
        if not await link.value("SELECT to_regnamespace($1) IS NOT NULL", schema):
            # A name of the strict pattern that the engine checks; it cannot be a parameter.
            await link.run(f'CREATE SCHEMA "{schema}"')
        if version == 0:
            await link.run(
                'CREATE TABLE polaris_migrations (number integer PRIMARY KEY, name text COLLATE "C" NOT NULL,'
                ' checksum text COLLATE "C" NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())'
            )
        for migration in migrations[version:]:
            await link.run_long(migration.sql)
            await link.run(
                "INSERT INTO polaris_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
    return len(migrations) - version
