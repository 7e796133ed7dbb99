"""What a metric and an extractor must offer.

A metric is a plain object called with the features of whole image sets. It is no torchmetrics
`Metric`: features are extracted in one place, over all processes, so that there is no per-batch state
to accumulate or to reduce; most estimators here need whole sets anyway (neighbours, resampling).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from genbench.errors import UserMistake


class Features(NamedTuple):
    """What an extractor computes from N images: features (N, D), logits (N, K), both float32.

    K is 0 if the extractor has no classes.
    """

    features: Tensor
    logits: Tensor


class MissingWeights(UserMistake):
    """The weights of an extractor are not at hand; `remedy` says how to get them."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.remedy = reason, remedy


GREY_OR_COLOUR = (1, 3)  # channels


class Extractor(nn.Module, ABC):
    """A fixed feature network, always in eval mode, always float32."""

    name: str
    remark: str = ""  # what its scores must not be taken for; printed when a run begins
    card: Mapping[str, Any]  # name, sha256 of the weights, layer, input size, resize
    network: nn.Module | None  # until `prepare` has read its weights

    @abstractmethod
    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features of level indices (N, C, H, W) uint8 in 0 .. levels - 1."""

    def prepare(self) -> None:  # noqa: B027
        """Find the weights, or download them; raises MissingWeights if there are none."""

    def begin(self, pixels: Tensor, channels: Sequence[int]) -> None:
        """Have the weights on the device of `pixels` (N, C, H, W). Raises ValueError unless C is in `channels`."""
        if self.network is None:
            self.prepare()
            self.to(pixels.device)
        if pixels.shape[1] not in channels:
            raise ValueError(
                f"{self.name} reads images of {' or '.join(map(str, channels))} channels, not "
                f"{pixels.shape[1]}"
            )

    def train(self, mode: bool = True) -> "Extractor":
        """Stay in eval mode, whatever a parent module asks for."""
        return super().train(False)


Role = Literal["real", "heldout", "fake"]  # training images, test images, generated images


class Quantity(NamedTuple):
    """One number that a metric gives; the evaluation adds the extractor to its name.

    A floor is what new real images would get in place of the generated ones, at their number: it
    comes from `FeatureMetric.floors`.
    """

    name: str
    sets: tuple[Role, ...]  # the image sets that it depends on
    higher_is_better: bool | None
    unit: str = ""
    floor: bool = False


class Estimate(NamedTuple):
    """A quantity's value, with bounds where they are known, and what these cover.

    Without a value `status` says why there is none. `each` is something of every generated image that is worth
    keeping, (N,), and `what` says what.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    status: str = "ok"
    each: Sequence[float] | None = None
    what: str = ""

    @classmethod
    def within(cls, value: float, sd: float | None, interval: str) -> "Estimate":
        """Bound a value by 1.96 standard deviations to both sides; None for no bounds."""
        if sd is None:
            return cls(value)
        return cls(value, value - 1.96 * sd, value + 1.96 * sd, interval)


class FeatureMetric(ABC):
    """A function of the features of real, held-out and generated images, and what it promises.

    The constructor's arguments are the metric's settings; those that define the estimator belong into
    `estimator`, so that scores under other settings are kept apart.
    """

    quantities: ClassVar[Sequence[Quantity]] = ()
    minimum: int = 2  # images that each set must have
    needs_labels: ClassVar[bool] = False  # is left out if the extractor has no classes

    @property
    def estimator(self) -> Mapping[str, Any]:
        """What defines the estimator, for the card of its scores."""
        return {}

    def estimator_of(self, quantity: str) -> Mapping[str, Any]:
        """What defines the estimator of one quantity, where settings do not concern all of them."""
        return self.estimator

    @abstractmethod
    def __call__(self, sets: Mapping[Role, Features]) -> Mapping[str, Estimate]:
        """Estimate each quantity whose sets are there, by name; floors apart.

        `sets` has "real" and "heldout", and "fake" unless a generated image is NaN or infinite; at
        least one quantity has all of its sets. The features are shared by all metrics: leave them as
        they are.
        """

    def floors(self, sets: Mapping[Role, Features], num_samples: int) -> Mapping[str, Estimate]:
        """Estimate what `num_samples` new real images would get, by name: from `real` and `heldout`."""
        return {}
