"""Flow matching: its loss by plain autograd, its solver's orders, its density by quadrature."""

import copy
import math

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.distributions import MultivariateNormal

from fixtures.rows import assert_gradients, build, composed, gradients_of, images_for, train
from genbench.errors import UserMistake
from genbench.models.flow_matching import FlowMatching, integrate
from genbench.networks.unet import UNet, count

ARENAS = [
    ("dataset=digits", "network=mlp", "network.width=256"),
    ("dataset=mnist", "network=mlp", "network.width=256"),
    ("dataset=mnist", "network=conv", "network.width=64"),
    ("dataset=cifar10", "network=resnet", "network.width=64"),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Plane(nn.Module):
    """A velocity of the plane, that bends it; `linear` has one of which all is known."""

    shape = (2, 1, 1)

    def __init__(self, linear=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
        self.linear = linear

    def forward(self, images, t):
        points = images.flatten(1)
        if self.linear is not None:
            return (points @ self.linear.T).view_as(images)
        return self.layers(torch.cat([points, t[:, None]], 1)).view_as(images)


def toy(**changes):
    return FlowMatching(Plane(**changes), 40, "heun", torch.optim.Adam)


def grid(half, count):
    axis = torch.linspace(-half, half, count)
    return torch.cartesian_prod(axis, axis), (2 * half / (count - 1)) ** 2


def test_the_velocity_is_matched_to_that_of_straight_paths():
    model = build("flow-matching")
    images, before = images_for(model), copy.deepcopy(model)
    ((_, _, gradients),) = train(model, [images]).steps
    before.draws.begin(0)
    noise, t = before.noise(12, 1, 8, 8), before.uniform(12, 1, 1, 1)
    between = (1 - t) * noise + t * images
    error = before.decoder(between, t.flatten()) - (images - noise)
    loss = (error**2).sum((1, 2, 3)).mean()
    assert_gradients(gradients, gradients_of(loss, before, "decoder"))


@torch.no_grad()
def test_the_density_is_one_over_the_plane_and_has_the_samples_mean_and_spread():
    """By quadrature: of the density over images, and of the samples over their noise."""
    model = toy()
    points, cell = grid(7, 81)
    density = model.log_density(points.view(-1, 2, 1, 1), 40).exp() * cell
    assert density.sum().item() == pytest.approx(1, abs=2e-3)
    noise, small = grid(6, 81)
    weight = (-0.5 * noise.square().sum(1)).exp() / (2 * math.pi) * small
    made = integrate(model.decoder, noise.view(-1, 2, 1, 1), 40, "heun").flatten(1)
    for power in (1, 2):
        by_density = (density[:, None] * points**power).sum(0)
        torch.testing.assert_close(
            by_density, (weight[:, None] * made**power).sum(0), rtol=0, atol=5e-3
        )


def test_the_density_of_a_linear_velocity_is_that_of_the_gaussian_it_makes():
    matrix = torch.tensor([[0.5, 0.3], [-0.7, -0.2]])
    model, points = toy(linear=matrix), 2 * torch.randn(9, 2)
    flow = torch.linalg.matrix_exp(matrix)
    expected = MultivariateNormal(torch.zeros(2), flow @ flow.T).log_prob(points)
    found = model.log_density(points.view(-1, 2, 1, 1), 100)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_trace_of_the_network_is_that_of_its_jacobian_image_by_image():
    """One step back of Euler's: N(x - v; 0, I) and the trace of dv/dx at x."""
    model = build("flow-matching", "model.solver=euler", "network.width=8")
    images, ones = images_for(model)[:2], torch.ones(1)
    expected = []
    for image in images:
        jacobian = torch.autograd.functional.jacobian(
            lambda x: model.decoder(x.view(1, 1, 8, 8), ones).flatten(), image.flatten()
        )
        z = image - model.decoder(image[None], ones)[0]
        normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum()
        expected.append((normal - jacobian.trace()).detach())
    torch.testing.assert_close(model.log_density(images, 1).detach(), torch.stack(expected))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_solver_has_its_order_in_as_many_evaluations_as_are_asked_for(solver, order):
    called = []

    def field(x, t):
        called.append(t)
        return x * (1 + t[:, None])

    start, exact = torch.ones(1, 1, dtype=torch.float64), math.exp(1.5)
    errors = []
    for evaluations in (32, 64):
        called.clear()
        errors.append(abs(float(integrate(field, start, evaluations, solver)) - exact))
        assert len(called) == evaluations
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_any_number_of_evaluations_reaches_the_end():
    for solver in ("euler", "heun"):
        for evaluations in (1, 2, 3, 5, 8):
            count_ = []
            end = integrate(
                lambda x, t, seen=count_: (seen.append(t), torch.ones_like(x))[1],
                torch.zeros(1, 1),
                evaluations,
                solver,
            )
            assert len(count_) == evaluations and end.item() == pytest.approx(1)


@pytest.mark.parametrize("arena", ARENAS, ids=" ".join)
def test_its_parameters_are_those_of_the_arenas_decoder_and_encoder_within_five_percent(arena):
    cfg = composed("flow-matching", *arena)
    network = instantiate(cfg.model.decoder)
    wanted = count(instantiate(cfg.model.decoder.matching))
    assert count([network]) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("size", [8, 11, 28, 45])
def test_a_u_net_takes_any_size(size):
    network, images = UNet(size, 3, 4), torch.randn(2, 3, size, size)
    assert network(images, torch.rand(2)).shape == images.shape


def test_what_is_no_solver_is_refused():
    with pytest.raises(UserMistake, match=r"model.solver='rk4' is not one of euler, heun"):
        FlowMatching(Plane(), 4, "rk4", torch.optim.Adam)
    with pytest.raises(UserMistake, match=r"model.evaluations=0"):
        FlowMatching(Plane(), 0, "euler", torch.optim.Adam)
    with pytest.raises(UserMistake, match="the U-Net has no width"):
        UNet(8, 1)
