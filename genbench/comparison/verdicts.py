"""How each method stands to one of them: differences with intervals, and a verdict in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from genbench.comparison.columns import ScoreColumn, card_differences, exact_name
from genbench.comparison.family import family, pair
from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.settings import images_text
from genbench.comparison.significance import SEEDS_FOR_VERDICT, Difference, Pair, differences
from genbench.comparison.table import Arena
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.comparison.winners import equal_budgets, equal_cost, images_shown, more_real_images
from genbench.errors import UserMistake

_HEADS = (
    Column("model", "model", numeric=False),
    Column("score", "score", numeric=False),
    Column("delta", "difference"),
    Column("low", "low"),
    Column("high", "high"),
    Column("holm_p", "p (Holm)"),
    Column("n", "n"),
    Column("n_versus", "n versus"),
    Column("verdict", "verdict", numeric=False),
)
_INTERVAL = (
    "differences of means, with Welch's 95 % interval: it covers what other training seeds would give at "
    "this number of samples; an FD of n samples is too high by an amount that differs between models, and "
    "no interval covers that"
)


@dataclass(frozen=True)
class Standing:
    """A method against another: `not_compared` says which scores cannot be compared, and why."""

    row: Row
    versus: Row
    differences: Sequence[Difference]
    headers: Sequence[str]  # of each difference, as in the table
    units: Sequence[str]
    not_compared: Sequence[str]

    @property
    def sentence(self) -> str:
        """The verdict in words: scores, budgets, seeds, and runs that did not finish."""
        none = "no score that is tested is shown" if self.differences else "no score in common"
        verdicts = _verdicts(self) or [none]
        parts = [*verdicts, *_budgets(self), *_seeds(self), *self.not_compared]
        parts += [words for row in (self.row, self.versus) for words in _unfinished(row)]
        return f"{self.row.label} against {self.versus.label}: {'; '.join(parts)}"


def find_versus(rows: Sequence[Row], name: str) -> list[Row]:
    """Find the row of each dataset that is called so: by label, fingerprint or model.

    Raises UserMistake where there is none, or several in one dataset.
    """
    found: dict[str, list[Row]] = {}
    for called in (_labelled, _of_model):
        for row in (row for row in rows if called(row, name)):
            found.setdefault(row.dataset, []).append(row)
        if found:
            break
    if not found:
        labels = ", ".join(dict.fromkeys(row.label for row in rows))
        raise UserMistake(f"--versus {name} is no row of the table: there are {labels}")
    for dataset, several in found.items():
        if len(several) > 1:
            labels = ", ".join(f"'{row.label}' ({row.any_run().fingerprint})" for row in several)
            raise UserMistake(
                f"--versus {name} is {len(several)} rows on {dataset}: give one of {labels}, "
                "or its fingerprint"
            )
    return [row for several in found.values() for row in several]


def _labelled(row: Row, name: str) -> bool:
    return name == row.label or (name == row.any_run().fingerprint and not row.prior)


def _of_model(row: Row, name: str) -> bool:
    return row.model == name and not row.untrained and not row.prior


def standings(
    rows: Sequence[Row], columns: Sequence[ScoreColumn], versus: Row, chosen_by_score: bool = False
) -> list[Standing]:
    """Compare every other trained row of the dataset and of its prior with `versus`, in the order of `rows`.

    Holm over all these rows and the whole family of scores, whatever `columns` are shown. With
    `chosen_by_score`, `versus` was chosen because of its scores: then the family is all pairs of rows.
    """
    others = _others(rows, versus)
    by_pair = _tested([*others, versus], versus, chosen_by_score)
    return [_standing(row, columns, versus, by_pair) for row in others]


def _others(rows: Sequence[Row], versus: Row) -> list[Row]:
    """Trained rows of the same prior: those of another one are of the same trainings."""
    alike = (row for row in rows if row is not versus and row.prior == versus.prior)
    return [row for row in alike if row.runs and not row.untrained]


def _tested(
    rows: Sequence[Row], versus: Row, all_pairs: bool
) -> dict[tuple[str, ScoreKey], Difference]:
    """Differences of each row to `versus` in each score of the family, by label and key."""
    asked: list[tuple[Row, Row, ScoreKey, Pair]] = []
    keys = list(family(rows))
    for one, other in combinations(rows, 2):  # `versus` is the last one
        if all_pairs or other is versus:
            found = ((key, pair(one, other, key, key[0])) for key in keys)
            asked += [(one, other, key, compared) for key, compared in found if compared]
    corrected = differences([compared for *_, compared in asked])
    return {
        (one.label, key): difference
        for (one, other, key, _), difference in zip(asked, corrected, strict=True)
        if other is versus
    }


def _standing(
    row: Row,
    columns: Sequence[ScoreColumn],
    versus: Row,
    tested: Mapping[tuple[str, ScoreKey], Difference],
) -> Standing:
    found: list[tuple[ScoreColumn, Difference]] = []
    doubtful = []
    for column in columns:
        name = exact_name(column, columns)
        if row.doubtful(column.key) or versus.doubtful(column.key):
            doubtful.append(_plain(column.header))
        elif difference := tested.get((row.label, column.key)):
            found.append((column, replace(difference, metric=name)))
        elif untested := pair(row, versus, column.key, name, tested=False):
            found.append((column, differences([untested])[0]))
    brackets = [f"in brackets, not compared: {', '.join(doubtful)}"] if doubtful else []
    return Standing(
        row,
        versus,
        [difference for _, difference in found],
        [column.header for column, _ in found],
        [column.example.unit for column, _ in found],
        [*brackets, *_other_protocols(row, columns, versus)],
    )


def _other_protocols(row: Row, columns: Sequence[ScoreColumn], versus: Row) -> Iterable[str]:
    """Say which quantities both have, but under protocols or likelihoods that are not the same."""
    by_quantity: dict[tuple[str, str], list[ScoreColumn]] = {}
    for column in columns:
        by_quantity.setdefault((column.example.quantity, column.key[1]), []).append(column)
    for same in by_quantity.values():
        own = [column for column in same if row.values(column.key)]
        other = [column for column in same if versus.values(column.key)]
        if own and other and not {c.key for c in own} & {c.key for c in other}:
            cards = [own[0].example.card, other[0].example.card]
            mine, theirs = card_differences(cards)
            yield f"{own[0].example.quantity} not compared: {mine} against {theirs}"


# --- words --------------------------------------------------------------------------------------
_WORDS = {
    "better": "better on",
    "worse": "worse on",
    "better in finished runs": "better only if lost runs are left out:",
    "worse in finished runs": "worse only if lost runs are left out:",
    "undecided": "not told apart on",
}


def _verdicts(standing: Standing) -> list[str]:
    by_verdict: dict[str, list[str]] = {}
    for one, header, unit in zip(
        standing.differences, standing.headers, standing.units, strict=True
    ):
        if one.verdict == "not tested":
            continue
        size = "" if one.verdict == "undecided" else f" by {_size(one)}{f' {unit}' if unit else ''}"
        by_verdict.setdefault(one.verdict, []).append(_plain(header) + size)
    said = [
        f"{words} {_and(by_verdict[verdict])}"
        for verdict, words in _WORDS.items()
        if verdict in by_verdict
    ]
    few = by_verdict.get("too few seeds")
    if few:
        everything = len(by_verdict) == 1
        where = "" if everything else f" on {_and([words.split(' by ')[0] for words in few])}"
        said.append(f"too few seeds for a verdict{where} (it takes {SEEDS_FOR_VERDICT} each)")
    return said


def _size(one: Difference) -> str:
    """`6.1 [4.8, 7.3]`: without sign, since the words give the direction."""
    low, high = one.low or 0.0, one.high or 0.0
    ends = (low, high) if one.delta > 0 else (-high, -low)
    return f"{number(abs(one.delta), 3)} [{number(ends[0], 3)}, {number(ends[1], 3)}]"


def _budgets(standing: Standing) -> list[str]:
    if cost := equal_cost([standing.row, standing.versus]):
        return [f"at equal {cost}"]
    own, other = images_shown(standing.row), images_shown(standing.versus)
    if own is None or other is None:
        return []
    if equal_budgets([standing.row, standing.versus]):
        more = more_real_images([standing.row, standing.versus])
        return [f"at equal images ({images_text(round(own))})", *([more] if more else [])]
    return [
        f"at UNEQUAL images ({images_text(round(own))} against {images_text(round(other))}), which is "
        "not the method alone"
    ]


def _seeds(standing: Standing) -> list[str]:
    counts = {(one.n_a, one.n_b) for one in standing.differences}
    if len(counts) != 1:
        return []
    own, other = counts.pop()
    return [f"{own} {_seed(own)} each" if own == other else f"{own} and {other} seeds"]


def _seed(count: int) -> str:
    return "seed" if count == 1 else "seeds"


def _unfinished(row: Row) -> Iterable[str]:
    total = len(row.runs) + len(row.unfinished)
    lost = {run.run_id for run in row.lost}
    counts = Counter((run.status, run.run_id in lost) for run in row.unfinished)
    for (status, counted), count in sorted(counts.items()):
        why = {"interrupted": "can be resumed", "failed": "its seed was run again"}.get(status)
        note = f" ({why}: does not count as lost)" if why and not counted else ""
        yield f"{count} of {total} runs of {row.label} {status}{note}"


def _plain(header: str) -> str:
    return header.replace(" ↑", "").replace(" ↓", "")


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- the table ----------------------------------------------------------------------------------
def versus_tables(arenas: Sequence[Arena], name: str) -> list[Table]:
    """Make a table of differences to the row called `name` for each dataset that has it."""
    rows = find_versus([row for arena in arenas for row in arena.rows], name)
    by_dataset = {row.dataset: row for row in rows}
    return [
        _table(arena, by_dataset[arena.dataset]) for arena in arenas if arena.dataset in by_dataset
    ]


def _table(arena: Arena, versus: Row) -> Table:
    """A line per model and score, and the verdicts below."""
    found = standings(arena.rows, arena.columns, versus)
    title = f"{arena.dataset}: differences to {versus.label}" if found else arena.dataset
    lines = [
        _line(one, header)
        for standing in found
        for one, header in zip(standing.differences, standing.headers, strict=True)
    ]
    sentences = [standing.sentence for standing in found] or ["there is no other row"]
    return Table(title, _HEADS, lines, [*sentences, _INTERVAL, _correction(arena, versus)])


def _correction(arena: Arena, versus: Row) -> str:
    """Say what p (Holm) is corrected over."""
    rows = _others(arena.rows, versus)
    scores, others = len(family([*rows, versus])), len(rows)
    return (
        f"p (Holm): what the verdict is by, corrected over {scores} {'score' if scores == 1 else 'scores'} "
        f"of {others} {'row' if others == 1 else 'rows'}: all scores with a direction, shown or not; lost "
        "runs (diverged, failed) count as worst"
    )


def _line(one: Difference, header: str) -> list[Cell]:
    return [
        Cell(one.a, {"label": one.a}),
        Cell(header, {"value": one.metric}),
        *(Cell(number(v, 3), {"value": v}) for v in (one.delta, one.low, one.high)),
        Cell(number(one.holm_p, 2), {"value": one.holm_p, "uncorrected": one.p}),
        *(Cell(str(n), {"value": n}) for n in (one.n_a, one.n_b)),
        Cell(one.verdict, {"value": one.verdict}),
    ]
