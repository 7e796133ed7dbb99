"""WAE-MMD: its discrepancy by brute force, its loss by plain autograd."""

import copy

import torch

from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.losses.discrepancy import SCALES, maximum_mean_discrepancy
from genbench.models.contract import HasPosterior


def by_brute_force(a, b, scales=SCALES):
    """Pair by pair, in the words of the U-statistic."""

    def kernel(x, y):
        constants = [2 * len(x) * scale for scale in scales]
        return sum(c / (c + ((x - y) ** 2).sum()) for c in constants)

    n, total = len(a), 0
    for i in range(n):
        for j in range(n):
            total = total - 2 * kernel(a[i], b[j]) / n**2
            if i != j:
                total = total + (kernel(a[i], a[j]) + kernel(b[i], b[j])) / (n * (n - 1))
    return total


def test_the_discrepancy_has_the_value_that_one_works_out_by_hand():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    torch.testing.assert_close(maximum_mean_discrepancy(a, b, [1.0]), torch.tensor(-1 / 3))


def test_the_discrepancy_and_its_gradient_are_those_of_all_pairs():
    torch.manual_seed(0)
    a, b = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    found, expected = maximum_mean_discrepancy(a, b), by_brute_force(a, b)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(value, a)[0] for value in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_it_is_unbiased_at_0_and_grows_with_the_distance():
    torch.manual_seed(0)
    a, b = torch.randn(512, 8), torch.randn(512, 8)
    same, near, far = (maximum_mean_discrepancy(a, b + shift).item() for shift in (0, 0.5, 1))
    assert abs(same) < 0.01
    assert 0.1 < near < far


def test_the_autoencoder_follows_cost_and_discrepancy():
    torch.manual_seed(0)
    model = build("wae-mmd", "model.weight=3")
    images, before = images_for(model), copy.deepcopy(model)
    ((_, _, gradients),) = train(model, [images]).steps
    before.draws.begin(0)
    codes = before.encoder(images)
    cost = ((images - torch.tanh(before.decoder(codes))) ** 2).sum((1, 2, 3)).mean()
    loss = cost + 3 * by_brute_force(codes, before.noise(12, before.latent_dim))
    assert_gradients(gradients, gradients_of(loss, before, "encoder", "decoder"))


def test_it_has_no_posterior_and_so_no_bound():
    assert not isinstance(build("wae-mmd"), HasPosterior)
