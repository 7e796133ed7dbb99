"""Several processes that train one model: who exchanges what, with PyTorch's collectives.

PyTorch's DistributedDataParallel exchanges all gradients in every backward. In a game of several players
half of them are not used: the moves of a step have one player each. So here every process computes its
gradients alone, and those of the player that moves are summed once, just before its move. Nothing waits
for the GPU, and batches in parts need no special case.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.plugins import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from genbench.models.batch_statistics import across_ranks, alone


class Ranks(DDPStrategy):
    """Lightning's processes with equal weights, without its exchange of gradients: see `exchange`."""

    def configure_ddp(self) -> None:
        """Begin with the weights of the first process everywhere."""
        assert self.model is not None
        with torch.no_grad():
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                torch.distributed.broadcast(tensor, 0)


class BatchNormAcrossRanks(LayerSync):
    """Lets BatchNorm see the images of all ranks during training, on any device."""

    def apply(self, model: Any) -> Any:
        """Change a model in place."""
        across_ranks(model)
        return model

    def revert(self, model: Any) -> Any:
        """Change it back."""
        alone(model)
        return model


def exchange(parameters: Sequence[nn.Parameter]) -> None:
    """Make gradients the mean over all ranks, in one collective for each of their types."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        flat.div_(torch.distributed.get_world_size())
        torch.distributed.all_reduce(flat)
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))


class Votes:
    """Answers that all ranks share: yes if one says yes; those of the call before, so that none waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._answers: Tensor | None = None  # to the last questions, on their way to the host
        self._there: Any = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def ask(self, *questions: bool) -> Sequence[bool]:
        """Put these questions, and return the answers to the last ones: no to all in the first call."""
        answers: Sequence[bool] = [False] * len(questions)
        if self._answers is not None:
            if self._there is not None:
                self._there.synchronize()  # with the batch before, not with what is queued since
            answers = [vote > 0 for vote in self._answers.tolist()]
        votes = torch.tensor(questions, dtype=torch.int32)
        if self._there is None:
            torch.distributed.all_reduce(votes)
            self._answers = votes
            return answers
        votes = votes.pin_memory().to(self.device, non_blocking=True)
        torch.distributed.all_reduce(votes)
        self._answers = torch.empty(votes.shape, dtype=votes.dtype, pin_memory=True)
        self._answers.copy_(votes, non_blocking=True)
        self._there.record()
        return answers
