"""Which precision a run takes: the one asked for, or for `auto` the first that a GPU proves to have.

No clock decides: precision is part of what a number means, and of two equal machines the busy one must
not come to another method. For the same reason `auto` on a CPU is float32, though some CPUs are faster
in bfloat16 (`genbench doctor` tells).
"""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn import functional as F

from genbench.device import local_rank
from genbench.errors import UserMistake
from genbench.runs.files import first_line

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # in the order of preference
INABILITIES = ("no kernel image", "not implemented", "not supported", "NOT_SUPPORTED")
FOUND = "GENBENCH_PRECISION_FOUND"  # by the first rank, for those that it starts
TOLERANCE = 0.05  # of a gradient's norm; bfloat16 rounds by 0.004, and rounding averages out


class Probe(NamedTuple):
    """What became of one precision: accepted or not, and why."""

    precision: str
    accepted: bool
    why: str


class Precision(NamedTuple):
    """What a run takes, what its config asked for, and what was tried for `auto`."""

    taken: str
    asked: str
    probes: tuple[Probe, ...] = ()

    def card(self) -> dict[str, Any]:
        """Say it as plain types, for the record."""
        return {
            "asked": self.asked,
            "taken": self.taken,
            "probes": [probe._asdict() for probe in self.probes],
        }


class HalfPrecision(MixedPrecision):
    """Lightning's autocast to float16 without its loss scale: each player has its own (see `seat`)."""

    def __init__(self, device: str) -> None:
        super().__init__("16-mixed", device)
        self.scaler = None


def resolve(asked: str | int, device: torch.device) -> Precision:
    """Turn `trainer.precision` into what is taken. Raises UserMistake for what there is not."""
    named = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(str(asked), str(asked))
    if named == "auto":
        return Precision("32-true", named) if device.type == "cpu" else _first_of(device)
    if named not in PRECISIONS:
        raise UserMistake(f"trainer.precision={asked} is not one of auto, {', '.join(PRECISIONS)}")
    if named == "16-mixed" and device.type == "cpu":
        raise UserMistake("trainer.precision=16-mixed needs a GPU: choose bf16-mixed or 32-true")
    return Precision(named, named)


def resolve_for_ranks(asked: str | int, device: torch.device) -> Precision:
    """The same for one of several processes: those that the first one starts take what it has found.

    So no two GPUs of a run are probed, and none can come to another result than the first.
    """
    found = os.environ.get(FOUND, "")
    if found and local_rank() > 0:
        kind, taken, first, probes = json.loads(found)
        if (kind, first) == (device.type, str(asked)):
            return Precision(taken, first, tuple(Probe(*probe) for probe in probes))
    resolved = resolve(asked, device)
    if local_rank() == 0:
        os.environ[FOUND] = json.dumps([device.type, *resolved])
    return resolved


def _first_of(device: torch.device) -> Precision:
    probes = []
    for precision in HALVES:
        probes.append(probe(precision, device))
        if probes[-1].accepted:
            return Precision(precision, "auto", tuple(probes))
    return Precision("32-true", "auto", tuple(probes))


def probe(precision: str, device: torch.device) -> Probe:
    """Take gradients of a convolution and a linear layer in half precision, beside float32's."""
    dtype = HALVES[precision]
    if device.type == "cuda" and dtype is torch.bfloat16 and not _is_native():
        return Probe(precision, False, "this GPU only emulates bfloat16")
    try:
        error = _distance(gradients(device, dtype), gradients(device, None))
    except (RuntimeError, NotImplementedError) as failure:
        if not _is_inability(failure):  # busy, or full: no reason to train by another method
            raise
        return Probe(precision, False, first_line(failure))
    accepted = error <= TOLERANCE  # not for NaN
    why = f"its gradients are {error:.2g} of their norm from float32's; {TOLERANCE} is allowed"
    return Probe(precision, accepted, why)


def _is_inability(error: Exception) -> bool:
    """Whether a device cannot compute something; not if it has no room or no time for it now."""
    return not isinstance(error, torch.OutOfMemoryError) and any(
        words in str(error) for words in INABILITIES
    )


def _is_native() -> bool:
    native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return native


def gradients(device: torch.device, dtype: torch.dtype | None) -> list[Tensor]:
    """Gradients of two layers' weights and of their images, under autocast to `dtype` if given."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    images, kernel, matrix = draw(8, 3, 16, 16), draw(16, 3, 4, 4), draw(32, 16 * 8 * 8)
    inputs = [images, kernel / 48**0.5, matrix / 1024**0.5]
    for tensor in inputs:
        tensor.requires_grad_()
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        hidden = F.conv2d(inputs[0], inputs[1], stride=2, padding=1)
        hidden = hidden.tanh().flatten(1)  # smooth: a rectifier would turn rounding into flips
        loss = (F.linear(hidden, inputs[2]).float() * draw(8, 32)).sum()
    return [*torch.autograd.grad(loss, inputs)]


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest norm of a difference as a share of the expected norm; NaN if there is one."""
    pairs = zip(found, expected, strict=True)
    return float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())
