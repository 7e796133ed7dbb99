"""Networks that know labels, made of those that do not: wrappers, so that every network has this form.

The decoder takes [z, e(y)]; an encoder adds a projection of e(y) to its features; a discriminator adds
<P e(y), h> to its logit, the projection of Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637; a prior
over codes has e(y) as its context. Each network has an embedding e of its own, since it belongs to a player of its own.

Labels are integers: classes (N,), or attributes (N, A) of 0 and 1. -1, in a row of attributes everywhere,
stands for none; where a call is given no labels at all, every image has none.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genbench.networks.autoregressive import MaskedPrior
from genbench.networks.heads import Trunk

NONE = -1  # a label that is not known, or was dropped


def given(labels: Tensor | None) -> tuple[Tensor, ...]:
    """Labels as further arguments of a call: none where there are no labels, as networks without a label have it."""
    return () if labels is None else (labels,)


def knowing(network: nn.Module, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The network as a function of images alone, which have these labels."""
    return network if labels is None else lambda images: network(images, labels)


def in_pieces(labels: Tensor | None, pieces: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The labels of each of the batches that a step gets in one and has cut."""
    return [None] * len(pieces) if labels is None else torch.split(labels, [*map(len, pieces)])


class Label(nn.Module):
    """Labels to embeddings: a table for classes, a linear map of +1 and -1 for attributes, a row for none."""

    def __init__(self, count: int, width: int, attributes: bool = False) -> None:
        super().__init__()
        self.attributes, self.width = attributes, width
        self.table = nn.Linear(count, width) if attributes else nn.Embedding(count, width)
        self.none = nn.Parameter(torch.randn(width))

    def forward(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Embeddings (N, width) of labels (N,) or (N, A); N and the device are those of the tensor `like`."""
        if labels is None:
            return self.none.repeat(
                like.shape[0], 1
            )  # no view: `choose_threads` counts without gradients
        labels = labels.to(like.device)
        if self.attributes:
            known = labels[:, :1] >= 0
            embedded = self.table(2.0 * labels.clamp_min(0) - 1)
        else:
            known = labels[:, None] >= 0
            embedded = self.table(labels.clamp_min(0))
        return torch.where(known, embedded, self.none.to(embedded.dtype))


class ConditionalDecoder(nn.Module):
    """A decoder of latent_dim + width inputs, given [z, e(y)]."""

    def __init__(self, network: nn.Module, label: Label, latent_dim: int) -> None:
        super().__init__()
        self.network, self.label, self.latent_dim = network, label, latent_dim

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (N, latent_dim) and labels to unbounded images (N, C, H, W)."""
        images: Tensor = self.network(torch.cat([z, self.label(labels, z)], 1))
        return images


class ConditionalTrunk(nn.Module):
    """The trunk of an encoder: its features plus a linear map of e(y)."""

    def __init__(self, trunk: Trunk, label: Label) -> None:
        super().__init__()
        self.trunk, self.label, self.feature_dim = trunk, label, trunk.feature_dim
        self.project = nn.Linear(label.width, trunk.feature_dim, bias=False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) and labels to (N, feature_dim)."""
        projected: Tensor = self.project(self.label(labels, images))
        return self.trunk(images) + projected

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage; they know no label."""
        return self.trunk.features(images)

    def head(self, outputs: int) -> nn.Linear:
        """The trunk's own."""
        return self.trunk.head(outputs)


class ConditionalPrior(nn.Module):
    """A prior over codes that is given e(y): p(k_1, ..., k_T | y)."""

    def __init__(self, network: MaskedPrior, label: Label) -> None:
        super().__init__()
        self.network, self.label = network, label
        self.tokens, self.codes = network.tokens, network.codes

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(codes | labels) in nats, (N,), for codes (N, T)."""
        log_p: Tensor = self.network(codes, self.label(labels, codes))
        return log_p

    def draw(self, uniform: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes (N, T) of labels at `uniform` (N, T) in (0, 1)."""
        return self.network.draw(uniform, self.label(labels, uniform))


class ProjectionTrunk(nn.Module):
    """The trunk of a discriminator: knows no label, and builds a head that does."""

    def __init__(self, trunk: Trunk, label: Label) -> None:
        super().__init__()
        self.trunk, self.feature_dim = trunk, trunk.feature_dim
        self._label = [label]  # belongs to the head: not registered here

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        return self.trunk(images)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage."""
        return self.trunk.features(images)

    def head(self, outputs: int) -> "ProjectionHead":
        """A linear layer of one output that adds the projection."""
        assert outputs == 1, "a discriminator has one logit"
        return ProjectionHead(self.trunk.head(1), self._label[0])


class ProjectionHead(nn.Module):
    """Features h to psi(h) + <P e(y), h>, eq. 3 of the paper with a linear psi."""

    def __init__(self, linear: nn.Linear, label: Label) -> None:
        super().__init__()
        self.linear, self.label = linear, label
        self.project = nn.Linear(label.width, linear.in_features, bias=False)
        # a product of the size that psi's initial one has
        nn.init.normal_(self.project.weight, 0.0, 1 / math.sqrt(label.width * linear.in_features))

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map features (N, d) and labels to logits (N, 1)."""
        product = self.projected(labels, hidden) * hidden
        logits: Tensor = self.linear(hidden) + product.sum(1, keepdim=True)
        return logits

    def projected(self, labels: Tensor | None, hidden: Tensor) -> Tensor:
        """P e(y), (N, d): what a label adds to the weight of psi."""
        projected: Tensor = self.project(self.label(labels, hidden))
        return projected

    @property
    def weight(self) -> Tensor:
        """That of psi, (1, d)."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor:
        """That of psi, (1,)."""
        return self.linear.bias
