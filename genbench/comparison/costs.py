"""What methods cost: networks, work and time, beside the images that are equal for all."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from genbench.comparison.rows import Row, as_trained
from genbench.comparison.settings import images_text
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.runs.result import Result

_HEADS = (
    Column("model", "model", numeric=False),
    Column("parameters", "parameters trained"),
    Column("decoder", "of them the decoder"),
    Column("images", "images (steps x batch)"),
    Column("decoder_rows", "decoder rows"),
    Column("real_images", "real images"),
    Column("multiply_adds", "multiply-adds"),
    Column("seconds", "training, s"),
    Column("scoring", "scoring, s"),
    Column("train", "images/s in training"),
    Column("sample", "images/s in sampling"),
    Column("memory", "peak memory, MiB"),
)
_PRIOR_HEADS = (
    Column("prior_parameters", "parameters of the prior"),
    Column("prior_seconds", "its fit, s"),
)
_PRIOR_NOTE = (
    "rows of several priors are of the same trainings: what was trained is counted once in each"
)
_COUNTS = ("images", "decoder_rows", "real_images", "multiply_adds")
_NOTES = (
    "decoder rows: latents decoded in training, each time; real images: training images consumed; "
    "multiply-adds: matrix products, convolutions and attention, forward and backward, with penalties",
    "means over seeds; of runs that shared a machine, the speeds share it too",
)

SPENT_NOTE = (
    "sample: drawing images; features: the extractor; then each part of the scores; final, averaged and "
    "best weights together, means over seeds"
)


def cost_table(rows: Sequence[Row], title: str = "cost") -> Table:
    """A line for each method that was trained; blank is what its runs did not count."""
    trained = [row for row in rows if row.runs and not row.untrained]
    lines = [_line(row) for row in trained]
    if not any(row.prior for row in trained):
        return Table(title, _HEADS, lines, _NOTES)
    full = [[*line, *_of_prior(row)] for line, row in zip(lines, trained, strict=True)]
    return Table(title, [*_HEADS, *_PRIOR_HEADS], full, [*_NOTES, _PRIOR_NOTE])


def seconds_table(rows: Sequence[Row], title: str = "seconds") -> Table | None:
    """How each method's seconds were spent, means over seeds; None if no run has noted it."""
    trained = [row for row in as_trained(rows) if any(spent_on_scores(run) for run in row.runs)]
    if not trained:
        return None
    parts = dict.fromkeys(
        name for row in trained for run in row.runs for name in spent_on_scores(run)
    )
    heads = [Column("model", "model", numeric=False), Column("training", "training")]
    heads += [Column(name, name.replace("_", " ")) for name in parts]
    lines = []
    for row in trained:
        spent = [
            {"training": run.budget.get("seconds"), **spent_on_scores(run)} for run in row.runs
        ]
        values = [_mean(spent, column.key) for column in heads[1:]]
        cells = (Cell(number(value, 2), {"value": value}) for value in values)
        lines.append([Cell(row.label, {"label": row.label}), *cells])
    return Table(title, heads, lines, [SPENT_NOTE])


def spent_on_scores(run: Result) -> Mapping[str, float]:
    """Seconds of a run's scoring by what they were spent on; empty for runs that have not noted it."""
    return run.cost.get("scoring_seconds") or {}


def _line(row: Row) -> list[Cell]:
    first = dict(row.runs[0].cost.get("parameters") or {})
    costs, budgets = [run.cost for run in row.runs], [run.budget for run in row.runs]
    counts = [_mean(budgets, key) for key in _COUNTS]
    memory = _mean(costs, "peak_memory_bytes")
    parameters = [float(sum(first.values())), float(first.get("decoder", 0)) or None]
    rest = [
        _mean(budgets, "seconds"),
        _mean([{"scoring": sum(spent_on_scores(run).values())} for run in row.runs], "scoring"),
        _mean(costs, "train_images_per_second"),
        _mean(costs, "sample_images_per_second"),
        memory / 2**20 if memory else None,
    ]
    return [
        Cell(row.label, {"label": row.label}),
        *(Cell(number(value, 3), {"value": value}) for value in parameters),
        *(Cell("" if n is None else images_text(round(n)), {"value": n}) for n in counts),
        *(Cell(number(value, 3), {"value": value}) for value in rest),
    ]


def _of_prior(row: Row) -> list[Cell]:
    """Parameters and seconds of the prior's fit, means over seeds; blank for the prior of training."""
    cells = []
    for column in _PRIOR_HEADS:
        keys = (
            [key for key in row.examples if key[:2] == (column.key, "final")] if row.prior else []
        )
        values = [value for key in keys for value in row.values(key).values()]
        cells.append(Cell(number(mean(values), 3), {"value": mean(values)}) if values else Cell())
    return cells


def _mean(runs: Iterable[Mapping[str, Any]], key: str) -> float | None:
    known = [float(run[key]) for run in runs if run.get(key)]
    return mean(known) if known else None
