"""Where a run took place: versions, code, machine, command line."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import genbench
from genbench.device import MALLOC
from genbench.runs.machine import processor
from genbench.training.numerics import numerics_card

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_")  # beginnings of the variables' names
LARGEST_DIFF = 100_000  # characters


def describe(device: torch.device) -> dict[str, Any]:
    """Collect what one needs to know to repeat a run, as plain types."""
    return {
        "command": os.environ.get("GENBENCH_COMMAND", " ".join(sys.argv)),
        "versions": {"genbench": genbench.__version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "code": _code(),
        "host": platform.node(),
        "platform": platform.platform(),
        "device": describe_device(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "rocm": torch.version.hip if device.type == "cuda" else None,  # instead of CUDA, on AMD's
        "gpu": numerics_card(device),
        "threads": {
            "torch": torch.get_num_threads(),
            "torch_interop": torch.get_num_interop_threads(),
        }
        | _variables(*THREADS),
        "malloc": MALLOC | _variables("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES"),
        # a wandb sweep's agent chooses the run's id
        "wandb": _variables("WANDB_RUN_ID", "WANDB_SWEEP_ID"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def describe_device(device: torch.device) -> str:
    """Name a device as its maker does."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'' if threads == 1 else 's'}"


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Parameters of each network of a model by its name."""
    counts = {k: sum(p.numel() for p in m.parameters()) for k, m in model.named_children()}
    return {name: count for name, count in counts.items() if count}


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once: on the GPU by PyTorch, otherwise by the whole process; the most of all ranks.

    On a GPU counted from the last `torch.cuda.reset_peak_memory_stats` on.
    """
    own = _peak_of_process(device)
    if not torch.distributed.is_initialized():
        return own
    most = torch.tensor(own, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most)


def _peak_of_process(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _variables(*beginnings: str) -> dict[str, str]:
    """Environment variables whose names begin with one of these."""
    return {k: v for k, v in sorted(os.environ.items()) if k.startswith(beginnings)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code() -> dict[str, Any]:
    """Commit and uncommitted changes of genbench's own checkout; empty where there is none."""
    root = Path(genbench.__file__).parent.parent
    if not (root / ".git").exists():
        return {}
    commit, diff = _git(root, "rev-parse", "HEAD"), _git(root, "diff", "HEAD")
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": diff[:LARGEST_DIFF]}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
