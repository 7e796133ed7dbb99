"""The classification accuracy score: Ravuri and Vinyals 2019, https://arxiv.org/abs/1905.10887.

A small classifier is trained on generated images, with the labels that they were made from, and tested
on held-out real ones; beside it stands what the same recipe reaches on as many real training images. It
falls with every mode that a class lacks, as accuracy on samples does not.

Departure: the classifier is the LeNet of `extractors.training`, where the authors train a ResNet-50.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.data.subsets import chosen, subset_card
from genbench.metrics.contract import Estimate, Quantity
from genbench.metrics.extractors.training import EPOCHS, IMAGES, Labelled, look, train
from genbench.metrics.truth import LOST, TruthRequest, truth_score
from genbench.models.condition import Condition
from genbench.runs.score import Score

MOST = 50_000  # images that a classifier is trained on

CAS = Quantity("cas", ("fake", "heldout"), True)
CEILING = Quantity("cas_real", ("real", "heldout"), None, floor=True)
OVER_IMAGES = "95 % over held-out images, of one training"


class ClassificationAccuracy:
    """`cas` and its ceiling `cas_real`, of one training each, on `shown` images unless six passes are more."""

    def __init__(self, shown: int = IMAGES) -> None:
        self.shown = shown

    def __call__(self, request: TruthRequest, condition: Condition) -> list[Score]:
        """Train on generated and on real images, test on the held-out split."""
        data, there = request.data, len(condition.training)
        n = min(request.generated.num_samples, there, MOST)
        set_of = replace(request.generated, num_samples=n)
        pixels, labels = (
            set_of.images(request.model, data, request.store),
            set_of.labels(request.model),
        )
        which = chosen(data, "train", n)
        real = torch.from_numpy(np.array(data.pixels("train")[which]))
        heldout = torch.from_numpy(np.array(data.pixels(request.split)[:]))
        tested = Labelled(heldout, condition.of(data, request.split), data.levels)
        classes, epochs = len(condition.names), max(EPOCHS, self.shown // n)
        made = LOST
        if pixels is not None and labels is not None:
            made = _tested(Labelled(pixels, labels, data.levels), tested, classes, epochs)
        of_real = Labelled(real, condition.training[torch.from_numpy(which)], data.levels)
        best = _tested(of_real, tested, classes, epochs)
        card: dict[str, Any] = {
            "estimator": {"classifier": "lenet", "n": n, "epochs": epochs, "seed": 0, "version": 1},
            "heldout": dict(request.cards["heldout"]),
        }
        fake: Mapping[str, Any] = set_of.card(request.model, data, request.averaging, request.prior)
        return [
            truth_score(CAS, "", made, {**card, "fake": dict(fake)}),
            truth_score(CEILING, "", best, {**card, "real": subset_card(data, "train", n)}),
        ]


def _tested(shown: Labelled, tested: Labelled, classes: int, epochs: int) -> Estimate:
    """Accuracy on `tested` of a classifier trained on `shown`."""
    with torch.enable_grad():  # a model is scored without
        network = train(shown, classes, epochs)
    right: Tensor = (look(network, tested.images).logits.argmax(1) == tested.labels).double()
    error = float(right.std() / len(right) ** 0.5)
    return Estimate.within(float(right.mean()), error, OVER_IMAGES)
