"""Every error, made of anything it may be made of, comes back equal from pickle, copy and another process."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size

import polaris
from polaris._correlation import correlation_scope
from polaris._redaction import DEPTH_MAX, ITEMS_MAX, NODES_MAX, TEXT_CHARS_MAX
from polaris.exceptions import DeadlineExceededError, ForeignCause, PolarisException, PublishError

# Of each class; all classes together have some hundred.
EXAMPLES = size(5, 100)
JOURNEYS = size(2, 30)
# No other text may hold a Z: alone, this word is no secret.
NEEDLE = "hardToGueZZ"


def all_classes() -> list[type[PolarisException]]:
    """Every class of errors of the whole package, also those that are no part of its interface."""
    for module in pkgutil.walk_packages(polaris.__path__, "polaris."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[PolarisException]] = set()
    left = [PolarisException]
    while left:
        cls = left.pop()
        if cls not in found and cls.__module__.startswith("polaris."):
            found.add(cls)
            left += cls.__subclasses__()
    return sorted(found, key=lambda cls: cls.__qualname__)


CLASSES = all_classes()

TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="Z"), max_size=60),  # with lone surrogates
    st.builds(lambda piece, times: piece * times, st.text("ab-._/:= {}'\"\n", max_size=20), st.integers(0, 300)),
    st.sampled_from(["orders", "", f"password={NEEDLE}", f"nats://u:{NEEDLE}@host", f"Bearer {NEEDLE}"]),
)
CAUSES = st.one_of(
    st.none(),
    st.builds(ValueError, TEXTS),
    st.builds(OSError, st.integers(1, 40), TEXTS),
    st.builds(PublishError, TEXTS),
    st.builds(ForeignCause, TEXTS),
    st.builds(DeadlineExceededError, st.just("write"), timeout_s=st.floats(0, 10)),
)
NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70))
FIELDS = st.dictionaries(
    st.one_of(TEXTS, st.sampled_from(["password", "token", "topic"])),
    st.recursive(
        st.one_of(TEXTS, NUMBERS, st.booleans(), st.binary(max_size=9), st.builds(object)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
        max_leaves=20,
    ),
    max_size=8,
)
BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXTS,
    "int": st.integers(-(2**70), 2**70),
    "float | None": NUMBERS,
    "bool | None": st.sampled_from([True, False, None]),
    "object": st.one_of(TEXTS, NUMBERS, st.builds(object)),
    "Sequence[str]": st.one_of(st.lists(TEXTS, max_size=5), st.tuples(TEXTS, TEXTS)),
    "Mapping[str, object] | None": st.one_of(st.none(), FIELDS),
    "BaseException | None": CAUSES,
    "BaseException": CAUSES.filter(lambda cause: cause is not None),
}


def errors(cls: type[PolarisException]) -> st.SearchStrategy[PolarisException]:
    """Errors of this class with any arguments that its signature allows, those with a default also left out."""
    positional: list[st.SearchStrategy[Any]] = []
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        strategy = BY_ANNOTATION[parameter.annotation]
        if parameter.default is not parameter.empty:
            optional[name] = strategy
        elif parameter.kind is parameter.KEYWORD_ONLY:
            required[name] = strategy
        else:
            positional.append(strategy)

    def make(given_positional: tuple[Any, ...], named: dict[str, Any], correlation_id: str | None) -> PolarisException:
        if correlation_id is None:
            return cls(*given_positional, **named)
        with correlation_scope(correlation_id):
            return cls(*given_positional, **named)

    return st.builds(
        make,
        st.tuples(*positional),
        st.fixed_dictionaries(required, optional=optional),
        st.one_of(st.none(), st.just("chain-1"), st.text(st.characters(exclude_characters="Z"), max_size=200)),
    )


def assert_same(other: object, error: PolarisException) -> None:
    assert type(other) is type(error)
    assert isinstance(other, PolarisException)
    assert other is not error
    assert other.to_dict() == error.to_dict()
    assert other.to_problem() == error.to_problem()
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert vars(other).keys() == vars(error).keys()
    assert other.__suppress_context__ == error.__suppress_context__


def test_the_classes_are_found_wherever_they_are() -> None:
    assert len(CLASSES) >= 40
    assert {cls.__module__ for cls in CLASSES} > {"polaris.exceptions"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_error_of_any_class_comes_back_equal(cls: type[PolarisException], data: st.DataObject) -> None:
    error = data.draw(errors(cls))
    # Before anybody has looked at it, and after.
    fresh = [pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)]
    looked_at = error.to_dict()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
    for other in [*fresh, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(fresh[0]))]:
        assert_same(other, error)
    assert error.to_dict() == looked_at


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_error_of_any_class_is_bounded_json_without_secrets(
    cls: type[PolarisException], data: st.DataObject
) -> None:
    error = data.draw(errors(cls))
    written = json.dumps(error.to_dict(), allow_nan=False)
    assert json.loads(written) == error.to_dict()
    json.dumps(error.to_dict(), ensure_ascii=False).encode()
    assert len(error.message) <= TEXT_CHARS_MAX
    assert len(error.to_dict()["cause"] or "") <= TEXT_CHARS_MAX
    assert depth_and_nodes(error.context) <= (DEPTH_MAX, 2 * NODES_MAX + ITEMS_MAX)
    for form in (
        written,
        str(error),
        repr(error),
        repr(vars(error)),
        repr(error.args),
        pickle.dumps(error).decode("latin-1"),
    ):
        assert NEEDLE not in form


def depth_and_nodes(value: Any) -> tuple[int, int]:
    if not isinstance(value, (dict, list)):
        return 0, 1
    inner = [depth_and_nodes(item) for item in (value.values() if isinstance(value, dict) else value)]
    return 1 + max((depth for depth, _ in inner), default=0), 1 + sum(nodes for _, nodes in inner)


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def raise_again(error: PolarisException) -> None:
    raise error


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
@settings(max_examples=JOURNEYS)
@given(data=st.data())
def test_any_error_of_any_class_comes_back_equal_from_another_process(
    cls: type[PolarisException], data: st.DataObject, other_process: ProcessPoolExecutor
) -> None:
    error = data.draw(errors(cls))
    assert_same(other_process.submit(copy.copy, error).result(), error)
    raised = other_process.submit(raise_again, error).exception()
    assert isinstance(raised, PolarisException)
    # The pool puts the traceback of the other process in the place of the cause.
    assert type(raised) is type(error)
    assert raised.to_dict() | {"cause": None} == error.to_dict() | {"cause": None}
