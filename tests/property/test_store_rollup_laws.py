"""Whatever is done to series with rollups, what is kept in the file obeys the laws that `verify` checks."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_store_rollups import STEPS, WIDTHS, Pair
from tests.sqlite_sessions import new_session, scratch

from polaris.storage._tag_filter import parse_tags
from polaris.storage.backends.sqlite._verify import findings

SESSION = new_session()
DELETIONS = st.tuples(st.just("delete series"), st.sampled_from([{}, {"h": "a"}]), st.integers(1, 9))


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.one_of(STEPS, STEPS, STEPS, DELETIONS), min_size=3, max_size=24), width=WIDTHS)
def test_rollups_and_summaries_obey_the_laws_whatever_was_done(steps: list[tuple[Any, ...]], width: int) -> None:
    with scratch(SESSION) as session:
        pair = Pair(session)
        for step in [("policy", width), *steps]:
            if step[0] == "delete series":
                # A part of it, as of a deletion that was interrupted; the model need not know of it here.
                for engine in pair.engines:
                    engine.delete_series("m", parse_tags(step[1]), step[2])
                break
            pair.run(step)
        assert findings(session.connection) == []
        for step in [("roll up", 20), ("compact", 30), ("roll up", 20)]:
            pair.run(step)
            assert findings(session.connection) == []
