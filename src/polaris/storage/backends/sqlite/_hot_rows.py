"""Points on their way into the hot table: many rows in one statement, whoever brought them."""

from __future__ import annotations

import apsw

from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS

WIDTH = COLUMNS + 3
"""Values of a row: time, series and part come before the columns."""
# Many rows in one statement: the driver lets other threads in once a statement, not once a row, and the rows cost half.
_ROWS_A_STATEMENT = (64, 32, 16, 8, 4, 2, 1)
VALUES_A_STATEMENT = _ROWS_A_STATEMENT[0] * WIDTH
_COLUMN_LIST = ", ".join(COLUMN_NAMES)
_PUT_HOT = f"INSERT OR REPLACE INTO ts_hot (ts, series, part, {_COLUMN_LIST}) VALUES "  # noqa: S608
_PUT_LATEST = "INSERT INTO ts_latest VALUES "
_LATEST_WINS = " ON CONFLICT (series) DO UPDATE SET ts = excluded.ts WHERE excluded.ts > ts"
_MARKS = "(" + ", ".join("?" * WIDTH) + ")"
_HOT = {rows: _PUT_HOT + ", ".join([_MARKS] * rows) for rows in _ROWS_A_STATEMENT}
_LATEST = {rows: _PUT_LATEST + ", ".join(["(?, ?)"] * rows) + _LATEST_WINS for rows in _ROWS_A_STATEMENT}


class HotRows:
    """What was stored in the transaction under way and is not in the tables yet. Of rows with one key the last wins."""

    __slots__ = ("_connection", "newest", "values")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.values: list[object] = []
        """Those of the rows, one row behind the other."""
        self.newest: dict[int, int] = {}
        """The newest timestamp of each series."""

    def write_full(self) -> None:
        """Write the rows that fill a statement."""
        values, size = self.values, VALUES_A_STATEMENT
        while len(values) >= size:
            self._connection.execute(_HOT[_ROWS_A_STATEMENT[0]], values[:size])
            del values[:size]

    def write(self) -> None:
        """Write all of them."""
        if self.values:
            self._write(_HOT, WIDTH, self.values)
            self.values.clear()
        if self.newest:
            self._write(_LATEST, 2, [value for pair in self.newest.items() for value in pair])
            self.newest.clear()

    def _write(self, statements: dict[int, str], width: int, values: list[object]) -> None:
        start, left = 0, len(values) // width
        for rows, sql in statements.items():
            while left >= rows:
                end = start + rows * width
                self._connection.execute(sql, values[start:end])
                start, left = end, left - rows

    def forget(self) -> None:
        """They are not to be written: their transaction is taken back."""
        self.values.clear()
        self.newest.clear()
