"""Scores at an equal budget: curves of runs, read at as many images, seconds or flops."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench.comparison.rows import Row, make_rows
from genbench.comparison.settings import images_text
from genbench.errors import UserMistake
from genbench.runs.budget import parse_amount
from genbench.runs.history import PSNR, VALIDATION, read_history
from genbench.runs.result import Result
from genbench.runs.score import Score, higher_is_better

NEAR = 0.9  # of the budget asked for, that a point must have: nothing is extrapolated
_NOT_HELD_OUT = ("train", "loss", "optimizer")  # columns of the training itself
_NO_POINT = "without a point"
_NOT_THE_NUMBER = ("_target_", "_partial_", "checks")
Curves = Mapping[str, Sequence[tuple[float, float]]]  # (place, value) by column


@dataclass(frozen=True)
class At:
    """A place on one of the axes of a history, in the axis's own unit."""

    axis: str  # images, seconds or flops
    amount: float

    @property
    def column(self) -> str:
        """The column of history.csv that has the axis."""
        return "multiply_adds" if self.axis == "flops" else self.axis

    @property
    def unit(self) -> float:
        """Of the axis, in one of the column: a multiply-add is two flops."""
        return 2.0 if self.axis == "flops" else 1.0

    def text(self, amount: float | None = None) -> str:
        """An amount as one writes it: `128k`, `57.3`, `1T`."""
        amount = self.amount if amount is None else amount
        if self.axis == "seconds":
            return f"{amount:.1f}".removesuffix(".0")
        return images_text(round(amount))


def parse_at(text: str) -> At:
    """Read `images=500k`, `seconds=60` or `flops=1e12`; a number alone is of images."""
    axis, _, given = text.rpartition("=")
    axis, amount = axis or "images", parse_amount(given)
    if axis not in ("images", "seconds", "flops") or not amount:
        raise UserMistake(f"{text}: write images=500k, seconds=60 or flops=1T")
    return At(axis, round(amount) if axis == "images" else amount)


def results_at(
    results: Sequence[Result],
    directories: Mapping[str, Path],
    at: At,
    wanted: Sequence[str] = (),
) -> tuple[list[Result], list[str]]:
    """Give every run the scores that its history.csv has at a place, or just before.

    `directories` by run id. The columns are those that `wanted` names (`fd`, `selection/fd`), or all
    that are a score of something else than the training batch. A run counts as finished where it came
    so far, whatever became of it later; one without a point in the last tenth before counts as not.
    The notes say where the points are. UserMistake if no run has such a column.
    """
    rows = make_rows(results)
    runs = [_resolved(run, row) for row in rows for run in (*row.runs, *row.unfinished)]
    curves = {run.run_id: _curves(directories[run.run_id], at) for run in runs}
    if runs and not any(curves.values()):
        raise UserMistake(f"--at {at.axis}={at.text()}: {_no_axis(at)}, in none of these runs")
    names = _names(list(curves.values()), wanted)
    found = [_at(run, curves[run.run_id], names, at) for run in runs]
    places = sorted({place for _, where in found for place in where})
    if not places:
        reasons = dict.fromkeys(run.reason for run, _ in found if run.status == _NO_POINT)
        raise UserMistake(
            f"--at {at.axis}={at.text()}: no run has a point of {' or '.join(names)} in the tenth "
            f"before: {'; '.join(map(str, list(reasons)[:3])) or 'none has finished'}"
        )
    return [run for run, _ in found], _notes(names, at, places)


def _curves(directory: Path, at: At) -> Curves:
    found = read_history(directory, at.column)
    return {name: [(at.unit * x, y) for x, y in points] for name, points in found.items()}


def _notes(names: Sequence[str], at: At, places: Sequence[float]) -> list[str]:
    said = f"at {at.text()} {at.axis}, from history.csv: {', '.join(names)}"
    if places and (places[0], places[-1]) != (at.amount, at.amount):
        ends = dict.fromkeys(at.text(place) for place in (places[0], places[-1]))
        said += f"; the last points before are at {' to '.join(ends)}"
    return [said]


def _resolved(run: Result, row: Row) -> Result:
    """An unfinished run's precision may still be `auto`; its row knows what it would have become."""
    if not row.runs:
        return run
    trainer = run.config["trainer"] | {"precision": row.runs[0].config["trainer"]["precision"]}
    return replace(run, config={**run.config, "trainer": trainer})


