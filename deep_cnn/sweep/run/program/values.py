"""Read the numbers that a program logs while it runs: with W&B, to its output, or to a table."""

import csv
import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from time import monotonic

from deep_cnn.sweep.run.program.wandb_log import WandbLog, numbers_in

Rows = Sequence[Mapping[str, float]]
_LAST_LINES = 20
_LONGEST_LINE = 4_000
# The folder of W&B's runs is listed after so many seconds.
_PAUSE = 0.5
_SAVED_IN = re.compile(r"Run data is saved locally in (?:\x1b\[\d+m)*([^\x1b]+)")
_CLIENT = re.compile(r"Tracking run with wandb version (\d+)\.(\d+)")
# Older clients write an offline run only when it ends.
_FIRST_LIVE_CLIENT = (0, 31)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_ASSIGNED = re.compile(
    rf"(?<![\w./-])([A-Za-z_][\w./-]*)\s*=\s*({_NUMBER})(?![\w.])", re.IGNORECASE
)


class Output:
    """What a program writes to its output, which is a file.

    Attributes:
        rows: The numbers of each line that is a mapping in JSON.
        last: The last lines.
        saved_in: The folders in which W&B's client says that it keeps the run.
        has_old_client: Whether W&B's client says that it is one that writes at the end only.
    """

    def __init__(self, path: Path, position: int) -> None:
        self.path, self.position = path, position
        self.rows: list[dict[str, float]] = []
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self.saved_in: list[Path] = []
        self.has_old_client = False
        self._rest = b""

    def read(self, *, is_over: bool = False) -> None:
        """Take in the lines that were written since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                data = file.read()
        except OSError:
            return
        self.position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in [*lines, self._rest] if is_over else lines:
            self._take_in(line.decode(errors="replace").rstrip())

    def _take_in(self, line: str) -> None:
        if line.lstrip().startswith("{"):
            with suppress(ValueError, RecursionError):
                content = json.loads(line)
                if numbers := numbers_in(content):
                    self.rows.append(numbers)
        if match := _SAVED_IN.search(line):
            self.saved_in.append(Path(match[1].strip()))
        if match := _CLIENT.search(line):
            self.has_old_client = (int(match[1]), int(match[2])) < _FIRST_LIVE_CLIENT
        line = _COLORS.sub("", line).rpartition("\r")[2].rstrip()
        if line:
            self.last.append(line[:_LONGEST_LINE])

    @property
    def last_line(self) -> dict[str, float]:
        """The numbers of a last line such as `loss=0.3, accuracy=0.9`."""
        line = self.last[-1] if self.last else ""
        return {name: float(number) for name, number in _ASSIGNED.findall(line)}


class MetricFile:
    """A table in CSV that a program writes; what stood there before does not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before, self.modified = self._content()
        self.rows: list[dict[str, float]] = []

    def read(self) -> None:
        """Read the table if the program has written it."""
        text, modified = self._content()
        if modified == self.modified:
            return
        self.modified = modified
        self.rows = _table(text)
        if self.before and text != self.before and text.startswith(self.before):
            self.rows = self.rows[len(_table(self.before)) :]  # The program appends.

    def _content(self) -> tuple[str, int]:
        try:
            return self.path.read_text(errors="replace"), self.path.stat().st_mtime_ns
        except OSError:
            return "", 0


def _table(text: str) -> list[dict[str, float]]:
    rows = []
    with suppress(csv.Error):
        for row in csv.DictReader(StringIO(text.replace("\0", ""))):
            numbers = {}
            for name, cell in row.items():
                with suppress(TypeError, ValueError):
                    numbers[str(name).strip()] = float(cell)
            rows.append(numbers)
    return rows


class Values:
    """The numbers of one program, from the first source that has the metric.

    Args:
        metric: The metric of the sweep, or None if it has none.
        runs: The folder of W&B's runs.
        run_id: The id of the program's run.
        output: The program's output.
        file: The table that the program writes, if it was named.
    """

    def __init__(
        self, metric: str | None, runs: Path, run_id: str, output: Output, file: MetricFile | None
    ) -> None:
        self.metric, self.runs, self.run_id = metric, runs, run_id
        self.output, self.file = output, file
        self.logs: dict[Path, WandbLog] = {}
        self._list_due = 0.0
        self._counted = 0
        self._counted_rows: Rows = ()
        self._values: list[float] = []

    def read(self, *, is_over: bool = False) -> None:
        """Take in what was logged since the last call."""
        self.output.read(is_over=is_over)
        if self.file is not None:
            self.file.read()
        if is_over or monotonic() >= self._list_due:
            self._list_due = monotonic() + _PAUSE
            for folder in [*run_folders(self.runs, self.run_id), *self.output.saved_in]:
                for path in folder.glob("run-*.wandb"):
                    self.logs.setdefault(path.resolve(), WandbLog(path))
        for log in self.logs.values():
            log.read()

    @property
    def folder(self) -> Path | None:
        """The folder of W&B's run, if there is one."""
        return self._log.path.parent if self.logs else None

    @property
    def is_run_over(self) -> bool:
        """Whether W&B's client has ended the run."""
        return bool(self.logs) and self._log.is_over

    @property
    def _log(self) -> WandbLog:
        # A run that was opened again has started over.
        logs = [self.logs[path] for path in sorted(self.logs)]
        return next((log for log in reversed(logs) if self._has(log.rows)), logs[-1])

    def source(self, *, is_over: bool = False) -> tuple[str, Rows]:
        """Return the name of the first source that has the metric, and its rows.

        If none has it, the source is "" and the rows are those of the first that has any. The
        summary and the last line count once the program `is_over`.
        """
        sources: list[tuple[str, Rows]] = []
        if self.file is not None:
            sources.append((str(self.file.path), self.file.rows))
        if self.logs:
            sources.append(("W&B's run", self._log.rows))
            sources += [("the summary of W&B's run", [self._log.summary])] * is_over
        sources.append(("JSON lines of the output", self.output.rows))
        sources += [("the last line of the output", [self.output.last_line])] * is_over
        for name, rows in sources:
            if self._has(rows):
                return name, rows
        return "", next((rows for _, rows in sources if any(rows)), ())

    def values(self) -> Sequence[float]:
        """Return the values of the metric so far."""
        rows = self.source()[1]
        if rows is not self._counted_rows:
            self._counted_rows, self._counted, self._values = rows, 0, []
        for row in rows[self._counted :]:
            if self.metric is not None and self.metric in row:
                self._values.append(row[self.metric])
        self._counted = len(rows)
        return self._values

    @property
    def summary(self) -> float | None:
        """The metric in the summary of W&B's run, if it is there."""
        return self._log.summary.get(self.metric or "") if self.logs else None

    def names(self) -> list[str]:
        """Return the names of all that was logged, without W&B's own."""
        found = [name for row in self.source(is_over=True)[1] for name in row]
        found += self._log.names if self.logs else ()
        return sorted({name for name in found if not name.startswith("_")})

    def _has(self, rows: Rows) -> bool:
        return any(self.metric in row for row in rows)


def run_folders(runs: Path, run_id: str) -> list[Path]:
    """Return the folders of W&B's runs with this id, in the order in which they began."""
    folders = (path for path in runs.glob(f"*run-*-{run_id}") if path.is_dir())
    return sorted(folders, key=lambda path: path.name.partition("run-")[2])
