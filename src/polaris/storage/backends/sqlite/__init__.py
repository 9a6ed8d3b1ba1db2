"""The embedded engine: one SQLite file, one writer thread with group commit, readers beside it."""

from polaris.storage.backends.shared._figures import DocumentFigures, SeriesFigures
from polaris.storage.backends.sqlite._backup import CopyProgress, StoreCopy, restore_store, verify_store
from polaris.storage.backends.sqlite._engine import SqliteEngine
from polaris.storage.backends.sqlite._upkeep import CompactProgress, CompactReport, StoreFigures

__all__ = [
    "SqliteEngine",
    "StoreCopy",
    "CopyProgress",
    "restore_store",
    "verify_store",
    "StoreFigures",
    "SeriesFigures",
    "DocumentFigures",
    "CompactReport",
    "CompactProgress",
]
