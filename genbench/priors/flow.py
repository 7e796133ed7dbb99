"""A rectified flow on codes: Liu et al. 2023, https://arxiv.org/abs/2209.03003, and Lipman et al. 2023,
https://arxiv.org/abs/2210.02747. What latent diffusion does, at the size of a vector of codes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genbench.priors.contract import Prior, one_thread
from genbench.ranges import number, whole

BANDS = 3  # frequencies by which the network sees the time
AT_ONCE = 4096  # latents that are drawn together


class Velocity(nn.Module):
    """An MLP from points (N, d) and times (N, 1) in [0, 1] to velocities (N, d)."""

    def __init__(self, dimensions: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = dimensions + 2 * BANDS
        for _ in range(depth):
            layers += [nn.Linear(before, width), nn.SiLU()]
            before = width
        self.layers = nn.Sequential(*layers, nn.Linear(before, dimensions))
        self.bands = 2.0 ** torch.arange(BANDS) * math.pi / 2

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x at time t."""
        angles = t * self.bands
        found: Tensor = self.layers(torch.cat([x, angles.sin(), angles.cos()], 1))
        return found


class Flow(Prior):
    """Carries N(0, I) along straight lines to the codes, each coordinate standardised.

    `width` and `depth` are those of the network's hidden layers. It is trained for `steps` batches of
    `batch_size` codes by Adam, whose learning rate falls linearly from `lr` to 0, and solved by Heun's
    method in `solver_steps`.
    """

    kind = "flow"

    def __init__(
        self,
        codes: int = 20_000,
        seed: int = 0,
        width: int = 128,
        depth: int = 3,
        steps: int = 2_500,
        batch_size: int = 1_024,
        lr: float = 1e-2,
        solver_steps: int = 20,
    ) -> None:
        super().__init__(codes, seed)
        sizes = {"width": width, "depth": depth, "steps": steps, "batch_size": batch_size}
        for name, value in (sizes | {"solver_steps": solver_steps}).items():
            whole(f"prior.flow.{name}", value)
        number("prior.flow.lr", lr, above=True)
        self.width, self.depth, self.steps, self.batch_size = width, depth, steps, batch_size
        self.lr, self.solver_steps = lr, solver_steps

    @property
    def settings(self) -> Mapping[str, Any]:
        """Network, training and solver."""
        return {
            "width": self.width,
            "depth": self.depth,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "solver_steps": self.solver_steps,
        }

    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Train the network to give x1 - x0 at (1 - t) x0 + t x1, x0 from N(0, I) and x1 a code."""
        shift, scale = codes.mean(0), codes.std(0).clamp_min(1e-6)
        points = (codes - shift) / scale
        with (
            torch.random.fork_rng([]),
            torch.inference_mode(False),
            torch.enable_grad(),
            one_thread(),
        ):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            network = Velocity(points.shape[1], self.width, self.depth)
            loss = self._train(network, points.clone(), generator)
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.tensors = {"shift": shift, "scale": scale, **state}
        self.found = {"loss": loss}

    def _train(self, network: Velocity, points: Tensor, generator: torch.Generator) -> float:
        """The mean loss of a code, its dimensions summed, over the last tenth of the steps."""
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr, fused=True)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / self.steps)
        losses = []
        for _ in range(self.steps):
            x1 = points[torch.randint(len(points), (self.batch_size,), generator=generator)]
            x0 = torch.randn(x1.shape, generator=generator)
            t = torch.rand(len(x1), 1, generator=generator)
            loss = (network(torch.lerp(x0, x1, t), t) - (x1 - x0)).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
            losses.append(loss.detach())
        return float(torch.stack(losses[-max(1, self.steps // 10) :]).mean())

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Carry draws of N(0, I) to the codes."""
        shift, scale = self.fitted["shift"], self.fitted["scale"]
        network = Velocity(len(shift), self.width, self.depth)
        network.load_state_dict({k: v for k, v in self.fitted.items() if k.startswith("layers.")})
        noise = torch.randn(n, len(shift), generator=generator)
        with torch.no_grad(), one_thread():
            ends = [self._carried(network, part) for part in torch.split(noise, AT_ONCE)]
        return torch.cat(ends) * scale + shift

    def _carried(self, network: Velocity, x: Tensor) -> Tensor:
        step = 1 / self.solver_steps
        for number_ in range(self.solver_steps):
            t = torch.full((len(x), 1), number_ * step)
            v = network(x, t)
            x = x + 0.5 * step * (v + network(x + step * v, t + step))
        return x
