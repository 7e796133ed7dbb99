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
from torch import nn

from genbench.models.contract import GenerativeModel

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm

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

    Or by those of what it decodes in calling all of `decoded`, a batch of two or more latents each. The trained statistics are back afterwards, in the same tensors. Nothing is drawn from global
    generators, and no other process takes part, so that one DDP rank may do it alone.
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


def _uncompiled() -> AbstractContextManager[object]:
    """Eager, where the decoder may be compiled: it would be compiled anew for every batch."""
    if "torch._dynamo" not in sys.modules:  # which takes seconds to import
        return nullcontext()
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


def _of_prior(model: GenerativeModel) -> Iterator[Callable[[], object]]:
    z = model.latents(BATCHES * BATCH_SIZE, torch.Generator().manual_seed(SEED))
    for part in torch.split(z, BATCH_SIZE):
        yield partial(model.sample, part.to(model.device))


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
    alone = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    for norm in alone:  # it would wait for the other ranks
        vars(norm)["forward"] = partial(nn.BatchNorm2d.forward, norm)
    try:
        with _uncompiled():
            for decode in decoded:
                decode()
    finally:
        for norm in alone:
            del vars(norm)["forward"]
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
