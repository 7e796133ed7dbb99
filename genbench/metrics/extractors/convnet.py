"""A residual classifier of small photographs: He, Zhang, Ren, Sun 2016, https://arxiv.org/abs/1512.03385.

Three stages of basic blocks, of 32, 64 and 128 channels at full, half and quarter size. The features are
the spatial mean of the last stage: 128, so that a few thousand images determine their covariance.
`convnet_training.py` makes the weights; batch normalisation is folded into the convolutions when they
are stored.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genbench.metrics.contract import Features
from genbench.metrics.extractors.classifier import Classifier

WIDTHS = (32, 64, 128)  # channels of the stages; the last ones are the features

BLOCKS = (1, 2, 2)  # in each stage: fewer where they cost the most

SMALLEST = 8  # pixels a side

MEAN, STD = 0.5, 0.25  # the input in [0, 1] is centred and scaled by these


class Layer(nn.Sequential):
    """A convolution, and batch normalisation while it is trained; no activation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, norm: bool) -> None:
        convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not norm)
        super().__init__(convolution, *([nn.BatchNorm2d(outputs)] if norm else []))


class Block(nn.Module):
    """Two convolutions and a shortcut: (N, inputs, S, S) to (N, outputs, S / stride, S / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.first = Layer(inputs, outputs, 3, stride, norm)
        self.second = Layer(outputs, outputs, 3, 1, norm)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else Layer(inputs, outputs, 1, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """`relu(shortcut(x) + second(relu(first(x))))`."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class Network(nn.Module):
    """Images (N, C, S, S) in [0, 1] to features (N, 128) and logits; `norm` while it is trained."""

    def __init__(self, channels: int, classes: int, norm: bool) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.stem = Layer(channels, WIDTHS[0], 3, 1, norm)
        blocks, inputs = [], WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(Block(inputs, width, stride, norm))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Features:
        """The spatial mean after the last block, and what the linear classifier makes of it."""
        x = torch.relu(self.stem((images - MEAN) / STD))
        features = self.blocks(x).mean((2, 3))
        return Features(features, self.head(features))


class ConvNet(Classifier):
    """See `Classifier`."""

    architecture, feature_dim = "convnet", WIDTHS[-1]
    layer = "spatial mean after the last block; logits of the classes"

    def prepare(self) -> None:
        """Find the weights, check their sha256, load them. Raises UserMistake."""
        super().prepare()
        assert self.network is not None
        self.network.to(memory_format=torch.channels_last)  # on a CPU 1.7 times as fast

    @staticmethod
    def build(image_size: int, channels: int, classes: int) -> nn.Module:
        """A `Network` without norm; it takes images of any size."""
        return Network(channels, classes, norm=False)


@torch.no_grad()
def folded(network: Network) -> Network:
    """The same function without normalisation, as in eval mode; float32 on the CPU."""
    plain = Network(network.channels, network.classes, norm=False).requires_grad_(False)
    trained = dict(network.cpu().float().named_modules())
    for name, layer in plain.named_modules():
        if isinstance(layer, Layer):
            convolution, norm = trained[name].children()
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            layer.load_state_dict(
                fuse_conv_bn_eval(convolution.eval(), norm.eval()).state_dict(prefix="0.")
            )
    plain.head.load_state_dict(network.head.state_dict())
    return plain
