"""What a model is told about its images: which labels there are, and which it gets when it is sampled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.contract import ImageData, Split
from genbench.errors import UserMistake
from genbench.networks.conditional import NONE, given
from genbench.ranges import number
from genbench.runs.score import digest

KINDS = ("none", "class", "attributes")
ROWS = 16  # of a grid with a row per label, at most


@dataclass(frozen=True)
class Condition:
    """The labels of a dataset as a model gets them: `class` (N,), or `attributes` (N, A) of 0 and 1.

    `names` are those of the classes or attributes, `training` the labels of the training images: labels
    of samples are drawn from them. `dropout` is the share of the images whose label is hidden in training.
    """

    kind: str
    names: tuple[str, ...]
    training: Tensor
    dropout: float = 0.0
    _by_split: dict[Split, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def draw(self, n: int, seed: int) -> Tensor:
        """Labels of `n` training images, drawn with replacement by a generator of its own, on the CPU."""
        own = torch.Generator().manual_seed(int(digest(["labels", seed], 15), 16))
        return self.training[torch.randint(len(self.training), (n,), generator=own)]

    def of(self, data: ImageData, split: Split) -> Tensor:
        """Labels of the images of a split, by index, on the CPU."""
        if split == "train":
            return self.training
        if split not in self._by_split:
            self._by_split[split] = _read(self.kind, data, split)[1]
        return self._by_split[split]

    def rows(self) -> Tensor:
        """Labels of a grid's rows: the first 16 classes; of attributes the commonest combinations."""
        if self.kind == "class":
            return torch.arange(min(len(self.names), ROWS))
        found, counts = np.unique(self.training.numpy(), axis=0, return_counts=True)
        return torch.from_numpy(found[np.argsort(-counts, kind="stable")[:ROWS]])

    @property
    def given(self) -> dict[str, Any]:
        """For the card of a score that gives the model the labels of real images."""
        return {"given": self.kind}

    def card(self, seed: int) -> dict[str, Any]:
        """How the labels of generated images are drawn, for the card of a score."""
        return {"labels": {"condition": self.kind, "drawn_from": "train", "seed": seed}}

    def named(self, name: str, n: int) -> Tensor:
        """Labels (n,) of a class given by its name, or by its index; UserMistake for none of them.

        `none` hides the label, which a model knows only if it was trained so.
        """
        if self.kind != "class":
            raise UserMistake(
                f"--label {name}: this model knows attributes, not classes: choose --attributes "
                f"{self.names[0]}=1"
            )
        if name in self.names:
            place = self.names.index(name)
        elif name == "none" and self.dropout:
            place = NONE
        elif name.isdecimal() and int(name) < len(self.names):
            place = int(name)
        else:
            raise UserMistake(f"there is no class {name!r}: choose one of {_listed(self.names)}")
        return torch.full((n,), place, dtype=torch.int64)

    def with_attributes(self, wanted: Mapping[str, int], n: int, seed: int) -> Tensor:
        """Labels (n, A) of training images that have the attributes in `wanted`, 0 or 1 each; UserMistake.

        What is not named is as it is in these images.
        """
        if self.kind != "attributes":
            raise UserMistake(
                f"this model knows classes, not attributes: choose --label {self.names[0]}"
            )
        alike = torch.ones(len(self.training), dtype=torch.bool)
        for name, value in wanted.items():
            if name not in self.names:
                raise UserMistake(
                    f"there is no attribute {name!r}: choose among {_listed(self.names)}"
                )
            alike &= self.training[:, self.names.index(name)] == value
        if not bool(alike.any()):
            given_as = ",".join(f"{name}={value}" for name, value in wanted.items())
            raise UserMistake(f"no training image has {given_as}: name fewer attributes")
        return replace(self, training=self.training[alike]).draw(n, seed)


def condition_of(kind: str, dropout: float, data: ImageData) -> Condition | None:
    """The condition that a config asks for; None without one. UserMistake where the data has no labels."""
    if kind not in KINDS:
        raise UserMistake(f"arena.condition={kind} is not one of {', '.join(KINDS)}")
    number("arena.label_dropout", dropout)
    if dropout >= 1:
        raise UserMistake(f"arena.label_dropout={dropout} hides every label: choose less than 1")
    if kind == "none":
        return None
    names, labels = _read(kind, data, "train")
    return Condition(kind, names, labels, dropout)


def _read(kind: str, data: ImageData, split: Split) -> tuple[tuple[str, ...], Tensor]:
    """Names, and labels of a split."""
    if kind == "class":
        labels, names = data.labels(split), data.class_names
        if labels is not None and names:
            return tuple(names), torch.from_numpy(labels)
        remedy = "arena.condition=attributes or none"
    else:
        found = data.attributes(split)
        if found is not None:
            return found.names, torch.from_numpy(found.values)
        remedy = "arena.condition=class or none"
    raise UserMistake(
        f"arena.condition={kind}: nothing is known of the {_PLURAL[kind]} of {data.name}: choose {remedy}, or "
        "a dataset that has them (`genbench data check NAME` lists classes)"
    )


_PLURAL = {"class": "classes", "attributes": "attributes"}


def dropped(
    labels: Tensor | None,
    condition: Condition | None,
    uniform: Callable[[int], Tensor],
    pieces: int,
) -> Tensor | None:
    """Labels of a step with a share of them hidden: `uniform(n)` draws U(0, 1), for each of its `pieces`."""
    if labels is None or condition is None or not condition.dropout:
        return labels
    draws = torch.cat([uniform(len(piece)) for piece in labels.chunk(pieces)])
    hidden = draws < condition.dropout
    return labels.masked_fill(hidden if labels.ndim == 1 else hidden[:, None], NONE)


def example(condition: Condition | None, n: int) -> tuple[Tensor, ...]:
    """Some labels for `n` images, as further arguments of a trial step or sample; none without a condition."""
    return given(None if condition is None else condition.draw(n, 0))


def asked(
    condition: Condition | None, label: str | Mapping[str, int] | None, n: int, seed: int
) -> Tensor | None:
    """Labels of `n` samples for a class, or for attributes of 0 or 1; None for neither.

    Raises UserMistake for what is not known, and for a model that was told no labels.
    """
    if label is None:
        return None
    if condition is None:
        raise UserMistake(
            "this model was trained without labels, so it cannot be asked for one: train with arena.condition=class"
        )
    if isinstance(label, str):
        return condition.named(label, n)
    return condition.with_attributes(label, n, seed)


def parsed_attributes(text: str) -> dict[str, int]:
    """`Smiling=1,Male=0` as a mapping. Raises UserMistake."""
    found = {}
    for part in text.split(","):
        name, _, value = part.strip().rpartition("=")
        if not name or value not in ("0", "1"):
            raise UserMistake(
                f"--attributes {text}: {part!r} is no attribute and 0 or 1: write Smiling=1,Male=0"
            )
        found[name] = int(value)
    return found


def labels_of(
    condition: Condition | None,
    data: ImageData,
    split: Split,
    numbers: NDArray[np.int64],
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Labels of some images of a split, as further arguments of a call; none without a condition."""
    if condition is None:
        return ()
    return (condition.of(data, split)[torch.from_numpy(numbers)].to(device),)


def _listed(names: tuple[str, ...], most: int = 60) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
