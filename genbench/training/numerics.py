"""How a GPU computes: float32 rounded to TF32 or not, and kernels that give equal bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from genbench.errors import UserMistake

TF32 = {  # by trainer.tf32: (in matrix products, in convolutions)
    "auto": (False, True),  # as PyTorch does
    "true": (True, True),
    "false": (False, False),
}
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it once, when it is first used


def check_tf32(tf32: bool | str) -> str:
    """The name of a value of trainer.tf32: auto, true or false. Raises UserMistake for others."""
    named = str(tf32).lower()
    if named not in TF32:
        raise UserMistake(f"trainer.tf32={tf32} is not one of {', '.join(TF32)}")
    return named


def prepare_determinism(wanted: bool) -> None:
    """Have cuBLAS sum in one order: to be called before a GPU is used first."""
    if wanted:
        os.environ.setdefault(WORKSPACE, ":4096:8")


@contextmanager
def computing(tf32: str, deterministic: bool) -> Iterator[None]:
    """Compute float32 as `trainer.tf32` says, on a GPU of a kind that has TF32; then as before.

    TF32 keeps 10 bits of a factor's mantissa, of float32's 23, and adds in float32:
    https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html. `deterministic`: only kernels of
    cuDNN that give the same bits every time, which may be slower.
    """
    matmul, convolutions = TF32[tf32]
    before = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    try:
        with cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark and not deterministic,
            deterministic=deterministic or cudnn.deterministic,
            allow_tf32=convolutions,
        ):
            torch.set_float32_matmul_precision("high" if matmul else "highest")
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def numerics_card(device: torch.device) -> dict[str, object]:
    """Libraries of a GPU's computations and how they round, for the record; empty on a CPU."""
    if device.type != "cuda":
        return {}
    library = None
    if torch.distributed.is_nccl_available():
        library = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    driver = Path("/sys/module/nvidia/version")
    return {
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "nccl": library and ".".join(map(str, library)),
        "driver": driver.read_text().strip() if driver.exists() else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "cublas_workspace": os.environ.get(WORKSPACE),
    }
