"""Write the numbers of a program as the table of its run."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from deep_cnn.files import write_text
from deep_cnn.sweep.run.program.values import Values


class LiveTable:
    """The metric of a running program, which other workers read; it only grows."""

    def __init__(self, path: Path, metric: str | None) -> None:
        self.path, self.metric, self.rows = path, metric, 0

    def write(self, values: Sequence[float]) -> None:
        """Append the values that are not there yet; OSError."""
        if len(values) == self.rows or self.metric is None:
            return
        begins = self.rows == 0 or len(values) < self.rows  # A run may start over.
        first = 0 if begins else self.rows
        with self.path.open("w" if begins else "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if begins:
                writer.writerow(("epoch", self.metric))
            writer.writerows((i, values[i]) for i in range(first, len(values)))
        self.rows = len(values)


def write_table(path: Path, values: Values) -> None:
    """Write a row for each step, `epoch` counting from 0, and a column for each name; OutputError.

    The names of W&B's own numbers begin with an underscore, and have no column.
    """
    rows = values.source(is_over=True)[1]
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if not name.startswith("_") or name == values.metric]
    # The metric and the number of the row are what reports look for.
    columns = ["logged.epoch" if n == "epoch" != values.metric else n for n in names]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_own = "epoch" in columns
    writer.writerow(columns if has_own else ("epoch", *columns))
    for i, row in enumerate(rows):
        cells = [row.get(name, "") for name in names]
        writer.writerow(cells if has_own else (i, *cells))
    if names:
        write_text(path, text.getvalue(), make_folder=False)
