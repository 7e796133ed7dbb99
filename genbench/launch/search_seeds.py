"""A trial of a search over several seeds: one run after the other, and their mean."""

from collections.abc import Sequence
from statistics import fmean, stdev

from genbench.errors import UserMistake
from genbench.launch.search_space import Space

VALUES = "values"  # user attribute of a trial: the objectives of each seed so far


def check_seeds(space: Space, seeds: int) -> None:
    """UserMistake where the space says otherwise what seeds there are."""
    if seeds > 1 and "seed" in space.varying:
        raise UserMistake(
            f"hydra.sweeper.seeds={seeds} trains every trial with {seeds} seeds, and seed=... varies too: leave "
            "one of them out"
        )
    if seeds > 1:
        first_seed(space.fixed)


def first_seed(overrides: Sequence[str]) -> int:
    """The seed that overrides give, 0 by default. UserMistake for one that is no number."""
    given = [o.partition("=")[2] for o in overrides if o.partition("=")[0].lstrip("+") == "seed"]
    try:
        return int(given[-1]) if given else 0
    except ValueError:
        raise UserMistake(
            f"seed={given[-1]} is no number from which hydra.sweeper.seeds could be counted"
        ) from None


def with_seed(overrides: Sequence[str], place: int) -> list[str]:
    """The overrides of a trial's run at `place`, from 0: the first seed and those that follow it."""
    kept = [o for o in overrides if o.partition("=")[0].lstrip("+") != "seed"]
    return [*kept, f"seed={first_seed(overrides) + place}"]


def means(values: Sequence[Sequence[float]]) -> list[float]:
    """Of each objective over seeds, for values by seed."""
    return [fmean(own) for own in zip(*values, strict=True)]


def in_words(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Each objective's mean and standard deviation over seeds: `fd=5.2 ± 0.31`; none of one seed."""
    parts = []
    for name, own in zip(names, zip(*values, strict=True), strict=True):
        spread = f" ± {stdev(own):.2g}" if len(own) > 1 else ""
        parts.append(f"{name}={fmean(own):.4g}{spread}")
    return " ".join(parts)
