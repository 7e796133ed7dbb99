"""What may be done to a step for its speed, and what it excludes: CUDA graphs, compiled networks."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel

Refusal = tuple[bool, str]


def check_graph(
    device: torch.device, ranks: int, parts: int, precision: str, scheduled: bool
) -> None:
    """Refuse a CUDA graph where a replay would not be the step."""
    _refuse(
        "trainer.cuda_graph=true",
        "trainer.cuda_graph=false",
        [
            (device.type != "cuda", "captures the kernels of a GPU, and this run is on a CPU"),
            (ranks > 1, f"captures a step of one device, and this run has {ranks}"),
            (parts > 1, "captures a step as a whole, and trainer.accumulate takes it in parts"),
            (
                precision == "16-mixed",
                "cannot hold the loss scale of 16-mixed, which is decided on the host: "
                "trainer.precision=bf16-mixed has none",
            ),
            (
                scheduled,
                "would keep the learning rate of the step that is captured, and this run has a "
                "schedule: schedule=constant",
            ),
        ],
    )


def check_compile(model: GenerativeModel, ranks: int) -> None:
    """Refuse to compile what PyTorch cannot differentiate twice, or has not been tried."""
    _refuse(
        "trainer.compile=true",
        "trainer.compile=false",
        [
            (
                model.has_gradient_penalty,
                "cannot serve a penalty on the discriminator's gradient, which is differentiated "
                "twice: model.r1_gamma=0 and no model.gradient_penalty",
            ),
            (ranks > 1, f"is for one device, and this run has {ranks}"),
        ],
    )


def _refuse(option: str, remedy: str, reasons: Sequence[Refusal]) -> None:
    for holds, reason in reasons:
        if holds:
            raise UserMistake(f"{option} {reason}; or choose {remedy}")


def compiling(
    model: GenerativeModel, wanted: bool, backend: str | Callable[..., object] = "inductor"
) -> AbstractContextManager[None]:
    """Run the networks compiled for a while: see `compiled`."""
    return compiled(list(model.children()), backend) if wanted else nullcontext()


@contextmanager
def compiled(
    networks: Sequence[nn.Module], backend: str | Callable[..., object] = "inductor"
) -> Iterator[None]:
    """Compile in place: names of parameters, checkpoints and copies stay those of the networks.

    Afterwards they compute as they are written, so that what is scored does not depend on it.
    """
    networks = [network for network in networks if any(True for _ in network.parameters())]
    for network in networks:
        network.compile(backend=backend)
    try:
        with warnings.catch_warnings():  # the compiler looks at gradients that are not there
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            yield
    finally:
        for network in networks:
            network._compiled_call_impl = None
