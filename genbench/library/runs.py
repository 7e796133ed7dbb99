"""Several runs: listed, compared and plotted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from genbench.commands import compare
from genbench.comparison.budgets import parse_at
from genbench.comparison.per_run import wide_table
from genbench.errors import UserMistake
from genbench.library.comparison import Comparison
from genbench.library.frames import History, data_frame
from genbench.library.run import Run
from genbench.runs.history import SPENT
from genbench.runs.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("images", *SPENT)


class Runs(Sequence[Run]):
    """Runs in the order of their ids, as they were when they were selected."""

    def __init__(self, found: Sequence[tuple[Path, Result]]) -> None:
        self._found = list(found)
        self._runs = [Run(path) for path, _ in self._found]
        for run, (_, result) in zip(self._runs, self._found, strict=True):
            run.result = result

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, place: int) -> Run: ...
    @overload
    def __getitem__(self, place: slice) -> "Runs": ...
    def __getitem__(self, place: int | slice) -> "Run | Runs":
        return Runs(self._found[place]) if isinstance(place, slice) else self._runs[place]

    def __repr__(self) -> str:
        return f"Runs({', '.join(run.id for run in self)})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping per run: what it is, scores, cost, budget, settings, as `compare --wide` has them."""
        table = wide_table([result for _, result in self._found])
        keys = [column.key for column in table.columns]
        return [
            {key: cell.exact.get("value") for key, cell in zip(keys, row, strict=True)}
            for row in table.rows
        ]

    def frame(self) -> Any:
        """`rows` as a pandas.DataFrame. UserMistake without pandas."""
        return data_frame(self.rows)

    def compare(
        self,
        *metrics: str,
        all: bool = False,
        sort: str | None = None,
        pareto: Sequence[str] = (),
        versus: str | None = None,
        at: str | None = None,
        best_of: int | None = None,
        cost: bool = False,
        pair_images: bool = False,
    ) -> Comparison:
        """The tables of `genbench compare` with these options, and the same numbers.

        `metrics` are the scores to show, as `--metric`; `at` is written as `images=500k`. UserMistake for a
        score or a row that there is not.
        """
        if not self._found:
            raise UserMistake("there are no runs to compare: `genbench.runs()` has all there are")
        options = compare.parser().parse_args([])
        options.format = "html"  # not folded to the width of a terminal
        options.metric, options.all, options.sort = list(metrics), all, sort
        options.pareto, options.versus, options.cost = list(pareto), versus, cost
        options.pair_images = pair_images
        options.best_of, options.at = best_of, parse_at(at) if at else None
        return Comparison(compare.tables_of(options, self._found))

    def plot(self, x: str, y: str) -> "Figure":
        """A matplotlib figure: a curve per run if history.csv has `y` over `x`, else a point per run.

        Curves are over images, seconds or multiply_adds; points are of what `rows` has, such as a score over
        `config.model.beta`. UserMistake for what no run has, and without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise UserMistake("a plot needs matplotlib: pip install matplotlib") from None
        curves = {run.id: History.of(run.path, x).get(y) for run in self} if x in AXES else {}
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y)
        if any(curves.values()):
            for run in self:
                if points := curves[run.id]:
                    label = f"{run.result.model}, seed {run.result.seed}"
                    axes.plot(*zip(*points, strict=True), label=label)
        else:
            self._scatter(axes, x, y)
        axes.legend()
        return figure

    def _scatter(self, axes: Any, x: str, y: str) -> None:
        rows = [row for row in self.rows if row.get(x) is not None and row.get(y) is not None]
        if not rows:
            names = [name for row in self.rows for name in row] + [
                n for r in self for n in r.history
            ]
            lacking = next((name for name in (y, x) if name not in names), f"both {x} and {y}")
            raise UserMistake(
                f"no run has {lacking}: `.rows` and `.history` of a run show what there is"
            )
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            axes.scatter([row[x] for row in own], [row[y] for row in own], label=model)
