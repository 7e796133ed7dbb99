"""Precision, recall, density and coverage against their definitions."""

import math

import numpy as np
import pytest
import torch

from fixtures.features import draw
from genbench.metrics.prdc import prdc


def test_a_set_among_itself_is_precise_and_complete():
    x = draw(200, 5)
    found = prdc(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_neighbours_agree_with_the_definitions_written_out():
    x, y, k = draw(60, 3), draw(80, 3, seed=1, scale=0.6), 5
    between = torch.cdist(x, y)
    real = torch.cdist(x, x).sort(1).values[:, k]  # column 0 is the row itself
    fake = torch.cdist(y, y).sort(1).values[:, k]
    inside = between <= real[:, None]
    found = prdc(x, y, k)
    assert found.precision == pytest.approx(float(inside.any(0).double().mean()))
    assert found.recall == pytest.approx(float((between <= fake).any(1).double().mean()))
    assert found.density == pytest.approx(float(inside.double().sum() / (k * len(y))))
    assert found.coverage == pytest.approx(float(inside.any(1).double().mean()))


def test_neighbours_are_the_same_block_by_block(monkeypatch):
    x, y = draw(60, 3), draw(80, 3, seed=1, scale=0.6)
    whole = prdc(x, y)
    monkeypatch.setattr("genbench.metrics.prdc.BLOCK", 500)
    assert prdc(x, y) == whole


def test_an_offset_of_a_thousand_changes_no_neighbour():
    x, y = draw(300, 6), draw(300, 6, seed=1, scale=0.8)
    assert prdc(x + 1000, y + 1000) == prdc(x, y)


def test_a_model_that_repeats_one_image_is_precise_and_has_no_recall():
    x = draw(300, 6)
    found = prdc(x, x[:1].repeat(300, 1))
    assert found.precision == 1
    assert found.recall == 1 / 300
    assert found.coverage < 0.05


def test_equal_distributions_have_the_ceilings_that_are_known():
    n, k = 400, 5
    found = [prdc(draw(n, 4, seed=2 * i), draw(n, 4, seed=2 * i + 1), k) for i in range(12)]
    ceiling = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert ceiling == pytest.approx(0.969, abs=1e-3)
    assert np.mean([part.coverage for part in found]) == pytest.approx(ceiling, abs=0.01)
    assert np.mean([part.density for part in found]) == pytest.approx(1, abs=0.05)


def test_neighbours_refuse_fewer_rows_than_they_need():
    with pytest.raises(ValueError, match="5 rows have no 5 neighbours"):
        prdc(draw(5, 2), draw(30, 2))
