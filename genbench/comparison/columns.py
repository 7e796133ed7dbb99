"""Columns: one score under one protocol each; scores whose cards differ never share a column."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.settings import flatten, plain
from genbench.errors import UserMistake
from genbench.runs.score import ORDER, Score

# fidelity and variety, and beside them the copy rate: replayed training images lead in all of the former
DEFAULT = (
    "fid", "fid_clean", "fd", "kid", "is", "precision", "recall", "coverage", "copy_rate",
    "label_accuracy", "fd_by_class", "kid_by_class", "coverage_by_class", "cas",
    "modes", "mode_kl", "combinations_covered", "invented", "factor_tv", "pair_tv", "unread", "rfd",
    "psnr", "ssim", "lpips", "elbo", "elbo_subset", "iwae", "nll_ais", "bits_per_dim",
)  # fmt: skip
HEADERS = {
    "fd": "FD", "fid": "FID", "fid_clean": "FID clean", "kid": "KID", "is": "IS", "rfd": "rFD", "psnr": "PSNR",
    "ssim": "SSIM", "lpips": "LPIPS", "elbo": "ELBO", "elbo_subset": "ELBO of IWAE's images",
    "bits_per_dim": "bits/dim", "iwae": "IWAE", "nll_ais": "NLL (AIS)",
    "fd_by_class": "FD by class", "kid_by_class": "KID by class", "cas": "CAS",
    "fd_by_class_worst": "FD of the worst class", "kid_by_class_worst": "KID of the worst class",
    "mode_kl": "mode KL", "factor_tv": "factor TV", "pair_tv": "pair TV", "mig": "MIG",
}  # fmt: skip


@dataclass
class ScoreColumn:
    """One score under one protocol."""

    key: ScoreKey
    example: Score
    header: str


def make_columns(
    rows: Sequence[Row], wanted: Sequence[str], show_all: bool, also: Sequence[str] = ()
) -> list[ScoreColumn]:
    """Find the columns of a table: default quantities, all, or those that `wanted` names.

    Those that `also` names are shown too. Final weights stand before the best ones, and raw before
    averaged ones. Validation scores stand behind those of the test, and are no default unless there
    are no others.
    """
    found: dict[ScoreKey, Score] = {}
    for row in reversed(rows):  # so that the first row's example of a score is kept
        found |= row.examples

    tested = any(score.split == "test" for score in found.values())

    def is_default(score: Score) -> bool:
        return score.quantity in DEFAULT and (score.split == "test" or not tested)

    def is_shown(score: Score) -> bool:
        names = names_of(score)
        if any(name in names for name in also):
            return True
        return bool(names & set(wanted)) if wanted else show_all or is_default(score)

    # of one score those of the first row and of its first protocol come first, so that [a] is of the same
    # runs and protocol in all scores
    first: dict[ScoreKey, int] = {}
    for row in rows:
        for key in row.examples:
            first.setdefault(key, len(first))

    def place(item: tuple[ScoreKey, Score]) -> tuple[int, bool, bool, bool, str, str, int]:
        key, score = item
        behind = (score.split != "test", score.checkpoint != "final", _kind(score) != "raw")
        return _rank(score, wanted), *behind, *key[:2], first[key]

    shown = {key: score for key, score in found.items() if is_shown(score)}
    columns = [ScoreColumn(k, s, _header(s)) for k, s in sorted(shown.items(), key=place)]
    _tell_apart(columns)
    return columns


def names_of(score: Score) -> set[str]:
    """What a user may call a score: `fd`, `fd_lenet-digits-v1`, `fd@best`, `fd@final`, `fd@test`."""
    short = (score.name, score.quantity)
    return {
        *short,
        *(f"{name}@{word}" for name in short for word in (score.checkpoint, score.split)),
    }


def find_column(columns: Sequence[ScoreColumn], name: str) -> ScoreColumn | None:
    """Find the first column that may be called so: of final weights where nothing else is said."""
    exact = (c for c in columns if exact_name(c, columns) == name)
    called = (c for c in columns if name in names_of(c.example))
    return next(exact, None) or next(called, None)


def check_wanted(rows: Iterable[Row], wanted: Sequence[str], option: str = "") -> None:
    """Raise UserMistake for a score that no run has; `option` is where it was asked for."""
    scores = [score for row in rows for score in row.examples.values()] if wanted else []
    there = {name for score in scores for name in (score.name, score.quantity)}
    known = {name for score in scores for name in names_of(score)}
    for name in wanted:
        if known and name not in known:
            raise UserMistake(
                f"{option}no run has a score {name}: there are {', '.join(sorted(there))}"
            )


def _rank(score: Score, wanted: Sequence[str]) -> int:
    order = [*wanted, *ORDER]
    ranks = [order.index(name) for name in names_of(score) if name in order]
    return min(ranks, default=len(order))


def _header(score: Score) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[score.higher_is_better]
    return HEADERS.get(score.quantity, score.quantity.replace("_", " ")) + arrow


def _tell_apart(columns: Sequence[ScoreColumn]) -> None:
    """Give columns of one header different ones: by weights, then by extractor, then by a letter."""
    for tail in (_weights, _told, _tail, None):
        alike: dict[str, list[ScoreColumn]] = defaultdict(list)
        for column in columns:
            alike[column.header].append(column)
        for same in (found for found in alike.values() if len(found) > 1):
            for place, column in enumerate(same):
                word = tail(column.example) if tail else f"[{chr(97 + place)}]"
                column.header = f"{column.header} {word}".rstrip()
    for column in columns:
        for word in (column.key[1], column.example.split):
            if word not in ("final", "test", *column.header.replace(",", "").split()):
                column.header += f" {word}"  # neither passes for the final one on the test


def _weights(score: Score) -> str:
    """Whose weights, in a word, and on which images; blank for the raw ones at the end, on the test."""
    marks = (_kind(score), score.checkpoint, score.split)
    words = [word for word in marks if word not in ("raw", "final", "test")]
    return ", ".join(words)


def _kind(score: Score) -> str:
    return str(score.card.get("fake", {}).get("weights", "raw"))


def _told(score: Score) -> str:
    """What the model was told of the images, in two words; blank for nothing."""
    card = score.card
    parts = [card, *(card.get(part, {}) for part in ("encoded", "reconstructed"))]
    kinds = [
        card.get("fake", {}).get("labels", {}).get("condition"),
        *(p.get("given") for p in parts),
    ]
    return next((f"given {kind}" for kind in kinds if isinstance(kind, str)), "")


def _tail(score: Score) -> str:
    return score.name.removeprefix(f"{score.quantity}_").removesuffix(f"_{score.split}")


def card_differences(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each card, the entries in which it differs from the others."""
    flat = [dict(flatten(card, "")) for card in cards]
    keys = sorted({key for one in flat for key in one})
    differing = [k for k in keys if len({str(one.get(k)) for one in flat}) > 1]
    return [
        ", ".join(f"{key.lstrip('.')}={_short(plain(one[key]))}" for key in differing if key in one)
        for one in flat
    ]


def _short(text: str) -> str:
    """A sha256 in eight digits, other values as they are."""
    return text[:8] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


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
