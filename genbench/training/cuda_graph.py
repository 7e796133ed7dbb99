"""A training step captured in a CUDA graph: its kernels, launched all at once by one call.

Short steps leave a GPU waiting for Python. A replay has the kernels of the eager step in their order,
on the same memory, so the numbers are the same. https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from genbench.errors import UserMistake

WARM_UP = (
    11  # steps taken eagerly first: libraries choose their kernels, optimizers make their state
)
Work = Callable[[], None]
Record = Callable[[Work, torch.Generator], Work]  # (what to capture, its draws) -> the replay


class Capture:
    """Runs steps on images of one shape: the first ones eagerly, on a side stream, then as replays.

    What a step tracks lies in memory that the next replay overwrites, so it is copied after each.
    """

    def __init__(self, record: Record | None = None) -> None:
        self._record = record or self._recorded
        self._taken = 0
        self._aside: torch.cuda.Stream | None = None  # one: memory is kept for each stream
        self._batch: tuple[Tensor, ...] = ()  # images, and labels where there are some
        self._replay: Work | None = None
        self._tracked: dict[str, list[Tensor]] | None = None  # while the step is recorded
        self._names: list[str] = []
        self._values = torch.empty(0)

    def step(
        self,
        batch: Sequence[Tensor],
        step: Callable[..., None],
        generator: torch.Generator,
        track: Callable[[str, Tensor], None],
    ) -> bool:
        """Run `step(*batch)`; `generator` is seeded for it. True if it was a replay."""
        self._taken += 1
        if self._taken <= WARM_UP:
            with self._beside():
                step(*batch)
            return False
        if self._replay is None:
            self._batch = tuple(one.clone(memory_format=torch.preserve_format) for one in batch)
            self._replay = self._record(lambda: self._collect(step), generator)
        for kept, one in zip(self._batch, batch, strict=True):
            kept.copy_(one)
        self._replay()
        for name, value in zip(self._names, self._values.clone(), strict=True):
            track(name, value)
        return True

    def _recorded(self, work: Work, generator: torch.Generator) -> Work:
        return recorded(work, generator, self._aside)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Work on a side stream, as steps before a capture must; nothing to do without a GPU."""
        if not torch.cuda.is_available():
            yield
            return
        here, aside = torch.cuda.current_stream(), self._aside or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._aside = aside
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            yield
        here.wait_stream(aside)

    @property
    def is_recording(self) -> bool:
        """Whether the current step is being recorded."""
        return self._tracked is not None

    def keeps(self, name: str, value: Tensor) -> bool:
        """While a step is recorded: keep a value that it tracks, and return True."""
        if self._tracked is None:
            return False
        self._tracked.setdefault(name, []).append(value.detach().float())
        return True

    def _collect(self, step: Callable[..., None]) -> None:
        """The work that is recorded: the step, and the values that it tracks, stacked."""
        self._tracked = {}
        try:
            step(*self._batch)
            pairs = [(k, v) for k, values in self._tracked.items() for v in values]
        finally:
            self._tracked = None
        self._names = [name for name, _ in pairs]
        self._values = torch.stack([value for _, value in pairs])


def make_capturable(optimizers: Mapping[str, Optimizer], captured: bool) -> None:
    """Let optimizers count their steps on the device if they are captured, else as configured.

    Only fused ones: their kernel is the same with and without. UserMistake for all others.
    """
    for player, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            if captured and ("capturable" not in group or not group.get("fused")):
                raise UserMistake(
                    f"trainer.cuda_graph=true needs optimizers that keep their state on the GPU, and "
                    f"the {player}'s {type(optimizer).__name__} does not: choose torch.optim.Adam "
                    "with fused=true, or trainer.cuda_graph=false"
                )
            if "capturable" in group:  # a checkpoint may bring another trainer's
                group["capturable"] = captured or optimizer.defaults["capturable"]


def recorded(
    work: Work, generator: torch.Generator, stream: "torch.cuda.Stream | None" = None
) -> Work:
    """Capture the kernels of `work` without running them; `generator` is seeded before each replay.

    On the `stream` of the steps before, if there were any: autograd's nodes that add to a gradient belong to
    the stream that they were made on, and PyTorch warns where another one comes to them.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    torch.cuda.synchronize()
    try:
        # thread_local: another thread, as one that pins memory for a loader, may call CUDA meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserMistake(
            f"this step cannot be captured in a CUDA graph ({error}): choose trainer.cuda_graph=false"
        ) from error
    return graph.replay
