"""What holds for every metric: refusals, purity, no draws from the global generator."""

import math

import pytest
import torch

from fixtures.features import draw, feed, frechet
from genbench.metrics.class_balance import ClassBalance, total_variation
from genbench.metrics.contract import Features
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.features import subset
from genbench.metrics.frechet import FrechetDistance
from genbench.metrics.inception_score import InceptionScore
from genbench.metrics.kernel import KernelDistance, kernel_distance
from genbench.metrics.prdc import NeighbourScores, prdc

METRICS = [
    FrechetDistance,
    KernelDistance,
    InceptionScore,
    NeighbourScores,
    ClassBalance,
    CopyRate,
]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [frechet, kernel_distance, prdc, total_variation])
def test_what_is_not_finite_is_refused(measure, wrong):
    x, y = draw(20, 3), draw(20, 3)
    y[7, 1] = wrong
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(x, y)
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(y, x)


@pytest.mark.parametrize("measure", [frechet, kernel_distance, prdc])
def test_fewer_than_two_rows_are_refused(measure):
    with pytest.raises(ValueError, match="at least two"):
        measure(draw(20, 3), draw(1, 3))


@pytest.mark.parametrize("make", METRICS)
def test_every_metric_gives_its_quantities_and_remembers_nothing(make):
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    metric = make()
    first = feed(metric, **sets)
    assert set(first) == {quantity.name for quantity in make.quantities if not quantity.floor}
    real = {role: Features(sets[role], sets[role]) for role in ("real", "heldout")}
    floors = metric.floors(real, 50)
    assert set(floors) == {quantity.name for quantity in make.quantities if quantity.floor}
    assert metric.floors(real, 50) == floors
    feed(metric, **(sets | {"fake": draw(30, 4, seed=3)}))
    assert feed(metric, **sets) == first


@pytest.mark.parametrize("make", METRICS)
def test_no_metric_changes_the_features_that_all_share(make):
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    before = {role: rows.clone() for role, rows in sets.items()}
    feed(make(), **sets)
    make().floors({role: Features(rows, rows) for role, rows in sets.items()}, 50)
    assert all(torch.equal(sets[role], rows) for role, rows in before.items())


@pytest.mark.parametrize("make", METRICS)
def test_no_metric_draws_from_the_global_generator(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    feed(make(), **sets)
    make().floors({role: Features(rows, rows) for role, rows in sets.items()}, 50)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subset_depends_on_its_seed_and_keeps_small_sets_whole():
    rows = draw(30, 2)
    assert subset(rows, 30, seed=0) is rows
    assert torch.equal(subset(rows, 10, seed=0), subset(rows, 10, seed=0))
    assert not torch.equal(subset(rows, 10, seed=0), subset(rows, 10, seed=1))
