"""The likelihood by the way back, of a flow whose density is a Gaussian."""

import math

import pytest
import torch
from torch.distributions import Normal

from fixtures.evaluation import CPU, Squares, make_decoder
from genbench.data.subsets import chosen
from genbench.errors import UserMistake
from genbench.metrics.likelihood import LikelihoodRequest
from genbench.metrics.ode_likelihood import OdeLikelihood
from genbench.models.flow_matching import FlowMatching
from genbench.runs.score import digest

RATE = -0.4


class Shrinks(torch.nn.Module):
    """dx / dt = RATE x: from N(0, I) to N(0, exp(2 RATE) I)."""

    shape = (1, 8, 8)

    def __init__(self, rate=RATE):
        super().__init__()
        self.rate = rate

    def forward(self, images, t):
        return self.rate * images


def scored(model=None, **changes):
    settings = {"enabled": True, "images": 60, "evaluations": 40} | changes
    model = model or FlowMatching(Shrinks(), 4, "heun", torch.optim.Adam)
    return OdeLikelihood(**settings)(LikelihoodRequest(model, Squares(), CPU, 0, 256))


def test_the_scores_are_those_of_dequantised_levels():
    """E over noise of log N, per pixel in closed form: -log s - log(2 pi) / 2 - (x^2 + w^2 / 12) / (2 s^2)."""
    nats, bits, _ = scored()
    levels = torch.from_numpy(Squares().pixels("test")).double()
    x, width, sd = levels / 8 - 1, 1 / 8, math.exp(RATE)
    square = (x**2).flatten(1).sum(1).mean() + 64 * width**2 / 12
    log_p = 64 * (-RATE - 0.5 * math.log(2 * math.pi)) - square / (2 * sd**2)
    log_mass = float(log_p) + 64 * math.log(width)  # a level is so wide
    noise = 0.02 * abs(log_mass)  # one draw an image
    assert bits.value == pytest.approx(-log_mass / 64 / math.log(2), rel=0.02)
    assert nats.value == pytest.approx(-(log_mass + 64 * math.log(17)), abs=noise)
    assert (nats.name, bits.name) == ("nll_ode", "bits_per_dim_ode")
    assert nats.low < nats.value < nats.high


def test_it_bounds_the_mass_of_levels_from_above_in_bits():
    _, bits, _ = scored()
    x, half = torch.from_numpy(Squares().pixels("test")).double() / 8 - 1, 1 / 16
    gaussian = Normal(torch.zeros((), dtype=torch.float64), math.exp(RATE))
    mass = gaussian.cdf(x + half) - gaussian.cdf(x - half)
    exact = -mass.log2().mean().item()
    assert exact - 0.02 < bits.value < exact + 0.05


def dequantised(count):
    """Images as they are scored, (N, 64): levels with the noise that the score draws."""
    generator = torch.Generator().manual_seed(int(digest([0, "dequantisation"], 15), 16))
    pixels = torch.from_numpy(Squares().pixels("test")[chosen(Squares(), "test", count)])
    noise = torch.rand(pixels.shape, generator=generator) - 0.5
    return ((pixels + noise) / 8 - 1).flatten(1).double()


@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 12), ("euler", 12), ("heun", 1)])
def test_the_gap_is_what_half_as_many_evaluations_change(solver, evaluations):
    """A linear velocity in closed form: a step of the way back multiplies; the trace is the same in all."""
    square = dequantised(10).square().sum(1).mean().item()

    def log_p(number):
        steps = number // 2 if solver == "heun" else number
        step = RATE / max(1, steps)
        factor = 1 - step + (step**2 / 2 if solver == "heun" and number > 1 else 0)
        return -0.5 * square * factor ** (2 * max(1, steps))

    model = FlowMatching(Shrinks(), 4, solver, torch.optim.Adam)
    _, _, gap = scored(model, evaluations=evaluations, images=10)
    expected = log_p(max(1, evaluations // 2)) - log_p(evaluations)
    assert gap.value == pytest.approx(expected, abs=1e-4)
    assert (gap.name, gap.status) == ("ode_gap", "ok")


def test_where_the_solver_has_not_arrived_nothing_is_compared():
    nats, bits, gap = scored(
        FlowMatching(Shrinks(-2.0), 4, "euler", torch.optim.Adam), evaluations=2
    )
    assert gap.value > 3
    assert nats.status == bits.status
    assert nats.status.startswith(f"gap of {gap.value:.1f} nats to half as many evaluations")


def test_others_have_no_such_score():
    assert scored(enabled=False) == []
    assert scored(make_decoder()) == []
    with pytest.raises(UserMistake, match="ode.images=1"):
        OdeLikelihood(enabled=True, images=1, evaluations=2)