def _names(curves: Sequence[Curves], wanted: Sequence[str]) -> list[str]:
    there = sorted({name for own in curves for name in own})
    held_out = [n for n in there if n.partition("/")[0] not in _NOT_HELD_OUT]
    scores = [n for n in held_out if higher_is_better(_quantity(n)) is not None]
    known = [n for n in scores if n != PSNR]  # which a model without an encoder cannot have
    for name in wanted:
        if name not in there and name not in map(_quantity, held_out):
            how = "" if known else "; a score is logged by training with trainer.score_every=auto"
            raise UserMistake(
                f"no history.csv has a column {name}: there are {', '.join(there) or 'none'}{how}"
            )
    if wanted:
        return [n for n in there if n in wanted or (n in held_out and _quantity(n) in wanted)]
    if not known:
        raise UserMistake(
            "no run logged a score while it trained: train with trainer.score_every=auto, or choose a column of "
            f"the training with --metric out of {', '.join(there) or 'none'}"
        )
    return known


def _quantity(name: str) -> str:
    return name.rpartition("/")[2]


def _at(run: Result, curves: Curves, names: Sequence[str], at: At) -> tuple[Result, list[float]]:
    """One run as it was, and where its points are."""
    points = {n: point for n in names if (point := _last(curves.get(n, ()), at))}
    places = [place for place, _ in points.values()]
    rest: dict[str, Any] = {"budget": _budget(curves, at, places), "scores": []}
    if points:
        scores = [_score(run, name, value) for name, (_, value) in points.items()]
        rest |= {"status": "finished", "reason": None, "scores": scores}
    elif run.status == "finished":
        rest |= {"status": _NO_POINT, "reason": _why(curves, names, at)}
    return replace(run, **rest), places


def _budget(curves: Curves, at: At, places: Sequence[float]) -> dict[str, Any]:
    """What a run had used; `at` says in what budgets are equal where that is not images."""
    if at.axis == "images":
        return {"images": at.amount}
    shown = dict(curves.get("images", ()))
    budget: dict[str, Any] = {"at": f"{at.axis} ({at.text()})"}
    return budget | ({"images": round(max(shown[place] for place in places))} if places else {})


def _last(curve: Sequence[tuple[float, float]], at: At) -> tuple[float, float] | None:
    before = [point for point in curve if NEAR * at.amount <= point[0] <= at.amount]
    return max(before, key=lambda point: point[0], default=None)


def _why(curves: Curves, names: Sequence[str], at: At) -> str:
    if not curves:
        return _no_axis(at)
    places = sorted({place for name in names for place, _ in curves.get(name, ())})
    if not places:
        options = [n.replace("/", "=") for n in names if n.startswith("selection/")]
        if any(name.startswith(VALIDATION) and name != PSNR for name in names):
            options.append("trainer.score_every")
        how = f", it was trained without {' or '.join(options)}" if options else ""
        return f"its history.csv has no {' or '.join(names)}{how}"
    before = [place for place in places if place <= at.amount][-1:]
    after = [place for place in places if place > at.amount][:1]
    nearest = " and ".join(at.text(place) for place in (*before, *after))
    return f"its nearest points are at {nearest} {at.axis}"


def _no_axis(at: At) -> str:
    return f"history.csv has no {at.column}, which earlier versions did not log"


def _score(run: Result, name: str, value: float) -> Score:
    """A point of a curve as a score; its card holds the settings under which curves are taken."""
    settings = run.config.get(name.partition("/")[0]) or {}
    if name.startswith(VALIDATION) and name != PSNR:
        evaluation = run.config.get("evaluation") or {}
        settings = {key: evaluation.get(key) for key in ("num_samples", "seed", "pixels")}
    settings = {k: v for k, v in dict(settings).items() if k not in _NOT_THE_NUMBER}
    card: dict[str, Any] = {"quantity": _quantity(name), "curve": name, "settings": settings}
    card |= {"features": run.config.get("extractor")}
    finite = math.isfinite(value)
    return Score(
        name,
        value if finite else None,
        "",
        higher_is_better(_quantity(name)),
        card,
        status="ok" if finite else "nonfinite",
    )
