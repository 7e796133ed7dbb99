"""Classes of pictures: by the folders that hold them, or by the `dataset.json` of NVlabs' tools."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UserMistake

LISTED = "dataset.json"  # Karras et al. 2020, https://github.com/NVlabs/stylegan2-ada-pytorch

REMEDY = 'correct it, or write {"labels": null} into it to do without labels'


class Classes(NamedTuple):
    """Classes of all pictures of a source: `labels` (N,) int64 by a picture's number, into `names`."""

    labels: NDArray[np.int64]
    names: tuple[str, ...]


def named(found: Sequence[Any]) -> Classes:
    """Classes from the name of each picture's class; numbered in their sorted order."""
    values, labels = np.unique(np.array(found), return_inverse=True)
    return Classes(labels.astype(np.int64), tuple(str(value) for value in values))


def by_folder(files: Sequence[str], splits: Collection[str]) -> Classes | None:
    """Classes by the folder that a picture lies in; None if one lies in none.

    `splits` are names of folders that are splits and no classes; empty if there are none.
    """
    folders = [name.split("/")[:-1] for name in files]
    if not folders or not all(path[1:] if path and path[0] in splits else path for path in folders):
        return None
    return named([path[-1] for path in folders])


def listed(content: bytes, where: str) -> tuple[bool, Any]:
    """(whether a file dataset.json lists labels, its list); `where` names it in errors.

    A file of that name may be something else. Raises UserMistake if it is damaged.
    """
    try:
        found = json.loads(content)
    except ValueError as error:
        raise UserMistake(f"{where} is damaged ({error}): replace or remove it") from None
    there = isinstance(found, dict) and "labels" in found
    return there, found["labels"] if there else None


def by_list(pairs: Any, files: Sequence[str], where: str) -> Classes | None:
    """Classes from a list [["00000/img00000000.png", 3], ...]; None if it is null or has vectors.

    Raises UserMistake if it does not match the pictures.
    """
    if pairs is None:
        return None
    labels = _by_name(pairs, where)
    for problem, names in (
        ("labels {}, which is not there", sorted(labels.keys() - set(files))),
        ("has no label for {}", [name for name in files if name not in labels]),
    ):
        if names:
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            raise UserMistake(f"{where} {problem.format(names[0] + more)}: {REMEDY}")
    if any(isinstance(label, list) for label in labels.values()):
        return None
    return named([labels[name] for name in files])


def _by_name(pairs: Any, where: str) -> Mapping[str, Any]:
    try:
        labels = {str(name).replace("\\", "/"): label for name, label in pairs}
    except (ValueError, TypeError):
        raise UserMistake(
            f'{where} does not list labels as [["folder/picture.png", 3], ...]: {REMEDY}'
        ) from None
    for name, label in labels.items():
        if isinstance(label, bool) or not isinstance(label, int | list):
            raise UserMistake(f"{where}: label {label!r} of {name} is no whole number: {REMEDY}")
    return labels
