"""Two runs side by side: settings that differ, scores with their intervals, ends of curves. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.comparison.rows import ScoreKey, score_key
from genbench.comparison.settings import flatten, plain
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.runs.result import Result
from genbench.runs.score import ORDER, Score

Points = Sequence[tuple[float, float]]
# of a config: where a run is, and what is written into others of its keys
_ELSEWHERE = (
    "run_id",
    "paths.",
    "network.decoder.",
    "network.trunk.",
    "network.encoder.",
    "arena.",
)
_NOTE = (
    "bold: the interval is on the better side of the other one's, and they do not overlap; it is of these "
    "weights, and says nothing of other seeds (compare has those)"
)


def diff_tables(
    pair: tuple[Result, Result], curves: tuple[Mapping[str, Points], Mapping[str, Points]]
) -> list[Table]:
    """Tables of settings, scores and curves of two runs; `curves` are their histories over images."""
    return [_settings(pair), _scores(pair), _curves(pair, curves)]


def _columns(pair: tuple[Result, Result], first: str, *more: str) -> list[Column]:
    names = [f"{run.run_id}" for run in pair]
    return [
        Column(first, first, numeric=False),
        *(Column(f"{place}", name) for place, name in zip("AB", names, strict=True)),
        *(Column(name, name) for name in more),
    ]


def _settings(pair: tuple[Result, Result]) -> Table:
    flat = [_flat(run.config) for run in pair]
    keys = [
        key for key in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(key) != flat[1].get(key)
    ]
    rows = [
        [
            Cell(key, {"key": key}),
            *(Cell(one.get(key, ""), {"value": one.get(key)}) for one in flat),
        ]
        for key in sorted(keys)
    ]
    same = pair[0].fingerprint == pair[1].fingerprint
    what = "one method: seeds of it" if same else "two methods"
    notes = [f"{what}{'' if rows else '; no setting differs'}"]
    return Table("settings that differ", _columns(pair, "setting"), rows, notes)


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and values as one writes them, without what follows from others."""
    found: dict[str, str] = {}
    for name, node in config.items():
        leaves = flatten(node, name) if isinstance(node, Mapping) else [(name, node)]
        found |= {k: plain(v) for k, v in leaves if not k.startswith(_ELSEWHERE)}
    return found


def _scores(pair: tuple[Result, Result]) -> Table:
    """The newest score of each name, checkpoint and card; those of different cards in rows of their own."""
    found: dict[ScoreKey, dict[int, Score]] = {}
    for place, run in enumerate(pair):
        for score in run.scores:
            found.setdefault(score_key(score), {})[place] = score
    names = [key[0] for key in found]
    rows = []
    for key in sorted(found, key=lambda key: _position(key[0], key)):
        own = found[key]
        label = key[0] if key[1] == "final" else f"{key[0]} ({key[1]})"
        alone = len(own) == 1 and names.count(key[0]) > 1
        label += f" [{key[2]}]" if alone else ""
        rows.append([Cell(label, {"name": label}), *_sides(own), _difference(own)])
    notes = [_NOTE] if rows else ["neither run has scores"]
    if any("[" in row[0].text for row in rows):
        notes.append(
            "[...]: measured by another card than the other run's of that name, so not to be compared"
        )
    return Table("scores", _columns(pair, "score", "B - A"), rows, notes)


def _position(name: str, key: ScoreKey) -> tuple[int, ScoreKey]:
    place = [
        i for i, quantity in enumerate(ORDER) if name == quantity or name.startswith(f"{quantity}_")
    ]
    return (place[-1] if place else len(ORDER)), key


def _sides(own: Mapping[int, Score]) -> list[Cell]:
    cells = []
    for place in (0, 1):
        score = own.get(place)
        if score is None:
            cells.append(Cell())
            continue
        text = score.status if score.value is None else number(score.value)
        if score.low is not None and score.high is not None:
            text += f" [{number(score.low)}, {number(score.high)}]"
        exact = {"value": score.value, "low": score.low, "high": score.high, "status": score.status}
        cells.append(Cell(text, exact, strong=_is_better(score, own.get(1 - place))))
    return cells


def _is_better(score: Score, other: Score | None) -> bool:
    if other is None or None in (score.low, score.high, other.low, other.high):
        return False
    assert score.low is not None and score.high is not None
    assert other.low is not None and other.high is not None
    above, below = score.low > other.high, score.high < other.low
    return {True: above, False: below, None: False}[score.higher_is_better]


def _difference(own: Mapping[int, Score]) -> Cell:
    if len(own) < 2 or own[0].value is None or own[1].value is None:
        return Cell()
    value = own[1].value - own[0].value
    return Cell(f"{'+' if value > 0 else ''}{number(value)}", {"value": value})


def _curves(
    pair: tuple[Result, Result], curves: tuple[Mapping[str, Points], Mapping[str, Points]]
) -> Table:
    """The last place that both have on each curve, and the values there."""
    rows = []
    for name in sorted(set(curves[0]) & set(curves[1])):
        first, second = dict(curves[0][name]), dict(curves[1][name])
        common = sorted(set(first) & set(second))
        if common:
            at = common[-1]
            values = first[at], second[at]
            cells = [Cell(number(value), {"value": value}) for value in values]
            rows.append([Cell(name, {"name": name}), *cells, Cell(number(at), {"value": at})])
    notes = [] if rows else ["no curve has a place that both runs logged"]
    return Table(
        "curves, where both have their last point", _columns(pair, "curve", "images"), rows, notes
    )
