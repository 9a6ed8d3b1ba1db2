"""How tests are given to the workers of pytest-xdist: a test that ends its worker is one red test."""

from __future__ import annotations

from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController


class CrashOnceScheduling(LoadGroupScheduling):
    """That of `--dist loadgroup`, mended for workers that end in the midst of a test, as with one that takes too long.

    pytest-xdist 3.8 gives such a test to the next worker, which it ends too, and so on; gives work to a new worker
    that has not found the tests yet, which is an internal error; and gives it one test only, which it does not begin
    before it knows the next.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """The test that the worker was running, if any; what else it had goes to the others."""
        crashed: str | None = None
        for unit in self.assigned_work[node].values():
            for name, is_done in unit.items():
                if crashed is None and not is_done:
                    crashed = name
                    unit[name] = True
        super().remove_node(node)
        return crashed

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)
