"""The split whose images score the trials of a search.

The validation split, because what is selected on the test images is no longer measured by them. The
test split is taken where a user asks for it twice, and then every run of the search says so.
"""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from genbench.errors import UserMistake

KEY = "evaluation.split"
VALIDATION, TEST = "validation", "test"
MARK = "search={split:test}"  # of a run that is selected on test scores: see comparison/searched.py


def with_split(overrides: Sequence[str], on_test: bool = False) -> list[str]:
    """The overrides of a search, which say the split that its trials are scored on.

    `on_test` is `hydra.sweeper.on_test`. UserMistake where one of both asks for the test split alone,
    and where the split would vary.
    """
    named = [
        o
        for o in OverridesParser.create().parse_overrides([*overrides])
        if o.get_key_element() == KEY
    ]
    if "evaluation=none" in overrides:
        raise UserMistake(
            "a search selects by the scores of its trials, and evaluation=none computes none: choose "
            "evaluation=quick, standard or full"
        )
    if any(override.is_sweep_override() for override in named):
        raise UserMistake(
            f"a search compares scores of one split: leave out {named[-1].input_line}, and its trials "
            f"are scored on the {VALIDATION} split"
        )
    split = named[-1].get_value_element_as_str() if named else None
    if split == TEST and not on_test:
        raise UserMistake(
            f"{KEY}={TEST}: a search selects on the scores of its trials, and the winner's would be "
            f"better than on new images: leave it out ({VALIDATION} is the default), or add "
            "hydra.sweeper.on_test=true, and its runs are marked as selected on test scores"
        )
    if on_test and split != TEST:
        raise UserMistake(
            f"hydra.sweeper.on_test=true, but the trials are scored on the {split or VALIDATION} split: "
            f"leave it out, or add {KEY}={TEST}"
        )
    if split is None:
        return [*overrides, f"{KEY}={VALIDATION}"]
    return [*overrides, MARK] if split == TEST else [*overrides]


def split_of(fixed: Sequence[str]) -> str:
    """The split that overrides name; the test split where they name none, as before searches did."""
    named = [o.partition("=")[2] for o in fixed if o.partition("=")[0] == KEY]
    return named[-1] if named else TEST


def without_split(fixed: Sequence[str]) -> list[str]:
    """Overrides without the split and the mark, in an order of their own."""
    return sorted(o for o in fixed if o != MARK and o.partition("=")[0] != KEY)
