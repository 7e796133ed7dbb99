"""`nll_ode`: the likelihood of a model that gives the density of any image, such as a flow.

Chen et al. 2018, https://arxiv.org/abs/1806.07366. Pixels are levels, and a density is none of them: noise
of one level is added (Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3.1), so that the mean of
log p bounds log P of the levels from below. That holds for the density along exact paths; the solver's error
is no part of it and makes images likelier than they are, so `ode_gap` says what half as many evaluations change.
"""

import math
from typing import Any

import torch
from torch import Tensor

from genbench.data.cache import progress
from genbench.data.subsets import chosen, subset_card
from genbench.metrics.contract import Estimate, Quantity
from genbench.metrics.feature_scores import score_of
from genbench.metrics.likelihood import OVER_IMAGES, LikelihoodRequest, bits_per_dimension
from genbench.models.contract import HasLogDensity
from genbench.ranges import whole
from genbench.runs.score import Score, digest

NATS = Quantity("nll_ode", ("heldout",), False, "nats")
BITS = Quantity("bits_per_dim_ode", ("heldout",), False, "bits")
GAP = Quantity("ode_gap", ("heldout",), False, "nats")

WIDEST_GAP = 3.0  # nats, as of `nll_ais`; a larger gap makes models incomparable


class OdeLikelihood:
    """`nll_ode` of dequantised images on [0, 1], as `nll_ais` has them, and `bits_per_dim_ode` of their levels.

    Off unless `enabled`: each of the `evaluations` of the way back, and of half as many once more, takes as many
    gradients of the network as an image has values. Scores `images` of the held-out split, one draw of noise
    each. `ode_gap` is log p in half as many evaluations minus that in all; the solver is of second order or
    less, so that what is still to come is about a third of it or more.
    """

    def __init__(self, *, enabled: bool, images: int, evaluations: int) -> None:
        whole("ode.images", images, 2)
        whole("ode.evaluations", evaluations)
        self.enabled, self.images, self.evaluations = enabled, images, evaluations

    def __call__(self, request: LikelihoodRequest) -> list[Score]:
        """Score a model that gives densities; an empty list for others, and unless enabled."""
        model, data = request.model, request.data
        if not self.enabled or not isinstance(model, HasLogDensity):
            return []
        numbers = chosen(data, request.split, self.images)
        values, found, half = data.channels * data.image_size**2, list[Tensor](), list[Tensor]()
        seed = int(digest([request.seed, "dequantisation"], 15), 16)
        generator = torch.Generator().manual_seed(seed)
        with progress() as bar:
            work = bar.add_task("likelihood by the way back", total=len(numbers))
            at_once = max(1, request.batch_size // values)
            for part in torch.split(torch.from_numpy(numbers), at_once):
                pixels = torch.from_numpy(data.pixels(request.split)[part.numpy()]).float()
                noise = torch.rand(pixels.shape, generator=generator) - 0.5
                images = ((pixels + noise) * (2 / (data.levels - 1)) - 1).to(request.device)
                for kept, number in (
                    (half, max(1, self.evaluations // 2)),
                    (found, self.evaluations),
                ):
                    kept.append(model.log_density(images, number).double().cpu())
                bar.advance(work, len(part))
        # from [-1, 1] to [0, 1], where level k of L covers [k / L, (k + 1) / L]
        gap = torch.cat(half) - torch.cat(found)
        log_p = torch.cat(found) + values * math.log(2 * data.levels / (data.levels - 1))
        card: dict[str, Any] = {
            "density": {"range": [0, 1], "dequantised": True},
            "estimator": {"evaluations": self.evaluations, "trace": "exact", "version": 1},
            "likelihood": "ode",
            "heldout": subset_card(data, request.split, len(numbers)),
            "seed": request.seed,
            "weights": request.weights,
        }
        bits = (values * math.log(data.levels) - log_p) * bits_per_dimension(1, values)
        wide = (
            f"gap of {float(gap.mean()):.1f} nats to half as many evaluations: too wide to compare"
        )
        status = "ok" if abs(float(gap.mean())) <= WIDEST_GAP else wide
        return [
            _score(NATS, -log_p, card, status),
            _score(BITS, bits, card, status),
            _score(GAP, gap, card),
        ]


def _score(quantity: Quantity, each: Tensor, card: dict[str, Any], status: str = "ok") -> Score:
    error = float(each.std()) / math.sqrt(len(each))
    estimate = Estimate.within(float(each.mean()), error, OVER_IMAGES)._replace(status=status)
    return score_of(quantity.name, quantity, estimate, {"quantity": quantity.name, **card})
