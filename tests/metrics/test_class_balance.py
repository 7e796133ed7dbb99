import numpy as np
import pytest
import torch

from fixtures.features import one_hot
from genbench.metrics.class_balance import ClassBalance, total_variation
from genbench.metrics.contract import Features


def test_class_balance_is_the_mass_that_would_have_to_move():
    balanced, missing = one_hot(range(10), 5.0), one_hot(range(9), 5.0)
    assert total_variation(balanced, balanced) == 0
    assert total_variation(missing, balanced) == pytest.approx(0.1)
    assert total_variation(one_hot([0], 5.0), one_hot([1], 5.0)) == 1


def test_the_floor_of_class_balance_is_what_equal_distributions_get_by_chance():
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(30))
    labels = generator.choice(30, 20_000, p=p)
    real, heldout = torch.eye(30)[labels[:1500]], torch.eye(30)[labels[1500:]]
    sets = {"real": Features(real, real), "heldout": Features(heldout, heldout)}
    floor = ClassBalance().floors(sets, 400)["class_tv_floor"]
    drawn = []
    for _ in range(2000):
        a, b = (np.bincount(generator.choice(30, n, p=p), minlength=30) / n for n in (400, 1500))
        drawn.append(np.abs(a - b).sum() / 2)
    assert floor.value == pytest.approx(np.mean(drawn), rel=0.05)
    assert (floor.low, floor.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=0.08)
    fewer = ClassBalance().floors(sets, 100)["class_tv_floor"]
    assert fewer.value > 1.5 * floor.value
