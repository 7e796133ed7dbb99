"""The graph of the 2015 Inception, with batch normalisation folded into the convolutions.

Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; the weights are TensorFlow's own, converted by
pytorch-fid and torch-fidelity (Apache-2.0). It differs from torchvision's Inception v3: its average
pools do not count the padding, the last block has a maximum pool, and there are 1008 classes.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import GenbenchError
from genbench.metrics.contract import Features

BN_EPSILON = 1e-3  # TensorFlow's

TOLERANCE = 1e-5  # largest relative error from folding


class Conv(nn.Conv2d):
    """Convolution and ReLU; weight and bias include the batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to ReLU of the convolution."""
        return F.relu(super().forward(x), inplace=True)


def _average(x: Tensor) -> Tensor:
    """TensorFlow's average pool: padding does not count."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """Mixed 5b, 5c, 5d: 35 x 35."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate four branches."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """Mixed 6a: 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate three branches."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """Mixed 6b to 6e: 17 x 17, `narrow` channels inside."""

    def __init__(self, narrow: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, narrow, 1)
        self.branch7x7_2 = Conv(narrow, narrow, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(narrow, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(768, narrow, 1)
        self.branch7x7dbl_2 = Conv(narrow, narrow, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(narrow, narrow, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(narrow, narrow, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(narrow, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate four branches."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), seven, twice, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """Mixed 7a: 17 x 17 to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate three branches."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """Mixed 7b (average pool) and 7c (maximum pool): 8 x 8."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate six branches."""
        three = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(twice),
                self.branch3x3dbl_3b(twice),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class Network(nn.Module):
    """(N, 3, 299, 299) in about [-1, 1] to 2048 features and 1008 logits.

    The logits leave out the bias, as the Inception Score of Salimans et al. 2016, section 4, does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, _average)
        self.Mixed_7c = BlockE(2048, _maximum)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Features:
        """Features after the last pool (N, 2048), logits (N, 1008)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean((2, 3))
        return Features(features, features @ self.fc.weight.T)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold each batch normalisation into its convolution: published state dict to that of `Network`.

    W' = W g / s and b' = b - m g / s, where s = sqrt(v + epsilon).
    """
    result = {name: state[name] for name in ("fc.weight", "fc.bias")}
    for name in state:
        if not name.endswith(".conv.weight"):
            continue
        block = name.removesuffix(".conv.weight")
        weight, gain, shift, mean, variance = (
            state[f"{block}.{part}"].double()
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        factor = gain / (variance + BN_EPSILON).sqrt()
        result[f"{block}.weight"] = (weight * factor.view(-1, 1, 1, 1)).float()
        result[f"{block}.bias"] = (shift - mean * factor).float()
    return result


def check_folded(network: Network, state: Mapping[str, Tensor]) -> None:
    """Raise GenbenchError if a folded convolution differs from convolution and normalisation."""
    for name, layer in network.named_modules():
        if not isinstance(layer, Conv):
            continue
        conv, gain, shift, mean, variance = (
            state[f"{name}.{part}"].float()
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        inputs = conv.shape[1]
        probe = torch.arange(inputs * 49, dtype=torch.float32).cos().view(1, inputs, 7, 7)
        expected = F.batch_norm(F.conv2d(probe, conv), mean, variance, gain, shift, eps=BN_EPSILON)
        found = F.conv2d(probe, layer.weight, layer.bias)
        if not (found - expected).norm() <= TOLERANCE * expected.norm():
            raise GenbenchError(
                f"{name} of the Inception is not the same after folding its batch normalisation: "
                "the weights or this PyTorch are broken"
            )
