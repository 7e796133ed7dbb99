"""Memory formats of activations: channels-last or contiguous, as the convolutions' weights are."""

from typing import Any

import torch
from torch import Tensor, nn


class _ChannelsLast(torch.autograd.Function):
    """Convert an activation and its gradient to channels-last memory format.

    Between a linear layer and a channels-last convolution, value and gradient would differ in memory
    format, which makes the backward pass up to ten times as slow.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        return hidden.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # is differentiable again
        return gradients[0].contiguous(memory_format=torch.channels_last)


def like(network: nn.Module, hidden: Tensor) -> Tensor:
    """Match the memory format of the neighbouring network's kernels.

    Its parameters are asked and not its `weight`, which spectral norm would compute anew.
    """
    kernel = next(p for p in network.parameters() if p.ndim == 4)
    if kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous():
        converted: Tensor = _ChannelsLast.apply(hidden)
        return converted
    return hidden
