"""How pictures are divided into training, validation and test: the same way for every run."""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from genbench.data.contract import Split
from genbench.errors import UserMistake

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SPLIT_SEED = 20_240_229  # of every declared split: independent of a run's seed, and never changed

Amount = int | float  # a number of pictures from 1 on, or a fraction below 1

SplitIndices = dict[Split, NDArray[np.int64]]


def part_sizes(count: int, validation: Amount, test: Amount = 0) -> tuple[int, int, int]:
    """Numbers of pictures for training, validation and test out of `count`.

    Raises UserMistake if one that is wanted would be empty.
    """
    sizes = _size(validation, count), _size(test, count)
    train = count - sum(sizes)
    if train < 1 or (validation and not sizes[0]) or (test and not sizes[1]):
        raise UserMistake(
            f"{count} pictures cannot give dataset.validation={validation} and "
            f"dataset.test={test} and leave some for training: add pictures, or set other shares"
        )
    return train, *sizes


def set_aside(count: int, validation: Amount, test: Amount = 0) -> SplitIndices:
    """Cut 0 .. count - 1 by one fixed permutation: train first, then validation, then test."""
    train, held, _ = part_sizes(count, validation, test)
    order = np.random.RandomState(SPLIT_SEED).permutation(count).astype(np.int64)
    parts = np.split(order, [train, train + held])
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def _size(amount: Amount, count: int) -> int:
    """Pictures out of `count`."""
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount >= 0:
        raise UserMistake(
            f"{amount!r} is no part of a dataset: give a number or a fraction below 1"
        )
    return int(amount) if amount >= 1 else round(amount * count)


def official(train: int, validation: Amount, test: int) -> SplitIndices:
    """Splits of a set with `train` and then `test` official pictures; validation is cut from train."""
    parts = set_aside(train, validation)
    return {**parts, "test": np.arange(train, train + test)}


def misread_folders(names: Iterable[str], splits: Collection[str], divided: bool) -> str | None:
    """A sentence on folders that look like splits and are none, or the reverse; None if all is plain.

    `names` are the pictures' paths, `splits` the names of folders that are splits, which are used as
    such if the pictures are `divided`, that is, if there is a folder train.
    """
    tops = sorted({name.split("/")[0] if "/" in name else "" for name in names})
    if divided:
        beside = [f"in {top}/" if top else "in no folder" for top in tops if top not in splits]
        if not beside:
            return None
        return (
            f"pictures that lie beside the folder train ({', '.join(beside[:5])}) count as training "
            "pictures: move them if they are none"
        )
    alike = [top for top in tops if top.lower() in {*splits, "training", "testing"}]
    if not alike:
        return None
    return (
        f"what lies in {', '.join(alike)} is no split but divided with all other pictures: for splits "
        "name the folders train, validation and test (there must be a train)"
    )
