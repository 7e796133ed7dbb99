"""Gradient penalties on a discriminator, in float32 at every precision of the run.

They assume that a logit depends on its own image alone: no BatchNorm in the discriminator.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Discriminator = Callable[[Tensor], Tensor]


def input_gradient(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Gradient of D at `images` (N, C, H, W) as (N, C H W); differentiable in D's parameters."""
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_(True)
        logits = discriminator(images).sum()
        (gradient,) = torch.autograd.grad(logits, images, create_graph=True)
    return gradient.flatten(1)


def zero_centered(discriminator: Discriminator, images: Tensor) -> Tensor:
    """E |grad D|^2 / 2: R1 on real images, R2 on fakes; Mescheder et al. 2018, eq. 9.

    https://arxiv.org/abs/1801.04406. Weighted by gamma, as in the paper.
    """
    return 0.5 * input_gradient(discriminator, images).square().sum(1).mean()


def one_centered(discriminator: Discriminator, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (|grad D(x^)| - 1)^2, x^ between real and fake; Gulrajani et al. 2017, eq. 3.

    `mix` is drawn from U(0, 1), one value per image: (N, 1, 1, 1). `vector_norm`, because the square
    root of a sum of squares has no finite gradient at 0. https://arxiv.org/abs/1704.00028
    """
    between = torch.lerp(fake.detach().float(), real.float(), mix)
    norm: Tensor = torch.linalg.vector_norm(input_gradient(discriminator, between), dim=1)
    return (norm - 1).square().mean()
