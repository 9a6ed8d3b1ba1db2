"""What a routed store is made of, checked: stores, weights, and which collections belong to systems."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from polaris.exceptions import ConfigurationError, InvalidValueError, QueryError
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._limits import check_collection, check_path
from polaris.storage._placement import OWNERS, SERIES, STORES_MAX, WEIGHT_MAX, StoreList

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def store_list(
    stores: Mapping[str, PolarisDataStore],
    weights: Mapping[str, int] | None,
    shared: str | None,
    series: Sequence[str],
    documents: Mapping[str, str],
) -> StoreList:
    """The list that all nodes must agree on. Raises `ConfigurationError` with every problem."""
    chosen = dict.fromkeys(stores, 1) | dict(weights or {})
    problems = [*_store_problems(stores), *_weight_problems(stores, chosen), *_collection_problems(series, documents)]
    if shared is not None and shared not in stores:
        problems.append(f"shared: {shared!r} is none of the stores")
    if problems:
        raise ConfigurationError(problems=problems)
    return StoreList(
        dict(sorted(chosen.items())),
        shared or min(stores),
        sorted({*SERIES, *series}),
        dict(sorted({**documents, **OWNERS}.items())),
    )


def _store_problems(stores: Mapping[str, PolarisDataStore]) -> list[str]:
    problems = [] if 1 <= len(stores) <= STORES_MAX else [f"stores: 1 to {STORES_MAX} (found {len(stores)})"]
    engines: dict[int, str] = {}
    for name, store in stores.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            problems.append(f"stores: {str(name)[:64]!r}: a name has 1 to 64 ASCII letters, digits, '_', '.' or '-'")
        if not isinstance(store, PolarisDataStore):
            problems.append(f"stores: {name!r} is no PolarisDataStore")
        elif len(store.engines) != 1:
            problems.append(f"stores: {name!r} has {len(store.engines)} engines; a transaction needs all models in one")
        else:
            other = engines.setdefault(id(store.engines[0]), name)
            if other != name:
                problems.append(f"stores: {name!r} and {other!r} are the same engine")
    return problems


def _weight_problems(stores: Mapping[str, PolarisDataStore], weights: Mapping[str, int]) -> list[str]:
    problems = [f"weights: {name!r} is none of the stores" for name in weights if name not in stores]
    problems += [
        f"weights: {name!r}: an integer from 0 to {WEIGHT_MAX}, got {weight!r}"
        for name, weight in weights.items()
        if type(weight) is not int or not 0 <= weight <= WEIGHT_MAX
    ]
    if not problems and not any(weights.values()):
        problems.append("weights: at least one store has to take new systems")
    return problems


def _collection_problems(series: Sequence[str], documents: Mapping[str, str]) -> list[str]:
    problems: list[str] = []
    if isinstance(series, str):
        return ["series: a list of collections"]
    for collection in [*series, *documents]:
        try:
            check_collection(collection)
        except InvalidValueError as error:
            problems.append(f"{collection!r}: {error}")
    for collection, path in documents.items():
        try:
            check_path(path)
        except QueryError as error:
            problems.append(f"documents: {collection!r}: {error}")
        if str(collection).startswith("polaris.") or collection in OWNERS:
            problems.append(f"documents: {collection!r} is one of POLARIS's own")
    return problems
