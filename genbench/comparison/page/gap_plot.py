"""The gap of each method as plots: bars from step to step, and what each latent carries. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

from genbench.comparison.gap import FLOOR, Gap
from genbench.comparison.page.curves import Panel, over_seeds
from genbench.comparison.page.styles import Style
from genbench.comparison.rows import Row
from genbench.comparison.significance import SEEDS_FOR_SPREAD
from genbench.runs.latents import rates_by_unit

RANK = "rank of the latent"
COLOURS = {"floor": "faint", "decoder": "c9", "latents": "c11", "prior": "c7"}
COLOURS["latents and prior"] = "c3"
TOGETHER = "c6"  # of other parts that are not told apart


def gap_bars(gaps: Sequence[Gap]) -> tuple[dict[str, Any], dict[str, Style]]:
    """Traces and layout, and the legend: a bar per method, a piece per part, its end ± sd over seeds.

    A part below 0 goes back from where it begins.
    """
    names = list(dict.fromkeys(part.name for gap in gaps for part in gap.parts))
    styles = {name: Style(COLOURS.get(name, TOGETHER), "") for name in ["floor", *names]}
    traces = [_floor(gaps), *(_part(name, gaps) for name in names)]
    for trace in traces:
        trace["meta"] = {"colour": styles[trace["name"]].colour, "label": trace["name"]}
    labels = [gap.label for gap in reversed(gaps)]  # plotly begins at the bottom
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "FD to the training images"}, "rangemode": "tozero"},
        "yaxis": {"categoryorder": "array", "categoryarray": labels, "title": {"text": ""}},
    }
    return {"data": traces, "layout": layout}, styles


def _floor(gaps: Sequence[Gap]) -> dict[str, Any]:
    there = [(gap, step) for gap in gaps if (step := gap.step(FLOOR))]
    return {
        "type": "bar",
        "orientation": "h",
        "name": "floor",
        "y": [gap.label for gap, _ in there],
        "x": [step.mean for _, step in there],
        "base": [0.0 for _ in there],
        "hovertemplate": "new images have %{x:.4g}<extra>%{y}</extra>",
    }


def _part(name: str, gaps: Sequence[Gap]) -> dict[str, Any]:
    there = [(gap, part) for gap in gaps for part in gap.parts if part.name == name]
    values = [list(part.values.values()) for _, part in there]
    sds = [stdev(own) if len(own) >= SEEDS_FOR_SPREAD else 0.0 for own in values]
    trace: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [gap.label for gap, _ in there],
        "x": [part.mean for _, part in there],
        "base": [part.begin for _, part in there],
        "opacity": 0.85,  # a part below 0 lies on the one before it
        "customdata": [part.mean for _, part in there],
        "hovertemplate": f"{name}: %{{customdata:+.4g}}<extra>%{{y}}</extra>",
    }
    if any(sds):
        trace["error_x"] = {"type": "data", "array": sds, "thickness": 1.2}
    return trace


def rate_panel(rows: Sequence[Row], directories: Mapping[str, Path]) -> Panel | None:
    """The rate of each latent, largest first, mean over seeds; None where no run has stored it."""
    curves = []
    for row in rows:
        curve = over_seeds(row.label, _ranked(row, directories))
        curves += [curve] if curve else []
    return Panel("Rate by latent", "nats", curves, across=RANK) if curves else None


def _ranked(row: Row, directories: Mapping[str, Path]) -> list[list[tuple[float, float]]]:
    """Of each run of a row the (rank, rate) of its latents, under one protocol."""
    keys = [key for key, score in row.examples.items() if score.quantity == "active_units"]
    tested = [key for key in keys if row.examples[key].split == "test" and key[1] == "final"]
    found = []
    for run, _ in row.scores(tested[-1]) if tested else ():
        rates = rates_by_unit(directories[run.run_id], tested[-1][2])
        if rates:
            ranked = sorted(rates, reverse=True)
            found.append([(float(rank), rate) for rank, rate in enumerate(ranked, 1)])
    return found
