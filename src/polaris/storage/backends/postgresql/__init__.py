"""The engine of a PostgreSQL server."""

from polaris.storage.backends.postgresql._engine import PostgresEngine
from polaris.storage.backends.postgresql._figures import ServerFigures
from polaris.storage.backends.postgresql._options import PostgresOptions

__all__ = ["PostgresEngine", "PostgresOptions", "ServerFigures"]
