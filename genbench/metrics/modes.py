"""How many of the 1000 modes of stacked digits a model makes, and how evenly.

The protocol of Metz et al. 2017, https://arxiv.org/abs/1611.02163, as Srivastava et al. 2017 (VEEGAN,
https://arxiv.org/abs/1705.07761) and Lin et al. 2018 (PacGAN, https://arxiv.org/abs/1712.04086) have
it: a classifier of digits names each channel of 26 000 generated images, `modes` is the number of
triples that occur, `mode_kl` the divergence of their frequencies from equal ones, in nats.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, Extractor, Features, Quantity
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.truth import LOST, TruthMetric, TruthRequest, truth_score
from genbench.ranges import whole
from genbench.runs.score import Score

CLASSES = 10  # of each of three channels

MODES = CLASSES**3

FLOOR_DRAWS, FLOOR_SEED = 200, 0  # of histograms

COUNT = Quantity("modes", ("fake",), True)
DIVERGENCE = Quantity("mode_kl", ("fake",), False, "nats")
COUNT_FLOOR = Quantity("modes_floor", ("real",), None, floor=True)
DIVERGENCE_FLOOR = Quantity("mode_kl_floor", ("real",), None, "nats", floor=True)

SPREAD = "95 % of single draws of as many real images"


def mode_kl(counts: NDArray[np.int64]) -> float:
    """KL of the frequencies of counts (K,) to 1/K each, in nats: from 0 to log K."""
    p = counts[counts > 0] / counts.sum()
    return float((p * np.log(p * len(counts))).sum())


class ByChannel(Extractor):
    """A classifier of grey images, shown each channel of colour images: logits (N, 3 K), which are the features too."""

    def __init__(self, classifier: LeNet) -> None:
        super().__init__()
        self.classifier, self.network = classifier, None
        self.name = classifier.name
        self.card = {**classifier.card, "channels": "3, one after the other"}

    def prepare(self) -> None:
        """Find the classifier's weights. Raises UserMistake."""
        self.classifier.prepare()
        self.network = self.classifier

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Logits of level indices (N, 3, S, S), those of the first channel first."""
        self.begin(pixels, [3])
        grey = self.classifier(pixels.flatten(0, 1).unsqueeze(1), levels)
        logits = grey.logits.reshape(len(pixels), -1)
        return Features(logits, logits)


def digits_of(logits: Tensor) -> NDArray[np.int64]:
    """The digit of each channel, (N, 3), of logits (N, 3 K)."""
    named: NDArray[np.int64] = logits.reshape(len(logits), 3, -1).argmax(2).cpu().numpy()
    return named


def histogram(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each triple of digits (N, 3) occurs: (1000,)."""
    return np.bincount(digits @ [CLASSES**2, CLASSES, 1], minlength=MODES)


class ModeScores(TruthMetric):
    """`modes` and `mode_kl` of `num_samples` generated images, by the shipped `classifier` of that name.

    Their floors are what as many real images get: channels are drawn independently, with the digits'
    frequencies in the training split, as the classifier names them: few digits are held out.
    """

    of_samples = True

    def __init__(self, *, classifier: str, num_samples: int | None = 26_000) -> None:
        if num_samples is not None:
            whole("evaluation.truth.modes.num_samples", num_samples)
        self.reader, self.num_samples = ByChannel(LeNet(classifier)), num_samples

    def prepare(self, data: ImageData) -> None:
        """Find the classifier and show it two images. Raises UserMistake."""
        self.reader.prepare()
        two = torch.from_numpy(data.pixels("train")[:2].copy())
        try:
            self.reader(two, data.levels)
        except ValueError as error:
            raise UserMistake(
                f"evaluation.truth.modes cannot count the modes of {data.name} ({error}): set it to null"
            ) from None

    def __call__(self, request: TruthRequest) -> list[Score]:
        """Name the digits of generated and of training images, and count."""
        read, fake = request.read(self.reader, self.num_samples)
        real, trained = request.store_of(self.reader).of(request.data, "train")
        with request.store.watch.timing("modes"):
            count, divergence = LOST, LOST
            if read is not None:
                counts = histogram(digits_of(read.logits))
                count, divergence = Estimate(float((counts > 0).sum())), Estimate(mode_kl(counts))
            floors = _floors(digits_of(real.logits), int(fake["n"]))
        card: dict[str, Any] = {"extractor": dict(self.reader.card)}
        own = {**card, "estimator": {"name": "ModeScores", "labels": "argmax", "version": 1}}
        drawn = {"draws": FLOOR_DRAWS, "seed": FLOOR_SEED, "n": int(fake["n"])}
        floor: Mapping[str, Any] = {
            **card,
            "estimator": {**own["estimator"], **drawn},
            "real": dict(trained),
        }
        name = self.reader.name
        return [
            truth_score(COUNT, name, count, {**own, "fake": dict(fake)}),
            truth_score(DIVERGENCE, name, divergence, {**own, "fake": dict(fake)}),
            truth_score(COUNT_FLOOR, name, floors[0], floor),
            truth_score(DIVERGENCE_FLOOR, name, floors[1], floor),
        ]


def _floors(digits: NDArray[np.int64], num_samples: int) -> tuple[Estimate, Estimate]:
    """Modes and divergence of `num_samples` triples drawn with the frequencies of `digits` (N, 3)."""
    random = np.random.RandomState(FLOOR_SEED)  # its draws are the same in every version
    shares = [np.bincount(digits[:, i], minlength=CLASSES) / len(digits) for i in range(3)]
    p = np.einsum("i,j,k->ijk", *shares).ravel()
    drawn = random.multinomial(num_samples, p / p.sum(), size=FLOOR_DRAWS)
    return _spread((drawn > 0).sum(1)), _spread([mode_kl(counts) for counts in drawn])


def _spread(values: Any) -> Estimate:
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high), SPREAD)
