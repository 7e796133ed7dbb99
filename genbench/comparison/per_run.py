"""One line per run with all its scores, costs and settings, for a spreadsheet or a data frame."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genbench.comparison.settings import flatten
from genbench.comparison.tables import Cell, Column, Table
from genbench.runs.priors import prior_of, slug
from genbench.runs.result import Result
from genbench.runs.score import Score

_FIRST = ("run", "model", "dataset", "seed", "study", "tags", "status", "reason", "fingerprint")


def wide_table(results: Iterable[Result]) -> Table:
    """Every run, failed and repeated ones too: what it is, scores, cost, budget, then its settings.

    A score's column is its name, `name@best` for other weights than the final ones, `name@mixture` for
    samples of another prior, and `name [card]` where cards differ; a second column `... status` is there where a value is missing or doubtful.
    Settings are `config.<key>`, lists in JSON.
    """
    runs = sorted(results, key=lambda run: run.run_id)
    crowded = _under_several_protocols(runs)
    lines = [_line(run, crowded) for run in runs]
    keys = [*_FIRST, *(key for key in _keys(lines) if key not in _FIRST)]
    columns = [Column(key, key, numeric=False) for key in keys]
    cells = [[Cell(_text(one.get(k)), {"value": one.get(k)}) for k in keys] for one in lines]
    return Table("", columns, cells)


def _keys(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in the order of the first run that has them, each kind together."""
    kinds = ("score", "cost", "budget", "config")
    keys = dict.fromkeys(key for one in lines for key in one)
    return sorted(keys, key=lambda key: kinds.index(_kind(key)))


def _kind(key: str) -> str:
    kind = key.partition(".")[0]
    return kind if kind in ("cost", "budget", "config") else "score"


def _line(run: Result, crowded: set[tuple[str, str]]) -> dict[str, Any]:
    first = {
        "run": run.run_id,
        "model": run.model,
        "dataset": run.dataset,
        "seed": run.seed,
        "study": run.study,
        "tags": ",".join(run.tags),
        "status": run.status,
        "reason": run.reason,
        "fingerprint": run.fingerprint,
    }
    scores: dict[str, Any] = {}
    for score in run.scores:  # of several under one protocol the newest
        name = _name(score, crowded)
        scores[name] = score.value
        scores.pop(f"{name} status", None)
        if score.status != "ok":
            scores[f"{name} status"] = score.status
    rest = {"cost": run.cost, "budget": run.budget, "config": run.config}
    flat = dict(leaf for name, node in rest.items() for leaf in flatten(node, name))
    return first | scores | {k: _plain(v) for k, v in flat.items()}


def _name(score: Score, crowded: set[tuple[str, str]]) -> str:
    name = _plain_name(score)
    is_crowded = (name, score.checkpoint) in crowded
    return f"{name} [{score.protocol}]" if is_crowded else name


def _plain_name(score: Score) -> str:
    prior = prior_of(score)
    name = score.name if score.checkpoint == "final" else f"{score.name}@{score.checkpoint}"
    return f"{name}@{slug(prior)}" if prior else name


def _under_several_protocols(runs: Iterable[Result]) -> set[tuple[str, str]]:
    """Names and checkpoints of scores whose cards are not all the same."""
    keys = {
        (_plain_name(score), score.checkpoint, score.protocol)
        for run in runs
        for score in run.scores
    }
    counts = Counter(key[:2] for key in keys)
    return {name for name, count in counts.items() if count > 1}


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _text(value: Any) -> str:
    return "" if value is None else str(value)
