"""What generated pictures of a world show, as a small network reads their factors.

`combinations_covered`: of the combinations that occur in training, the share that generated pictures show.
`invented`: the share of generated pictures whose combination never occurs in training. `factor_tv` and
`pair_tv`: total variation between the frequencies of generated and of training pictures, mean over
factors and over pairs of factors. `unread`: the share of pictures of which the reader is not sure.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.contract import ImageData, Split
from genbench.data.factors import Factors
from genbench.data.subsets import ORDER_SEED
from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, MissingWeights, Quantity
from genbench.metrics.extractors.factors import FactorReader
from genbench.metrics.truth import LOST, TruthMetric, TruthRequest, truth_score
from genbench.runs.score import Score

SURE = 0.5  # least probability of the likeliest value, in every factor, of a picture that counts as read

Labels = NDArray[np.int64]

# and whether more is better: to invent is a virtue or a fault, as one likes
DIRECTIONS: dict[str, bool | None] = {
    "combinations_covered": True,
    "invented": None,
    "factor_tv": False,
    "pair_tv": False,
    "unread": False,
}


def total_variation(one: Factors, other: Factors, which: tuple[int, ...]) -> float:
    """Half the sum of |p - q| over the values of one factor, or the pairs of values of two: 0 to 1."""
    sizes = tuple(one.sizes[f] for f in which)
    frequencies = []
    for factors in (one, other):
        part = Factors(one.names, tuple(one.values[f] for f in which), factors.labels[:, which])
        counts = np.bincount(part.combinations(), minlength=int(np.prod(sizes)))
        frequencies.append(counts / len(factors.labels))
    return float(np.abs(frequencies[0] - frequencies[1]).sum() / 2)


def compared(shown: Factors, trained: Factors) -> dict[str, float]:
    """All scores but `unread` of what generated pictures show, against training's factors; and each `factor_tv`."""
    occurs, seen = np.unique(trained.combinations()), shown.combinations()
    number = range(len(trained.names))
    single = [total_variation(shown, trained, (f,)) for f in number]
    pairs = [total_variation(shown, trained, pair) for pair in combinations(number, 2)]
    return {
        "combinations_covered": float(np.isin(occurs, seen).mean()),
        "invented": float((~np.isin(seen, occurs)).mean()),
        "factor_tv": float(np.mean(single)),
        "pair_tv": float(np.mean(pairs or single)),
        **{f"factor_tv_{name}": tv for name, tv in zip(trained.names, single, strict=True)},
    }


class FactorScores(TruthMetric):
    """Scores of what `reader` reads in as many generated pictures as the evaluation has.

    `reader` is the name of a shipped reader or a .safetensors file. Floors are what held-out pictures
    get, as many of them where there are: real ones, of combinations that occur in training, with the
    reader's errors. Training's factors are the true ones.
    """

    of_samples = True

    def __init__(self, *, reader: str) -> None:
        self.reader = FactorReader(reader)

    def prepare(self, data: ImageData) -> None:
        """Check that the reader reads these pictures and knows their factors. Raises UserMistake."""
        try:
            self.reader.prepare()
        except MissingWeights as error:
            raise UserMistake(f"evaluation.truth.factors.reader: {error.reason}") from error
        factors = data.factors("train")
        known = None if factors is None else (factors.names, factors.values)
        shape = data.channels, data.image_size
        if known != (self.reader.names, self.reader.values) or shape != (
            self.reader.channels,
            self.reader.image_size,
        ):
            raise UserMistake(
                f"evaluation.truth.factors: {self.reader.name} reads the factors of other pictures than "
                f"{data.name} at {data.image_size} pixels: train a reader by genbench extractor train "
                "--architecture factors, or set evaluation.truth.factors=null"
            )

    def __call__(self, request: TruthRequest) -> list[Score]:
        """Read generated and held-out pictures, and compare both with training."""
        read, fake = request.read(self.reader, None)
        trained = request.data.factors("train")
        assert trained is not None  # as `prepare` found
        found: Mapping[str, float] = {}
        if read is not None:
            found = self._of(read.logits, trained)
        floors, heldout = self._floors(request, trained, int(fake["n"]))
        card: dict[str, Any] = {
            "estimator": {"name": "FactorScores", "values": "argmax", "sure": SURE, "version": 1},
            "extractor": dict(self.reader.card),
            "reader_errors": dict(self.reader.described["errors"]["test"]),
            "real": request.data.card("train"),
        }
        scores = []
        for name in [*DIRECTIONS, *(f"factor_tv_{name}" for name in trained.names)]:
            better = DIRECTIONS.get(name, False)
            estimate = Estimate(found[name]) if found else LOST
            quantity = Quantity(name, ("fake", "real"), better)
            scores.append(
                truth_score(quantity, self.reader.name, estimate, {**card, "fake": dict(fake)})
            )
            quantity = Quantity(f"{name}_floor", ("heldout", "real"), None, floor=True)
            own = {**card, "heldout": heldout}
            scores.append(truth_score(quantity, self.reader.name, Estimate(floors[name]), own))
        return scores

    def _of(self, logits: Tensor, trained: Factors) -> dict[str, float]:
        shown = trained._replace(labels=self.reader.read(logits).numpy())
        sure = torch.stack([head.softmax(1).amax(1) for head in self.reader.heads(logits)], 1)
        unread = float((sure.amin(1) < SURE).double().mean())
        return {**compared(shown, trained), "unread": unread}

    def _floors(
        self, request: TruthRequest, trained: Factors, num_samples: int
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """The scores of held-out pictures of combinations that occur in training, and these pictures' card."""
        logits, card = self._heldout(request, request.split)
        true = request.data.factors(request.split)
        assert true is not None
        known = np.isin(true.combinations(), np.unique(trained.combinations())).nonzero()[0]
        order = np.random.RandomState(ORDER_SEED).permutation(len(known))[:num_samples]
        chosen = {"n": len(order), "permutation": ORDER_SEED, "combinations": "those of training"}
        return self._of(logits[known[order]], trained), {**card, "subset": chosen}

    def _heldout(self, request: TruthRequest, split: Split) -> tuple[Tensor, dict[str, Any]]:
        features, card = request.store_of(self.reader).of(request.data, split)
        return features.logits, card
