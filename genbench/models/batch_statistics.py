"""BatchNorm's statistics outside of training: one rule for every model and for all of its weights.

In training a batch is normalised by its own statistics. Their running average is one of posterior
draws in a VAE, of prior draws in a GAN, of both in a VAE-GAN, and of other weights where weights are
averaged. So before a model is sampled or scored, its decoder's running statistics are those of samples
from its prior: the same number of them, with the same seed, for all. Where it gives images back, they are those
of reconstructions of training images: what it decodes then is no draw from the prior.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genbench.models.contract import GenerativeModel

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.clone()
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # is differentiable again
        whole: Tensor = _SumOverRanks.apply(gradients[0].contiguous())
        return whole


class _AcrossRanks(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the images of all ranks, which have equally many, from plain operations.

    Unlike torch.nn.SyncBatchNorm it runs on any device, and no rank waits for its GPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) by the mean and variance over all ranks; in eval mode as ever."""
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [0, *range(2, input.dim())]
        var, mean = torch.var_mean(x, dims, correction=0)
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own = torch.stack([mean, var])
        nothing = torch.zeros_like(own)
        # a gathering that can be differentiated on every backend
        own_row = torch.stack([own if r == rank else nothing for r in range(world)])
        rows: Tensor = _SumOverRanks.apply(own_row)
        mean = rows[:, 0].mean(0)
        var = (rows[:, 1] + (rows[:, 0] - mean).square()).mean(0)
        self._follow(mean, var, x.numel() // x.shape[1] * world)
        scale = (var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = [1, -1] + [1] * (input.dim() - 2)
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # a number as it is: a tensor of it would be sent to the GPU, and be waited for
        rate: Any = self.momentum
        step = 1 / self.num_batches_tracked.float() if rate is None else rate
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(var * (count / max(1, count - 1)), step)


class _AcrossRanks1d(_AcrossRanks, nn.BatchNorm1d):
    pass


class _AcrossRanks2d(_AcrossRanks, nn.BatchNorm2d):
    pass


class _AcrossRanks3d(_AcrossRanks, nn.BatchNorm3d):
    pass


ACROSS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _AcrossRanks1d,
    nn.BatchNorm2d: _AcrossRanks2d,
    nn.BatchNorm3d: _AcrossRanks3d,
}


def across_ranks(model: nn.Module) -> None:
    """Let BatchNorm in a model see the images of all ranks; names and tensors stay."""
    for module in model.modules():
        module.__class__ = ACROSS.get(type(module), type(module))


def alone(model: nn.Module) -> None:
    """Undo `across_ranks`."""
    back = {changed: kind for kind, changed in ACROSS.items()}
    for module in model.modules():
        module.__class__ = back.get(type(module), type(module))


BATCHES, BATCH_SIZE = 8, 256  # of samples from the prior: as many as a quick evaluation scores
SEED = 1_414  # of their latents


def batch_norm_card(model: GenerativeModel) -> dict[str, Any]:
    """The rule, for the card of a score: `{"batch_norm": {...}}`; empty without BatchNorm."""
    if not _norms(model):
        return {}
    rule = {"rule": "recalibrated", "batches": BATCHES, "batch_size": BATCH_SIZE, "seed": SEED}
    return {"batch_norm": rule}


def has_batch_norm(model: GenerativeModel) -> bool:
    """Whether the decoder has running statistics."""
    return bool(_norms(model))


@contextmanager
def recalibrated(
    model: GenerativeModel, decoded: Iterable[Callable[[], object]] | None = None
) -> Iterator[None]:
    """Within: the decoder normalises by the statistics of samples from its prior, in eval mode.

    Or by those of what it decodes in calling all of `decoded`, a batch of two or more latents each. The
    trained statistics are back afterwards, in the same tensors. Nothing is drawn from global generators, and no other process takes part, so that one DDP rank may do it alone.
    """
    norms = _norms(model)
    before = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    try:
        _recalibrate(model, norms, _of_prior(model) if decoded is None else decoded)
        yield
    finally:
        with torch.no_grad():
            for norm, trained in zip(norms, before, strict=True):
                for name, buffer in norm.named_buffers():
                    buffer.copy_(trained[name])


def _norms(model: GenerativeModel) -> list[BatchNorm]:
    decoder = getattr(model, "decoder", None)  # untrained models have none
    if decoder is None:
        return []
    found = [module for module in decoder.modules() if isinstance(module, BATCH_NORMS)]
    return [norm for norm in found if norm.track_running_stats]


def uncompiled() -> AbstractContextManager[object]:
    """Eager, where the decoder may be compiled: it would be compiled anew for every batch."""
    if "torch._dynamo" not in sys.modules:  # which takes seconds to import
        return nullcontext()
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


def _of_prior(model: GenerativeModel) -> Iterator[Callable[[], object]]:
    z = model.latents(BATCHES * BATCH_SIZE, torch.Generator().manual_seed(SEED))
    labels = [] if model.condition is None else [model.condition.draw(len(z), SEED)]
    for parts in zip(*(torch.split(one, BATCH_SIZE) for one in (z, *labels)), strict=True):
        yield partial(model.sample, *(part.to(model.device) for part in parts))


@torch.no_grad()
def _recalibrate(
    model: GenerativeModel, norms: list[BatchNorm], decoded: Iterable[Callable[[], object]]
) -> None:
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    together = [norm for norm in norms if isinstance(norm, _AcrossRanks | nn.SyncBatchNorm)]
    for norm in together:  # it would wait for the other ranks
        vars(norm)["forward"] = partial(nn.BatchNorm2d.forward, norm)
    try:
        with uncompiled():
            for decode in decoded:
                decode()
    finally:
        for norm in together:
            del vars(norm)["forward"]
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
