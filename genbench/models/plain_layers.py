"""A decoder as plain layers in half precision, for programs without PyTorch: those of a page.

Activations are laid out height, width, channel, so that what runs them reads weights and writes sums in
order. BatchNorm is folded, as it normalises by running statistics, into the layer before it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.models.batch_statistics import recalibrated, uncompiled
from genbench.models.contract import GenerativeModel, draws_standard_normal
from genbench.models.drawing import evaluating
from genbench.networks.conditional import NONE, ConditionalDecoder, given

MOST_WEIGHTS = 1_000_000  # 2 MB in half precision
MOST_WORK = 32_000_000  # multiply-adds of an image
WORST_ERROR = 2.0  # grey levels of 255, of any value of any image
TRIED, SEED = 64, 9_157  # latents that are decoded both ways
OUTPUTS = ("clamp", "tanh", "sigmoid")  # what makes an image of the last layer's output


class CannotBeExported(Exception):
    """Why a decoder is not written as plain layers: half a sentence, after the name of its row."""


class Layer(NamedTuple):
    """A layer: what it is, and its tensors as PyTorch has them, rounded to half precision."""

    card: Mapping[str, Any]
    tensors: Sequence[Tensor] = ()


class PlainLabels(NamedTuple):
    """What a conditional decoder reads beside z: the embedding of a label, and the card that says which labels.

    `rows` (R, width), rounded to half precision: one for each class, or one for each attribute and then
    the sum that they are added to (a set attribute adds its row, another subtracts it); last, where labels
    were hidden in training, the row for none.
    """

    card: Mapping[str, Any]
    rows: Tensor

    def embedded(self, labels: Tensor) -> Tensor:
        """Embeddings (N, width) of classes (N,), or of attributes (N, A) of 0 and 1; -1 stands for none."""
        count = len(self.card["names"])
        if self.card["kind"] == "class":
            return self.rows[labels]  # -1 is the last row
        embedded = (2.0 * labels.clamp_min(0) - 1) @ self.rows[:count] + self.rows[count]
        return torch.where(labels[:, :1] >= 0, embedded, self.rows[-1])


class PlainDecoder(NamedTuple):
    """Layers in order, how their output becomes an image, and the worst error in grey levels of 255.

    With `labels` the layers read [z, e(y)].
    """

    layers: Sequence[Layer]
    output: str
    worst_error: float
    labels: PlainLabels | None = None

    def flat(self) -> Tensor:
        """All weights in the order in which they are read, (n,) float16; the rows of labels come last."""
        parts = [part.reshape(-1) for layer in self.layers for part in _in_order(layer)]
        parts += [] if self.labels is None else [self.labels.rows.reshape(-1)]
        return torch.cat(parts).half()


def plain_decoder(model: GenerativeModel) -> PlainDecoder:
    """Take the model's decoder apart, as it is sampled. CannotBeExported where that is not possible.

    The layers are tried on latents: what they decode may differ by two grey levels at most.
    """
    if getattr(model, "decoder", None) is None:
        raise CannotBeExported("it has no decoder")
    if not draws_standard_normal(model):
        raise CannotBeExported("its latents are no draws of N(0, I)")
    labels = _labels(model)
    # before its statistics are taken
    _check_size(_layers(_network(model)), 0 if labels is None else labels.rows.numel())
    with recalibrated(model), evaluating(model), uncompiled():
        layers = _layers(_network(model))
        z, told = _tried(model, labels)
        expected = model.sample(z.to(model.device), *given(told)).float().cpu()
    if labels is not None and told is not None:
        z = torch.cat([z, labels.embedded(told)], 1)
    try:
        raw = run(layers, z).reshape(expected.shape)
    except RuntimeError:  # shapes that do not fit: a network with layers beside these
        raise CannotBeExported("its decoder is no chain of layers") from None
    errors = {name: _error(_image(name, raw), expected) for name in OUTPUTS}
    best = min(errors, key=lambda name: errors[name])
    if not errors[best] <= WORST_ERROR:
        raise CannotBeExported(
            f"in half precision its pictures are off by {errors[best]:.3g} grey levels"
        )
    return PlainDecoder(layers, best, errors[best], labels)


def _network(model: GenerativeModel) -> nn.Module:
    """The decoder, without what tells it the label."""
    decoder: Any = model.decoder
    return decoder.network if isinstance(decoder, ConditionalDecoder) else decoder


def _labels(model: GenerativeModel) -> PlainLabels | None:
    decoder, condition = model.decoder, model.condition
    if condition is None or not isinstance(decoder, ConditionalDecoder):
        return None
    label = decoder.label
    rows = [label.table.weight]
    card: dict[str, Any] = {"kind": condition.kind, "names": list(condition.names)}
    if isinstance(label.table, nn.Linear):  # attributes
        rows = [rows[0].T, label.table.bias[None]]
        card["first"] = condition.rows()[0].tolist()  # the commonest in training
    rows += [label.none[None]] if condition.dropout else []
    card |= {"none": condition.dropout > 0, "width": label.width}
    return PlainLabels(card, torch.cat([_cpu(row) for row in rows]).half().float())


def _tried(model: GenerativeModel, labels: PlainLabels | None) -> tuple[Tensor, Tensor | None]:
    """Latents, and every class in turn or random attributes; the first of them is none, where it is known."""
    generator = torch.Generator().manual_seed(SEED)
    tried = TRIED if labels is None else max(TRIED, len(labels.rows))
    z = torch.randn(tried, model.latent_dim, generator=generator)
    if labels is None:
        return z, None
    count = len(labels.card["names"])
    if labels.card["kind"] == "class":
        told = (torch.arange(tried) - 1) % count
    else:
        told = torch.randint(2, (tried, count), generator=generator)
    if labels.card["none"]:
        told[0] = NONE
    return z, told


def _image(output: str, raw: Tensor) -> Tensor:
    """An image in [-1, 1] of the last layer's output."""
    match output:
        case "tanh":
            return raw.tanh()
        case "sigmoid":
            return 2 * raw.sigmoid() - 1
        case _:
            return raw.clamp(-1, 1)


