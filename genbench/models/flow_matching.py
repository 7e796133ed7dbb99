"""Flow matching in pixels: Lipman et al. 2023, https://arxiv.org/abs/2210.02747, with straight paths, which is
rectified flow: Liu et al. 2022, https://arxiv.org/abs/2209.03003, eq. 1.

One player, a velocity v(x, t): E |v(x_t, t) - (x_1 - x_0)|^2 with x_t = (1 - t) x_0 + t x_1, x_0 from
N(0, I), x_1 an image, t from U(0, 1). A sample follows dx/dt = v from noise of the image's shape at t = 0 to
t = 1. The log density follows from the trace of dv/dx along the way back (Chen et al. 2018,
https://arxiv.org/abs/1806.07366, theorem 1), here exactly.

It is not in the arena: its network is a U-Net and no decoder of the arena's latents, with equal seeds it has
no initial weights in common with the others, and one sample takes many evaluations of it. Parameters are
matched to the arena's decoder and encoder together.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.networks.unet import UNet
from genbench.ranges import whole

Solver = Literal["euler", "heun"]
Field = Callable[[Tensor, Tensor], Tensor]  # states (N, ...) at times (N,) to their derivatives


class FlowMatching(GenerativeModel):
    """One player: the velocity. `decoder` has the `shape` (C, H, W) of images and maps (x, t) to v."""

    counted = "velocity"

    def __init__(
        self,
        decoder: UNet,
        evaluations: int,
        solver: Solver,
        optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        whole("model.evaluations", evaluations)
        if solver not in get_args(Solver):
            raise UserMistake(
                f"model.solver={solver!r} is not one of {', '.join(get_args(Solver))}"
            )
        self.decoder, self.optimizer = decoder, optimizer
        self.evaluations: int = evaluations  # of `sample`; scores change it for a while
        self.solver: Solver = solver
        self.shape = decoder.shape
        self.latent_dim = math.prod(self.shape)

    def players(self) -> dict[str, Player]:
        """The velocity alone."""
        return {"velocity": Player([self.decoder], self.optimizer)}

    def step(self, images: Tensor) -> Iterator[Move]:
        """Match the velocity to that of straight paths from noise to images."""
        yield Move("velocity", lambda: self.loss(images))

    def loss(self, images: Tensor) -> Tensor:
        """Squared error of the velocity, summed over values, mean over images."""
        noise, t = self.noise(len(images), *self.shape), self.uniform(len(images), 1, 1, 1)
        velocity = self.decoder(torch.lerp(noise, images, t), t.flatten())
        squares: Tensor = (velocity.float() - (images - noise)).square().flatten(1)
        error = squares.sum(1).mean()
        self.track("train/velocity_error", error)
        return error

    def sample(self, z: Tensor) -> Tensor:
        """Follow the velocity from noise, in `evaluations` evaluations; bounded to [-1, 1]."""
        images = z.view(len(z), *self.shape)
        return integrate(self.decoder, images, self.evaluations, self.solver).clamp(-1, 1)

    def log_density(self, images: Tensor, evaluations: int) -> Tensor:
        """log p(images) in nats, (N,), of the density on all of R^(C H W), by the way back from t = 1.

        Exact but for the solver's error: too high by it, on trained networks. Each evaluation takes the whole Jacobian of v at every image: C H W gradients.
        """
        points = images.flatten(1)

        def velocity(point: Tensor, t: Tensor) -> Tensor:
            shown = point.view(1, *self.shape)
            found: Tensor = self.decoder(shown, t.view(1)).float().flatten()
            return found

        trace = vmap(lambda point, t: jacrev(velocity)(point, t).diagonal().sum())

        def back(state: Tensor, s: Tensor) -> Tensor:  # s = 1 - t runs from 0 to 1
            x, t = state[:, :-1], 1 - s
            v = self.decoder(x.view(len(x), *self.shape), t).float().flatten(1)
            return torch.cat([-v, -trace(x, t)[:, None]], 1)

        begin = torch.cat([points, points.new_zeros(len(points), 1)], 1)
        end = integrate(back, begin, evaluations, self.solver)
        z, change = end[:, :-1], end[:, -1]
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + change

    def objective(self) -> str:
        """The error, and how far the network is from the arena's."""
        return (
            f"squared error of the velocity; not in the arena: a U-Net, {self.evaluations} evaluations of it "
            f"a sample ({self.solver})"
        )


def integrate(field: Field, x: Tensor, evaluations: int, solver: Solver) -> Tensor:
    """The state at t = 1 of dx/dt = field(x, t) from `x` at t = 0, in so many evaluations of `field`.

    Steps are equally long. Heun's method takes two evaluations a step; of an odd number the last step is
    Euler's.
    """
    each = 2 if solver == "heun" else 1
    steps = math.ceil(evaluations / each)
    for number in range(steps):
        t = x.new_full((len(x),), number / steps)
        slope = field(x, t)
        if each * (number + 1) <= evaluations and each == 2:
            slope = 0.5 * (slope + field(x + slope / steps, t + 1 / steps))
        x = x + slope / steps
    return x
