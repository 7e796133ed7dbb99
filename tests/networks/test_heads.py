"""The heads of encoders."""

import torch

from genbench.losses.variational import kl_to_standard_normal
from genbench.networks.heads import GaussianEncoder, bent
from genbench.networks.mlp import MLPTrunk


def test_a_log_variance_below_eight_is_what_it_was_to_the_bit():
    logvar = torch.linspace(-60, 8, 1001)
    assert torch.equal(bent(logvar), logvar)


def test_above_it_grows_as_a_logarithm_and_keeps_a_gradient():
    logvar = torch.tensor([8.0, 9.0, 80.0, 1e6], requires_grad=True)
    found = bent(logvar)
    expected = 8 + torch.log1p(torch.tensor([0.0, 1.0, 72.0, 1e6 - 8]))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(logvar.grad, torch.tensor([1.0, 1 / 2, 1 / 73, 1 / (1e6 - 7)]))


def test_an_encoder_that_was_thrown_off_comes_back():
    """Without the bound Adam's second moment is infinite after one step, and no weight moves again."""
    torch.manual_seed(0)
    encoder = GaussianEncoder(MLPTrunk(8, 1, 16, 1), 2)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2, betas=(0.0, 0.99))
    images = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        encoder.head.bias[2:] = 90.0
    rates = []
    for _ in range(600):
        rate = kl_to_standard_normal(*encoder(images)).mean()
        optimizer.zero_grad()
        rate.backward()
        optimizer.step()
        rates.append(float(rate.detach()))
    assert 1e5 < rates[0] < 1e6 and rates[-1] < 20
    assert all(p.isfinite().all() for p in encoder.parameters())
