"""Windows of points that are there as what is kept of points that are gone: then one definition unites both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from polaris.storage._rollup_cells import Rollup
from polaris.storage._rollup_summaries import Summary
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._question import Question
from polaris.storage.backends.postgresql._window_reads import Split

_WINDOWS = (
    "SELECT c.rank, c.k, w.* FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::bigint[])"
    " AS c (series, rank, k, slot, low, high), LATERAL (SELECT * FROM ts_windows w WHERE w.series = c.series"
    " AND w.slot = c.slot AND w.start_us >= c.low AND w.start_us < c.high OFFSET 0) AS w ORDER BY 1, 2, w.start_us"
)
_window_of = itemgetter("rank", "k", "start_us")


async def window_rollups(link: Link, question: Question, split: Split) -> dict[int, list[Rollup]] | None:
    """The windows of each series by its number; None where numbers of one are too large for it to tell of them."""
    entries = [
        (one.number, rank, number, slot, *span)
        for number, field in enumerate(question.fields)
        for rank, (one, (place, whole)) in enumerate(zip(question.series, question.places(field), strict=True))
        for slot in (place, None if whole is None else -whole)
        if slot is not None
        for span in split.windows[rank]
    ]
    if not entries:
        return {}
    found: dict[int, list[Rollup]] = {}
    rows = await link.rows(_WINDOWS, *map(list, zip(*entries, strict=True)))
    async for (rank, number, start_us), of_slots in in_turns(
        [(key, list(group)) for key, group in groupby(rows, key=_window_of)]
    ):
        summary = _summary(of_slots)
        if not math.isfinite(summary.spread + summary.rise):
            return None
        rollup = Rollup(start_us, split.width_us, question.fields[number], summary)
        found.setdefault(question.series[rank].number, []).append(rollup)
    return found


def _summary(slots: Sequence[Row]) -> Summary:
    """What the one or two slots of a field tell of a window together."""
    lead = next(row for row in slots if row["first_us"] is not None)  # it has what is of the field
    counts = [row["count"] for row in slots]
    totals = [row["total"] if row["whole"] is None else float(row["whole"]) for row in slots]
    spreads = [row["spread"] for row in slots]
    if len(slots) > 1:
        shift = totals[0] / counts[0] - totals[1] / counts[1]
        spreads.append(shift * shift * (counts[0] / sum(counts)) * counts[1])
    lows = [row[name] for row in slots for name in ("low", "least") if row[name] is not None]
    highs = [row[name] for row in slots for name in ("high", "greatest") if row[name] is not None]
    return Summary(
        sum(counts),
        sum(totals),
        min(lows),
        max(highs),
        lead["first_us"],
        lead["first_whole"] if lead["first"] is None else lead["first"],
        lead["last_us"],
        lead["last_whole"] if lead["last"] is None else lead["last"],
        sum(spreads),
        lead["rise"],
    )
