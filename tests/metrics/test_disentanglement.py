"""MIG and DCI where their values are known."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fixtures.priors import Clusters, Linear
from genbench.comparison.family import depends_on_model
from genbench.data.factors import Factors
from genbench.metrics.disentanglement import (
    Disentanglement,
    dci,
    mig,
    mutual_information,
    of_importance,
)
from genbench.metrics.stopwatch import Stopwatch


@pytest.fixture(scope="module")
def labels():
    """Every combination of factors of 2, 3 and 4 values, equally often, in no order."""
    every = np.array(list(product(range(2), range(3), range(4))) * 40)
    return every[np.random.RandomState(0).permutation(len(every))]


def test_a_code_that_is_the_factors_is_disentangled_exactly(labels):
    codes = labels[:, [2, 0, 1]] * [1.0, -3.0, 0.5]
    assert mig(codes, labels) == pytest.approx(1)
    assert dci(codes, labels) == pytest.approx((1, 1, 1))


def test_latents_that_say_nothing_beside_the_factors_change_nothing(labels):
    noise = np.random.RandomState(1).standard_normal((len(labels), 2))
    codes = np.concatenate([labels * 1.0, noise], 1)
    assert mig(codes, labels) == pytest.approx(1, abs=0.05)  # a bias of (20 - 1) (K - 1) / 2 N nats
    assert dci(codes, labels) == pytest.approx((1, 1, 1), abs=0.01)


def test_noise_is_not_disentangled_and_guesses_by_chance(labels):
    codes = np.random.RandomState(2).standard_normal((len(labels), 4))
    found = dci(codes, labels)
    assert mig(codes, labels) == pytest.approx(0, abs=0.02)
    assert found.disentanglement == pytest.approx(0, abs=0.02)
    assert found.completeness == pytest.approx(0, abs=0.02)
    assert found.informativeness == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3, abs=0.06)


def test_a_factor_told_twice_has_no_gap(labels):
    codes = np.concatenate([labels * 1.0, labels * 2.0], 1)
    assert mig(codes, labels) == pytest.approx(0, abs=1e-12)
    assert dci(codes, labels).disentanglement == pytest.approx(1)


def test_a_latent_that_mixes_two_factors_is_informative_and_not_disentangled(labels):
    mixed = labels[:, 1] + 3 * labels[:, 2]
    codes = np.stack([labels[:, 0] * 1.0, mixed], 1)
    found = dci(codes, labels)
    assert found.informativeness == pytest.approx(1)
    assert found.completeness == pytest.approx(1)
    # rows of importance (1, 0, 0) and (0, 1, 1): purities 1 and 1 - log 2 / log 3, weights 1 and 2
    expected = (1 + 2 * (1 - np.log(2) / np.log(3))) / 3
    assert found.disentanglement == pytest.approx(expected, abs=0.01)


def test_importance_is_weighed_as_in_the_paper():
    purity, completeness = of_importance(np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]]))
    assert purity == pytest.approx(1)
    assert completeness == pytest.approx((1 + 1 - np.log(2) / np.log(3)) / 2)


def test_mutual_information_is_that_of_scikit_learn(labels):
    from sklearn.metrics import mutual_info_score

    one = (labels[:, 2] + (np.arange(len(labels)) % 3 == 0)) % 4
    assert mutual_information(one, labels[:, 2]) == pytest.approx(
        mutual_info_score(one, labels[:, 2])
    )


class Known(Clusters):
    """Two factors of no meaning for each image."""

    def factors(self, split):
        numbers = np.arange(len(self.pixels(split)))
        labels = np.stack([numbers % 2, numbers % 3], 1)
        return Factors(("a", "b"), (("0", "1"), ("0", "1", "2")), labels)


def test_its_scores_are_of_a_model_and_are_tested_as_others_are():
    """Their card names held-out images and nothing generated, as that of a floor does."""
    store = SimpleNamespace(watch=Stopwatch(), batch_size=32, device=torch.device("cpu"))
    request = SimpleNamespace(model=Linear(), data=Known(), split="test", store=store)
    with torch.no_grad():
        scores = Disentanglement(enabled=True)(request)
    assert [score.quantity for score in scores][:2] == ["mig", "dci_disentanglement"]
    assert all(score.higher_is_better and depends_on_model(score) for score in scores)