def _error(images: Tensor, expected: Tensor) -> float:
    error = float((images - expected.clamp(-1, 1)).abs().max()) * 127.5
    return error if math.isfinite(error) else math.inf


def _check_size(layers: Sequence[Layer], beside: int) -> None:
    """Refuse too many weights, those of labels `beside` included, or too much work."""
    weights = beside + sum(tensor.numel() for layer in layers for tensor in layer.tensors)
    work = sum(_work(layer.card) for layer in layers)
    if weights > MOST_WEIGHTS or work > MOST_WORK:
        raise CannotBeExported(
            f"its decoder has {weights:,} weights and takes {work:,} multiply-adds an image; a page takes "
            f"{MOST_WEIGHTS:,} and {MOST_WORK:,}"
        )


def _work(card: Mapping[str, Any]) -> int:
    if card["kind"] == "linear":
        return int(card["inputs"] * card["outputs"])
    if card["kind"] == "transposed":
        return int(card["inputs"] * card["outputs"] * (card["size"] * card["kernel"]) ** 2)
    return 0


def _layers(decoder: nn.Module) -> list[Layer]:
    """The layers of a chain; CannotBeExported for any other network."""
    try:
        found = _taken_apart(_chain(decoder))
    except (RuntimeError, ValueError, IndexError):  # a chain in which shapes are not as they look
        raise CannotBeExported("its decoder is no chain of layers") from None
    return [Layer(card, [t.half().float() for t in tensors]) for card, tensors in found]


def _taken_apart(chain: Sequence[nn.Module]) -> list[Layer]:
    found: list[Layer] = []
    shape: tuple[int, ...] = ()  # channels, height and width, after Unflatten
    for module in chain:
        match module:
            case nn.Unflatten():
                shape = tuple(module.unflattened_size)
                if len(shape) != 3 or shape[1] != shape[2]:
                    raise CannotBeExported("its decoder makes no square pictures")
                last = max(i for i, one in enumerate(found) if one.card["kind"] == "linear")
                card = {**found[last].card, "channels": shape[0]}
                found[last] = found[last]._replace(card=card)
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                found[-1:] = [_folded(found[-1:], module)]
            case _:
                layer, shape = _layer(module, shape)
                found.append(layer)
    return found


def _chain(decoder: nn.Module) -> list[nn.Module]:
    """The modules of a Sequential, or of a network that consists of such, one after another."""
    parts = [decoder] if isinstance(decoder, nn.Sequential) else [*decoder.children()]
    if not parts or not all(isinstance(part, nn.Sequential) for part in parts):
        raise CannotBeExported(f"its decoder is a {type(decoder).__name__}, no chain of layers")
    return [module for part in parts for module in part.children()]


