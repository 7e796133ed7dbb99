"""Copies are told from new images, whatever the density and the dimension of their class."""

import pytest
import torch

from fixtures.data import make_digits
from genbench.metrics.copy_rate import CopyRate, copy_rate, nearest
from genbench.metrics.extractors.lenet import LeNet


def draw(count, width=6, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * scale + shift


def classes(count, seed):
    """Ten classes far apart, in 10 dimensions: the first one is dense, the second one is flat."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(10, count, 10, generator=generator)
    points[0] *= 0.2
    points[1, :, 4:] *= 1e-3
    return points + 100 * torch.eye(10)[:, None]


def test_copies_are_told_from_new_images_and_halves_from_wholes():
    train, heldout = draw(1200), draw(600, seed=1)
    new = draw(600, seed=2)
    assert copy_rate(train, train, heldout) == 1
    assert copy_rate(train + draw(1200, seed=3, scale=1e-3), train, heldout) > 0.95
    assert copy_rate(torch.cat([train[:300], new[:300]]), train, heldout) == pytest.approx(
        0.5, abs=0.03
    )
    assert copy_rate(heldout, train, heldout) == pytest.approx(0.01, abs=0.005)
    assert copy_rate(new, train, heldout) < 0.04
    assert copy_rate(draw(600, seed=4, shift=50.0), train, heldout) == 0


def test_new_images_of_any_class_have_the_null_value_and_its_noisy_copies_are_found():
    train, heldout, new = classes(200, 0), classes(200, 1), classes(400, 2)
    noisy = train + 0.05 * train.std(1, keepdim=True) * torch.stack([draw(200, 10)] * 10)
    flat = train.flatten(0, 1)
    parts = [heldout.flatten(0, 1), new.flatten(0, 1), noisy.flatten(0, 1)]
    held, *others = (nearest(part, flat) for part in parts)
    bound = held.distance.quantile(0.5)
    values = [part.within(bound) for part in others]
    threshold = held.within(bound).quantile(0.99)
    counted = [(value >= threshold).double().view(10, -1).mean(1) for value in values]
    assert counted[0].max() < 0.045  # by one threshold on distances 0.075 in the dense class
    assert counted[0].mean() == pytest.approx(0.01, abs=0.006)
    assert counted[1].min() > 0.7
    assert copy_rate(new[0], flat, parts[0]) == pytest.approx(float(counted[0][0]))


def test_images_far_from_all_training_images_are_no_copies_of_the_one_that_is_nearest():
    outlier = torch.zeros(1, 6).index_fill(1, torch.tensor([0]), 30.0)
    train, heldout = torch.cat([draw(1200), outlier]), draw(600, seed=1)
    assert copy_rate(torch.cat([draw(600, seed=2), 2 * outlier + draw(600)]), train, heldout) < 0.03
    assert copy_rate(torch.cat([outlier, outlier]), train, heldout) == 1


def test_duplicates_in_the_training_set_hide_no_copy_and_make_none():
    single, heldout = draw(1200), draw(600, seed=1)
    train = torch.cat([single, single[:300], single[:300] + 1e-5, single[:300] - 1e-5])
    assert copy_rate(single[:300] + 2e-5, train, heldout) == 1
    assert copy_rate(draw(600, seed=2), train, heldout) < 0.04
    lattice = torch.cat([torch.zeros(60, 2), torch.ones(60, 2)])
    assert nearest(torch.full((1, 2), 0.25), lattice).nearness.tolist() == [0]


def test_copies_of_the_embedded_digits_are_told_by_the_shipped_extractor(tmp_path):
    data, extractor = make_digits(tmp_path), LeNet("lenet-digits-v1")
    splits = ("train", "validation", "test")
    sets = [torch.from_numpy(data.pixels(split).copy()) for split in splits]
    with torch.no_grad():
        train, new, heldout = (extractor(pixels, data.levels).features for pixels in sets)
    assert copy_rate(train, train, heldout) == 1
    half = torch.cat([train[:180], new])
    assert copy_rate(half, train, heldout) == pytest.approx(0.5, abs=0.02)
    assert copy_rate(new, train, heldout) <= 0.03
    labels = extractor(sets[1], data.levels).logits.argmax(1)
    assert all(copy_rate(new[labels == k], train, heldout) < 0.1 for k in range(10))


def test_small_sets_are_compared_and_too_small_ones_refused():
    assert copy_rate(draw(3), draw(3), draw(9, seed=1)) == 1
    with pytest.raises(ValueError, match="2 training images"):
        copy_rate(draw(3), draw(2), draw(3))


def test_its_card_is_not_that_of_the_first_form_with_one_threshold_for_all():
    assert CopyRate().estimator == {
        "quantile": 0.01,
        "near": 0.5,
        "nearness": "log(d_5 / d_1) / log(d_50 / d_25)",
        "version": 2,
    }
