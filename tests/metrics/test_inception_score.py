"""The inception score against values by hand."""

import math

import pytest
import torch

from fixtures.features import one_hot
from genbench.metrics.inception_score import inception_score


def test_a_perfect_generator_scores_its_classes_at_any_gap_between_logits():
    for gap in (2000.0, 1e5):
        assert inception_score(one_hot(range(10), gap)) == pytest.approx(10, rel=1e-9)
        assert inception_score(one_hot([3], gap)) == pytest.approx(1, rel=1e-9)
        assert inception_score(one_hot(range(9), gap)) == pytest.approx(9, rel=1e-9)


def test_two_mirrored_images_have_the_score_worked_out_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    assert inception_score(p.log()) == pytest.approx(1.4449348111684153, rel=1e-12)


def test_the_inception_score_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        inception_score(torch.full((4, 3), math.nan))
