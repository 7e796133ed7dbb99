import pytest
import torch

from fixtures.features import draw
from genbench.metrics.copy_rate import copy_rate


def test_copies_are_told_from_new_images_and_halves_from_wholes():
    train, heldout = draw(1200, 6), draw(600, 6, seed=1)
    new = draw(600, 6, seed=2)
    assert copy_rate(train, train, heldout) == 1
    assert copy_rate(train + draw(1200, 6, seed=3, scale=1e-3), train, heldout) > 0.95
    assert copy_rate(torch.cat([train[:300], new[:300]]), train, heldout) == pytest.approx(
        0.5, abs=0.03
    )
    assert copy_rate(heldout, train, heldout) == pytest.approx(0.01, abs=0.005)
    assert copy_rate(new, train, heldout) < 0.04
    assert copy_rate(draw(600, 6, seed=4, shift=50.0), train, heldout) == 0
