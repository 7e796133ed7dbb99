"""Scores of the validation split while a model trains: points of curves, which choose nothing."""

from collections.abc import Mapping
from pathlib import Path

from genbench.data.contract import ImageData
from genbench.metrics.contract import FeatureMetric
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.evaluation import Evaluation
from genbench.metrics.frechet import FrechetDistance
from genbench.metrics.kernel import KernelDistance
from genbench.models.contract import GenerativeModel

MOST_SAMPLES = 2_000  # at each point

DEAR = (CopyRate, KernelDistance)  # longer than all the rest

LEFT_OUT = ("fd_bc",)  # has no value without bootstrap


class ValidationScores:
    """What `evaluation.split=validation` gives of samples, from one pass through the extractor.

    Of at most 2 000 samples, by the other settings of `evaluation`; without the copy rate, KID
    and the bootstrap, which take longer than all the rest, and without what needs an encoder. Neither the test
    images nor the latents of reported scores are used. The model and all random states stay as they are.
    """

    def __init__(self, evaluation: Evaluation, data: ImageData) -> None:
        self.data = data
        self.evaluation = Evaluation(
            num_samples=min(evaluation.num_samples, MOST_SAMPLES),
            batch_size=evaluation.batch_size,
            seed=evaluation.given_seed,
            extractor=evaluation.extractor,
            metrics=_cheap(evaluation.metrics),
            likelihoods={},
            cache=str(Path(evaluation.folder)),
            split="validation",
            pixels=evaluation.generated.pixels,
        )

    def prepare(self) -> None:
        """Check that the validation split has images enough. Raises UserMistake."""
        self.evaluation.prepare(self.data)

    def __call__(self, model: GenerativeModel) -> dict[str, float]:
        """Score the model as it is: values by quantity, without those that have none."""
        scores = self.evaluation(model, self.data, model.device)
        return {
            score.quantity: score.value
            for score in scores
            if score.value is not None and "fake" in score.card and score.quantity not in LEFT_OUT
        }


def _cheap(metrics: Mapping[str, FeatureMetric]) -> dict[str, FeatureMetric]:
    kept = {name: one for name, one in metrics.items() if not isinstance(one, DEAR)}
    return {
        name: FrechetDistance(0, one.seed) if isinstance(one, FrechetDistance) else one
        for name, one in kept.items()
    }