def _layer(module: nn.Module, shape: tuple[int, ...]) -> tuple[Layer, tuple[int, ...]]:
    """A layer, and the shape of what it gives."""
    match module:
        case nn.Linear():
            card = {"kind": "linear", "inputs": module.in_features, "outputs": module.out_features}
            return Layer(card, _weights(module, module.out_features)), shape
        case nn.ReLU() | nn.LeakyReLU():
            return Layer({"kind": "relu", "slope": getattr(module, "negative_slope", 0.0)}), shape
        case nn.GroupNorm() if shape:
            norm = {"groups": module.num_groups, "channels": shape[0], "size": shape[1]}
            card = {"kind": "group_norm", **norm, "eps": module.eps}
            return Layer(card, [_cpu(module.weight), _cpu(module.bias)]), shape
        case nn.ConvTranspose2d() if shape and _is_plain(module):
            kernel, stride, padding = (
                int(part[0]) for part in (module.kernel_size, module.stride, module.padding)
            )
            extra = module.output_padding[0]
            size = (shape[1] - 1) * stride - 2 * padding + kernel + extra
            card = {
                "kind": "transposed",
                "inputs": module.in_channels,
                "outputs": module.out_channels,
                "kernel": kernel,
                "stride": stride,
                "padding": padding,
                "size": shape[1],
                "out_size": size,
            }
            layer = Layer(card, _weights(module, module.out_channels))
            return layer, (module.out_channels, size, size)
        case _:
            raise CannotBeExported(f"its decoder has a layer {type(module).__name__}")


def _is_plain(module: nn.ConvTranspose2d) -> bool:
    square = all(
        part[0] == part[1]
        for part in (module.kernel_size, module.stride, module.padding, module.output_padding)
    )
    return square and module.groups == 1 and module.dilation == (1, 1)


def _cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def _weights(module: nn.Linear | nn.ConvTranspose2d, outputs: int) -> list[Tensor]:
    bias = torch.zeros(outputs) if module.bias is None else _cpu(module.bias)
    return [_cpu(module.weight), bias]


def _folded(before: Sequence[Layer], norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Layer:
    """The layer before with a norm in it: w' = w g / s, b' = (b - m) g / s + c, for each channel."""
    if not before or before[0].card["kind"] not in ("linear", "transposed"):
        raise CannotBeExported("its decoder has a BatchNorm that follows no linear layer")
    if norm.running_mean is None or norm.running_var is None:
        raise CannotBeExported("its decoder has a BatchNorm without running statistics")
    (card, (weight, bias)), mean = before[0], _cpu(norm.running_mean)
    scale = (_cpu(norm.running_var) + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * _cpu(norm.weight)
    shift = -mean * scale if norm.bias is None else _cpu(norm.bias) - mean * scale
    each = len(bias) // len(scale)  # values of a channel: a linear layer may give whole pictures
    scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    wide = scale[:, None] if card["kind"] == "linear" else scale[None, :, None, None]
    return Layer(card, [weight * wide, bias * scale + shift])


def run(layers: Sequence[Layer], z: Tensor) -> Tensor:
    """The layers' output for latents (N, d), in float32."""
    hidden = z
    for card, tensors in layers:
        match card["kind"]:
            case "linear":
                weight, bias = tensors
                hidden = F.linear(hidden, weight, bias)
                if channels := card.get("channels"):
                    side = math.isqrt(card["outputs"] // channels)
                    hidden = hidden.view(len(hidden), channels, side, side)
            case "relu":
                hidden = F.leaky_relu(hidden, card["slope"])
            case "group_norm":
                weight, bias = tensors
                hidden = F.group_norm(hidden, card["groups"], weight, bias, eps=card["eps"])
            case "transposed":
                stride, padding = card["stride"], card["padding"]
                least = (card["size"] - 1) * stride - 2 * padding + card["kernel"]
                extra = card["out_size"] - least
                weight, bias = tensors
                hidden = F.conv_transpose2d(hidden, weight, bias, stride, padding, extra)
    return hidden


def _in_order(layer: Layer) -> Sequence[Tensor]:
    """A layer's tensors as they are read: inputs before outputs, and channels last."""
    card, tensors = layer
    if card["kind"] == "linear":
        weight, bias = tensors
        if channels := card.get("channels"):
            order = torch.arange(len(bias)).view(channels, -1).T.flatten()
            weight, bias = weight[order], bias[order]
        return [weight.T, bias]
    if card["kind"] == "transposed":
        weight, bias = tensors  # (inputs, outputs, rows, columns)
        return [weight.permute(2, 3, 0, 1), bias]
    return tensors
