"""Quality over cost of a model that integrates its samples: for every number of evaluations of its network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, Features, Quantity
from genbench.metrics.feature_scores import NONFINITE, score_name, score_of
from genbench.metrics.reconstruction import feature_distance
from genbench.metrics.truth import TruthRequest
from genbench.models.contract import Integrates
from genbench.ranges import whole
from genbench.runs.score import Score

DISTANCE = Quantity("fd_evaluations", ("real", "fake"), False)
TIME = Quantity("milliseconds_evaluations", ("fake",), False, "ms")

LOST = Estimate(None, status=NONFINITE)  # a generated image is NaN or infinite


class EvaluationCurve:
    """`fd_evaluations_<n>` of samples in n evaluations of the network, and the milliseconds of an image.

    Off unless `enabled`: all numbers together take as many evaluations as their sum. Samples have the latents
    of the other scores, so that at the model's own number it is their FD. The time is one process's, with
    images in batches of `evaluation.batch_size`.
    """

    def __init__(self, *, enabled: bool, numbers: Sequence[int]) -> None:
        if not isinstance(numbers, Sequence):
            raise UserMistake(
                f"evaluation.evaluations.numbers={numbers}: give whole numbers in a list, such as [1,5,20]"
            )
        for number in numbers:
            whole("evaluation.evaluations.numbers", number)
        self.enabled, self.numbers = enabled, list(numbers)

    def __call__(
        self, request: TruthRequest, real: Features, card: Mapping[str, Any]
    ) -> list[Score]:
        """Score a model that integrates its samples; an empty list for others. `card` is that of `real`."""
        model, store = request.model, request.store
        if not self.enabled or not isinstance(model, Integrates):
            return []
        scores = []
        images, alone = request.generated, request.store_of(store.extractor)
        fake = images.card(request.model, request.data, request.averaging, request.prior)
        for number in self.numbers:
            with taking(model, number):
                found, speed = images.features(request.model, request.data, alone)
            with store.watch.timing("fd_evaluations"):
                estimate = (
                    LOST
                    if found is None
                    else feature_distance(real.features, found.features, store.device)
                )
            of_both = {"fake": {**fake, "evaluations": number}}
            distance = of_both | {
                "quantity": DISTANCE.name,
                "estimator": {"name": "FrechetDistance", "ddof": 1, "version": 1},
                "extractor": dict(store.extractor.card),
                "real": dict(card),
            }
            name = score_name(f"{DISTANCE.name}_{number}", store.extractor, images.num_samples)
            scores.append(score_of(name, DISTANCE, estimate, distance))
            milliseconds = Estimate(None if speed is None else 1000 / speed)
            time = {"quantity": TIME.name, **of_both}
            scores.append(score_of(f"{TIME.name}_{number}", TIME, milliseconds, time))
        return scores


@contextmanager
def taking(model: Integrates, number: int) -> Iterator[None]:
    """Within: the model's samples take so many evaluations."""
    own, model.evaluations = model.evaluations, number
    try:
        yield
    finally:
        model.evaluations = own
