"""What a policy asks for at an instant: the steps of its retention, each of which an engine does in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from polaris.storage._rollups import RetentionPolicy

if TYPE_CHECKING:
    from polaris.storage._operation import Session


class RetentionStep(msgspec.Struct, frozen=True):
    """Take away what is older than an instant: points, or rollups, these into wider ones or for good."""

    since_us: int
    policy: RetentionPolicy
    """What asks for it; when another one has taken its place, nothing is taken away any more."""
    of_points: bool = False
    into_us: int | None = None


def due_steps(policy: RetentionPolicy, now_us: int) -> list[RetentionStep]:
    """The steps in order: points go into the first rollup, each rollup into the next, the last one goes for good."""
    steps: list[RetentionStep] = []
    if policy.raw_kept_us is not None:
        steps.append(RetentionStep(now_us - policy.raw_kept_us, policy, of_points=True))
    for place, rollup in enumerate(policy.rollups):
        if rollup.kept_us is not None:
            wider = policy.rollups[place + 1].width_us if place + 1 < len(policy.rollups) else None
            steps.append(RetentionStep(now_us - rollup.kept_us, policy, into_us=wider))
    return steps


def is_replaced(under: RetentionPolicy | None, now: RetentionPolicy | None) -> bool:
    """Whether the policy that a step is done for is the collection's no more; None: the step is done for none."""
    return under is not None and under != now


def run_step(collection: str, step: RetentionStep, rows_max: int, session: Session) -> int:
    """One slice of a step in a transaction; gives how many points or rollups went, 0 when nothing is left to do."""
    if step.of_points:
        return session.time_series.retain(collection, step.since_us, rows_max, step.policy)
    return session.time_series.thin(collection, step.since_us, step.into_us, rows_max, step.policy)
