"""What a metric and an extractor must offer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class Features(NamedTuple):
    """What an extractor says of a batch: features (N, D), logits (N, K), both float32."""

    features: Tensor
    logits: Tensor


class Extractor(nn.Module, ABC):
    """A fixed feature network, always in eval mode, always float32."""

    name: str
    card: Mapping[str, Any]  # name, sha256 of the weights, layer, input size, resize

    @abstractmethod
    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features of level indices (N, C, H, W) uint8 in 0 .. levels - 1."""

    def prepare(self) -> None:  # noqa: B027
        """Find the weights, or fetch them; raises UserMistake with what to do when that fails."""

    def train(self, mode: bool = True) -> "Extractor":
        """Stay in eval mode, whatever a parent module asks for."""
        return super().train(False)


Role = Literal["real", "heldout", "fake"]


class ImageMetric(Metric, ABC):
    """Numbers from features of real, held-out and generated images, streamed once."""

    @abstractmethod
    def update(self, batch: Features, role: Role) -> None:
        """Take in one batch."""

    @abstractmethod
    def compute(self) -> Any:
        """The scores' values: see `metrics/`."""


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
