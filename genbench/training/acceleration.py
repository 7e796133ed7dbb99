"""Faster steps and what they exclude: CUDA graphs, compiled networks."""

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


def check_changes(model: GenerativeModel) -> None:
    """Refuse a CUDA graph for a model that changes its optimizers' settings with the budget."""
    changing = [name for name, player in model.players().items() if player.changes is not None]
    would = "would keep the optimizer's settings of the step that is captured"
    _refuse(
        "trainer.cuda_graph=true",
        "trainer.cuda_graph=false",
        [(bool(changing), f"{would}, and this model changes the {' and the '.join(changing)}'s")],
    )


def check_compile(model: GenerativeModel, ranks: int) -> None:
    """Refuse to compile what PyTorch cannot differentiate twice, and what has not been tried."""
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
    """Compile the networks of a model if wanted: see `compiled`."""
    return compiled(list(model.children()), backend) if wanted else nullcontext()


@contextmanager
def compiled(
    networks: Sequence[nn.Module], backend: str | Callable[..., object] = "inductor"
) -> Iterator[None]:
    """Compile in place, so that names of parameters, checkpoints and copies stay as they are.

    Afterwards the networks run eagerly again, so that scores do not depend on the compiler.
    """
    networks = [network for network in networks if any(True for _ in network.parameters())]
    for network in networks:
        network.compile(backend=backend)
    try:
        with warnings.catch_warnings():  # the compiler reads .grad of tensors that are no leaves
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            yield
    finally:
        for network in networks:
            network._compiled_call_impl = None
