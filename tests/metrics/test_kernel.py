"""The kernel distance against values by hand, and its standard error."""

import math

import numpy as np
import pytest
import torch

from fixtures.features import draw
from genbench.metrics.kernel import kernel_distance, standard_error


def test_the_kernel_distance_of_two_pairs_is_that_by_hand():
    # k(0, 1) = 1, k(2, 3) = 343, between them 1, 1, 27, 64
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert kernel_distance(x, y) == pytest.approx(297.5, rel=1e-12)


def test_the_kernel_distance_of_equal_distributions_is_nothing_on_average():
    found = [
        kernel_distance(draw(40, 4, seed=2 * i), draw(60, 4, seed=2 * i + 1)) for i in range(200)
    ]
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0 < max(found)


def test_the_kernel_distance_is_the_same_over_many_blocks(monkeypatch):
    x, y = draw(50, 4), draw(70, 4, seed=1, shift=0.3)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("genbench.metrics.kernel.BLOCK", 16)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_the_standard_error_is_the_spread_over_repeated_draws():
    found, errors = [], []
    for i in range(40):
        x, y = draw(400, 4, seed=2 * i), draw(400, 4, seed=2 * i + 1, shift=0.7)
        found.append(kernel_distance(x, y))
        errors.append(standard_error(x, y, 10, seed=0))
    assert np.mean(errors) == pytest.approx(np.std(found, ddof=1), rel=0.35)


def test_too_few_rows_for_two_blocks_have_no_standard_error():
    assert standard_error(draw(3, 2), draw(3, 2), 10, seed=0) is None
