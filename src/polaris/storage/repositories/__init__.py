"""The repositories of the domain's values."""

from polaris.storage.repositories._actions import AdaptationActionRepository
from polaris.storage.repositories._dependencies import LinkedSystem, SystemDependencyRepository
from polaris.storage.repositories._patterns import LearnedPatternRepository
from polaris.storage.repositories._results import ExecutionResultRepository
from polaris.storage.repositories._states import SystemStateRepository, SystemSummary

__all__ = [
    "AdaptationActionRepository",
    "ExecutionResultRepository",
    "LearnedPatternRepository",
    "SystemDependencyRepository",
    "LinkedSystem",
    "SystemStateRepository",
    "SystemSummary",
]
