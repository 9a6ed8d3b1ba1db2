"""A test that ends its worker is one red test: `tests.crashed_workers` with workers that only note what they get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.crashed_workers import CrashOnceScheduling
from xdist.workermanage import WorkerController

TESTS = [f"t.py::test_{number}" for number in range(12)]


class Worker:
    """Notes which tests it was given."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="gw")
        self.given: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Run:
    """A run with two workers that have found the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.scheduling = CrashOnceScheduling(config)
        self.scheduling.numnodes = 2
        self.done: list[int] = []
        self.workers = [self.joins(), self.joins()]
        for worker in self.workers:
            self.found_tests(worker)

    def joins(self) -> Worker:
        worker = Worker()
        self.scheduling.add_node(cast(WorkerController, worker))
        return worker

    def found_tests(self, worker: Worker) -> None:
        self.scheduling.add_node_collection(cast(WorkerController, worker), TESTS)
        if self.scheduling.collection_is_completed:
            self.scheduling.schedule()

    def completes(self, worker: Worker) -> None:
        """One test; as a worker does, it begins the last one that it knows when there will be no more."""
        nth = sum(test in worker.given for test in self.done)
        if nth + 1 < len(worker.given) or (worker.shutting_down and nth < len(worker.given)):
            self.done.append(worker.given[nth])
            self.scheduling.mark_test_complete(cast(WorkerController, worker), worker.given[nth])

    def ends(self, worker: Worker) -> str | None:
        return self.scheduling.remove_node(cast(WorkerController, worker))


@pytest.fixture
def run(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Run:
    options: dict[str, Any] = {"tx": ["2*popen"], "loadscopereorder": False}
    for name, value in options.items():
        monkeypatch.setattr(pytestconfig.option, name, value, raising=False)
    return Run(pytestconfig)


def test_a_test_that_ended_its_worker_is_given_to_no_other_and_all_others_run_once(run: Run) -> None:
    stuck, sound = run.workers
    run.completes(stuck)
    crashed = run.ends(stuck)
    assert crashed == TESTS[stuck.given[1]]
    new = run.joins()
    run.completes(sound)  # before the new one has found the tests
    run.found_tests(new)
    for _ in TESTS:
        run.completes(new)
        run.completes(sound)
    assert sorted(run.done) == [number for number, name in enumerate(TESTS) if name != crashed]
    assert len([test for test in run.done if test in new.given]) > 2


def test_two_workers_may_end_and_come_back_in_any_order(run: Run) -> None:
    crashed = {run.ends(worker) for worker in run.workers}
    assert len(crashed) == 2
    first, second = run.joins(), run.joins()
    run.found_tests(second)
    run.completes(second)
    run.found_tests(first)
    for _ in TESTS:
        run.completes(first)
        run.completes(second)
    assert {TESTS[number] for number in run.done} == set(TESTS) - crashed
    assert len(run.done) == len(TESTS) - 2
