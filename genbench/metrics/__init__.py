"""What a metric is here: quantities estimated from features of real, held-out and generated images.

One metric, one file: a pure function in float64, and a class that gathers what it is fed. To add a
metric, write such a file and name its class in a config of `configs/evaluation`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from genbench.interfaces import Features, ImageMetric, Role

ROLES: tuple[Role, ...] = get_args(Role)


class Quantity(NamedTuple):
    """One number that a metric gives; the evaluation adds the extractor to its name."""

    name: str
    sets: tuple[Role, ...]  # the sets of images that it looks at
    higher_is_better: bool | None
    unit: str = ""


class Estimate(NamedTuple):
    """A quantity's value, and what bounds it where that is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def within(cls, value: float, sd: float | None) -> "Estimate":
        """Bound a value by 1.96 standard deviations to both sides."""
        return cls(value) if sd is None else cls(value, value - 1.96 * sd, value + 1.96 * sd)


class FeatureMetric(ImageMetric):
    """Keeps the tensors it is given, by reference, until `compute` asks for a role's."""

    full_state_update = False
    quantities: ClassVar[Sequence[Quantity]] = ()
    minimum: int = 2  # images that each set must have
    needs_labels: ClassVar[bool] = False  # stays away where the extractor has no classes

    def __init__(self) -> None:
        super().__init__()
        for role in ROLES:
            self.add_state(f"{role}_features", default=[], dist_reduce_fx="cat")
            self.add_state(f"{role}_logits", default=[], dist_reduce_fx="cat")

    @property
    def estimator(self) -> Mapping[str, Any]:
        """What defines the estimator, for the card of its scores."""
        return {}

    def update(self, batch: Features, role: Role) -> None:
        """Take in features (N, D) and logits (N, K) of a role."""
        getattr(self, f"{role}_features").append(batch.features)
        getattr(self, f"{role}_logits").append(batch.logits)

    @abstractmethod
    def compute(self) -> dict[str, Estimate]:
        """Estimate each quantity whose sets have been seen."""

    def features(self, role: Role) -> Tensor:
        """All features of a role, (N, D)."""
        return _joined(getattr(self, f"{role}_features"))

    def logits(self, role: Role) -> Tensor:
        """All logits of a role, (N, K)."""
        return _joined(getattr(self, f"{role}_logits"))

    def has(self, role: Role) -> bool:
        """Tell whether a role has been seen."""
        return bool(getattr(self, f"{role}_features"))


def _joined(batches: Tensor | list[Tensor]) -> Tensor:
    if isinstance(batches, Tensor):  # after a reduction over processes
        return batches
    return batches[0] if len(batches) == 1 else torch.cat(batches)


def check_finite(features: Tensor) -> None:
    """Refuse fewer than two rows, and NaN or infinity: no distance exists. Raises ValueError."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: at least two rows are needed")
    if not bool(features.isfinite().all()):
        raise ValueError("features contain NaN or infinity: the images or the extractor are broken")


def subset(features: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` rows by a permutation that depends on the seed and the number of rows alone."""
    if count >= len(features):
        return features
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return features[order[:count].to(features.device)]
