"""The embedded engine: one SQLite file, one writer thread with group commit, readers beside it."""

from polaris.storage.backends.sqlite._engine import SqliteEngine

__all__ = ["SqliteEngine"]
