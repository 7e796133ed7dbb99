"""`history.csv`: every logged scalar, a row per step of the clock."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genbench.runs.files import atomic_write
from genbench.runs.history import FILENAME, complete_rows
from genbench.training.loggers.sink import Sink


class History(Sink):
    """`history.csv`: a row per step of the clock; a column that comes later is blank before."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / FILENAME
        self.spent: Callable[[], Mapping[str, float]] = dict  # seconds and the like, for every row
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            self.rows = complete_rows(self.path)
        self.columns = list(self.rows[0]) if self.rows else ["images"]
        if self.rows:
            self._rewrite()  # without a last line that a power cut left unfinished

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row at `step` images."""
        row = {"images": step, **self.spent(), **metrics}
        new = [name for name in row if name not in self.columns]
        self.rows.append(row)
        if new or not self.path.exists():
            self.columns += new
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def rewind(self, images: int) -> None:
        """Cut the rows beyond `images`."""
        kept = [row for row in self.rows if float(row["images"]) <= images]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._rewrite()

    def _rewrite(self) -> None:
        with (
            atomic_write(self.path, sync=False) as temporary,  # every new column rewrites it
            temporary.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
