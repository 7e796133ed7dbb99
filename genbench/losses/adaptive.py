"""A weight between two losses that depends on their gradients."""

import torch
from torch import Tensor, nn

SMALLEST = 1e-4  # added to the adversarial gradient's norm

LARGEST = 1e4  # of the ratio


def gradient_ratio(reconstruction: Tensor, adversarial: Tensor, weight: nn.Parameter) -> Tensor:
    """|d reconstruction / d w| / (|d adversarial / d w| + 1e-4), at most 1e4: a scalar without a gradient.

    Both losses are scalars that depend on `weight`, the decoder's last one; their graphs are kept. Esser et
    al. 2021, https://arxiv.org/abs/2012.09841, eq. 7; the two constants are those of the authors' code.
    """
    of_reconstruction, of_adversarial = (
        torch.autograd.grad(loss, weight, retain_graph=True)[0].float()
        for loss in (reconstruction, adversarial)
    )
    norm = torch.linalg.vector_norm
    ratio = norm(of_reconstruction) / (norm(of_adversarial) + SMALLEST)
    found: Tensor = ratio.clamp(max=LARGEST).detach()
    return found


def last_weight(decoder: nn.Module) -> nn.Parameter:
    """The weight of a decoder's last layer: its last parameter of more than one dimension."""
    return [p for p in decoder.parameters() if p.dim() > 1][-1]
