"""Scores against what is known of a world: what such a score gets, and what it promises.

They look at generated images with a classifier of their own, whatever extractor the run has.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from genbench.data.contract import ImageData, Split
from genbench.errors import Notice
from genbench.metrics.contract import Estimate, Extractor, Features, Quantity, Role
from genbench.metrics.feature_cache import FeatureCache
from genbench.metrics.feature_scores import NONFINITE, score_of
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.feature_workers import ALONE
from genbench.metrics.sampling import GeneratedSet
from genbench.models.contract import GenerativeModel
from genbench.priors.fitting import FittedPrior
from genbench.runs.score import Score

LOST = Estimate(None, status=NONFINITE)  # a generated image is NaN or infinite


@dataclass(frozen=True)
class TruthRequest:
    """What is to be scored: a model, its `generated` images, and the held-out `split`.

    `store` is that of the run's extractor: its device, its batches and its stopwatch are shared.
    `averaging` is the card of averaged weights, `prior` what latents are drawn from, None as in training.
    `sets` are the features of images by the run's extractor, `fake` only if they are finite, and `cards` say
    what these images are.
    """

    model: GenerativeModel
    data: ImageData
    split: Split
    generated: GeneratedSet
    store: FeatureStore
    averaging: Mapping[str, Any] | None
    prior: FittedPrior | None = None
    sets: Mapping[Role, Features] = field(default_factory=dict)
    cards: Mapping[Role, Mapping[str, Any]] = field(default_factory=dict)

    def store_of(self, reader: Extractor) -> FeatureStore:
        """Reads images by another network, in this process alone."""
        store = self.store
        return FeatureStore(
            reader,
            FeatureCache(store.cache.folder, reader),
            ALONE,
            batch_size=store.batch_size,
            device=store.device,
            watch=store.watch,
        )

    def read(
        self, reader: Extractor, num_samples: int | None
    ) -> tuple[Features | None, Mapping[str, Any]]:
        """What `reader` makes of generated images, None if one is NaN; and their card."""
        images = self.generated
        if num_samples is not None:
            images = replace(images, num_samples=num_samples)
        found, _ = images.features(self.model, self.data, self.store_of(reader))
        return found, images.card(self.model, self.data, self.averaging, self.prior)


Metric = TypeVar("Metric")


def known(metrics: Mapping[str, Metric], model: GenerativeModel) -> dict[str, Metric]:
    """The metrics that can score a model as it is: all, unless it is told labels.

    What encodes or decodes by itself and does not say `knows_labels` is left out then, with a notice.
    """
    kept = {name: one for name, one in metrics.items() if _gives_labels(one)}
    if model.condition is None:
        return dict(metrics)
    wanted = [
        name for name, one in metrics.items() if name not in kept and getattr(one, "enabled", True)
    ]
    if wanted:
        warnings.warn(
            f"not scored under arena.condition={model.condition.kind}: {', '.join(wanted)}, which would give the "
            "model no label",
            Notice,
            stacklevel=3,
        )
    return kept


def _gives_labels(metric: object) -> bool:
    """Whether a metric gives a model the labels that it knows; one of samples has them given."""
    return bool(getattr(metric, "knows_labels", False) or getattr(metric, "of_samples", False))


class TruthMetric(ABC):
    """Scores of a model on a world, whose `data.factors` says what is true."""

    of_samples: ClassVar[bool]  # False: of the encoder, which averaged weights lack

    @abstractmethod
    def prepare(self, data: ImageData) -> None:
        """Check that these images can be scored. Raises UserMistake."""

    @abstractmethod
    def __call__(self, request: TruthRequest) -> list[Score]:
        """Score the model; an empty list if it lacks what the scores are of."""


def true_scores(metrics: Iterable[TruthMetric], request: TruthRequest) -> list[Score]:
    """Scores of all metrics; of averaged weights or under a prior those alone that depend on samples."""
    if request.averaging is None and request.prior is None:
        return [score for metric in metrics for score in metric(request)]
    found = [score for metric in metrics if metric.of_samples for score in metric(request)]
    return [score for score in found if "fake" in score.card]


def truth_score(
    quantity: Quantity, suffix: str, estimate: Estimate, card: Mapping[str, Any]
) -> Score:
    """A score with its quantity in the card; `suffix` is the reader's name, or empty."""
    name = f"{quantity.name}_{suffix}" if suffix else quantity.name
    return score_of(name, quantity, estimate, {"quantity": quantity.name, **card})
