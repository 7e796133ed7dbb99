"""Columns: one score under one protocol each; numbers whose cards differ never share one."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.comparison.rows import Row, ScoreKey, score_key
from genbench.comparison.settings import flatten, plain
from genbench.errors import UserMistake
from genbench.results import Result
from genbench.score import ORDER, Score

DEFAULT = (
    "fid", "fid_clean", "fd", "kid", "is", "coverage", "elbo", "iwae", "nll_ais", "bits_per_dim",
)  # fmt: skip
HEADERS = {
    "fd": "FD", "fid": "FID", "fid_clean": "FID clean", "kid": "KID", "is": "IS", "elbo": "ELBO",
    "bits_per_dim": "bits/dim", "iwae": "IWAE", "nll_ais": "NLL (AIS)",
}  # fmt: skip


@dataclass
class ScoreColumn:
    """One score under one protocol."""

    key: ScoreKey
    example: Score
    header: str


def make_columns(rows: Sequence[Row], wanted: Sequence[str], show_all: bool) -> list[ScoreColumn]:
    """Find the columns of a table: default quantities, all, or those that `wanted` names."""
    found: dict[ScoreKey, Score] = {}
    for row in rows:
        for run in row.runs:
            for score in run.scores:
                found.setdefault(score_key(score), score)

    def is_shown(score: Score) -> bool:
        names = (score.name, score.quantity)
        return any(n in wanted for n in names) if wanted else show_all or score.quantity in DEFAULT

    shown = {key: score for key, score in found.items() if is_shown(score)}
    ordered = sorted(shown.items(), key=lambda item: (_rank(item[1], wanted), item[0]))
    columns = [ScoreColumn(key, score, _header(score)) for key, score in ordered]
    _tell_apart(columns)
    return columns


def check_wanted(results: Iterable[Result], wanted: Sequence[str]) -> None:
    """Raise UserMistake for a score that no run has."""
    scores = [score for result in results for score in result.scores]
    there = {name for score in scores for name in (score.name, score.quantity)}
    for name in wanted:
        if there and name not in there:
            raise UserMistake(f"no run has a score {name}: there are {', '.join(sorted(there))}")


def _rank(score: Score, wanted: Sequence[str]) -> int:
    order = [*wanted, *ORDER]
    ranks = [order.index(name) for name in (score.name, score.quantity) if name in order]
    return min(ranks, default=len(order))


def _header(score: Score) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[score.higher_is_better]
    return HEADERS.get(score.quantity, score.quantity.replace("_", " ")) + arrow


def _tell_apart(columns: Sequence[ScoreColumn]) -> None:
    """Give columns of one header different ones: by weights, then by extractor, then by a letter."""
    for tail in (_weights, _tail, None):
        alike: dict[str, list[ScoreColumn]] = defaultdict(list)
        for column in columns:
            alike[column.header].append(column)
        for same in (found for found in alike.values() if len(found) > 1):
            for place, column in enumerate(same):
                word = tail(column.example) if tail else f"[{chr(97 + place)}]"
                column.header = f"{column.header} {word}".rstrip()


def _weights(score: Score) -> str:
    """Whose weights, in a word; blank for the raw ones at the end."""
    kind = score.card.get("fake", {}).get("weights", "raw")
    words = [word for word in (kind, score.checkpoint) if word not in ("raw", "final")]
    return ", ".join(words)


def _tail(score: Score) -> str:
    return score.name.removeprefix(f"{score.quantity}_")


def card_differences(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each card, the entries in which it differs from the others."""
    flat = [dict(flatten(card, "")) for card in cards]
    keys = sorted({key for one in flat for key in one})
    differing = [k for k in keys if len({str(one.get(k)) for one in flat}) > 1]
    return [
        ", ".join(f"{key.lstrip('.')}={plain(one[key])}" for key in differing if key in one)
        for one in flat
    ]


def bare(column: ScoreColumn) -> str:
    """Name a column in a sentence: `FD`, `ELBO (nats)`."""
    name = column.header.replace(" ↑", "").replace(" ↓", "")
    return f"{name} ({column.example.unit})" if column.example.unit else name


def exact_name(column: ScoreColumn, columns: Sequence[ScoreColumn]) -> str:
    """Name a column exactly: by its score, and by its protocol where the name is not enough."""
    name, checkpoint, protocol = column.key
    name = name if checkpoint == "final" else f"{name}@{checkpoint}"
    alone = sum(other.key[:2] == column.key[:2] for other in columns) == 1
    return name if alone else f"{name} [{protocol}]"
