"""Several processes that train one model: who exchanges what, with PyTorch's collectives.

PyTorch's DistributedDataParallel exchanges all gradients in every backward. In a game of several players
half of them are not used: the moves of a step have one player each. So here every process computes its
gradients alone, and those of the player that moves are summed once, just before its move; of a large player
part by part, while its backward still runs. Nothing waits for the GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


BUCKET = 6_500_000  # gradients that are exchanged at once while backward runs: 26 MB of float32


def exchange(parameters: Sequence[nn.Parameter]) -> None:
    """Make gradients the mean over all ranks, in one collective for each of their types."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat, _ = _sent(gradients)
        _receive(flat, gradients)


def _sent(gradients: Sequence[Tensor], later: bool = False) -> tuple[Tensor, Any]:
    """Begin the mean of gradients over all ranks: what it will be in, and with `later` what to wait for."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat.div_(torch.distributed.get_world_size())
    return flat, torch.distributed.all_reduce(flat, async_op=later)


def _receive(flat: Tensor, gradients: Sequence[Tensor]) -> None:
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))


class Bucket:
    """Some of a player's parameters, whose gradients are sent as soon as backward has them all."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._missing: set[int] = set()
        self._on_the_way: tuple[Tensor, Any] | None = None

    def begin(self) -> None:
        """Wait for the gradients of a backward that comes now."""
        self._missing = {id(parameter) for parameter in self.parameters}

    def note(self, parameter: nn.Parameter) -> None:
        """A gradient is there."""
        self._missing.discard(id(parameter))
        if not self._missing:
            self._on_the_way = _sent(self._gradients(), later=True)

    def end(self) -> None:
        """Put the means in place; those of a bucket that backward has not filled are exchanged now."""
        if self._on_the_way is None:
            exchange(self.parameters)
            return
        flat, work = self._on_the_way
        work.wait()  # on a GPU its stream waits, not the host
        _receive(flat, self._gradients())
        self._on_the_way = None

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]


class Exchange:
    """The exchange of one player's gradients: just before its move, or in buckets during its last backward.

    Buckets, of at most `size` gradients or of one parameter, are for players of more than one. Their order
    is that of backward, and alike on all ranks, since all take the same step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], size: int = BUCKET) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._listening = False
        self.buckets = [Bucket(own) for own in _portions(self.parameters, size)]
        if len(self.buckets) < 2:
            self.buckets = []
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))  # type: ignore[no-untyped-call]

    def _hook(self, bucket: Bucket) -> Any:
        def note(parameter: Tensor) -> None:
            if self._listening:
                bucket.note(parameter)  # type: ignore[arg-type]

        return note

    @contextmanager
    def during(self) -> Iterator[None]:
        """Around the last backward before a move."""
        for bucket in self.buckets:
            bucket.begin()
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    def end(self) -> None:
        """Before the move: all gradients are means over all ranks."""
        if not self.buckets:
            exchange(self.parameters)
        for bucket in self.buckets:
            bucket.end()


def _portions(parameters: Sequence[nn.Parameter], size: int) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type, last ones first, `size` numbers at a time."""
    portion: list[nn.Parameter] = []
    for parameter in reversed(parameters):
        full = sum(p.numel() for p in portion) + parameter.numel() > size
        if portion and (full or portion[0].dtype != parameter.dtype):
            yield portion
            portion = []
        portion.append(parameter)
    if portion:
        yield portion


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
