"""The device of a run: CPU or GPU, memory and threads."""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from inspect import signature

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.errors import GenbenchError, Notice, UserMistake
from genbench.models.contract import GenerativeModel

ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
SHARED_WORK = 150_000_000  # FLOPs of the decoder per batch above which several threads are faster
MALLOPT = {  # by name: (glibc's number of the parameter, value in bytes)
    "mmap_threshold": (-3, 1 << 30),
    "trim_threshold": (-1, 2**31 - 1),
    "top_pad": (-2, 64 << 20),
}


def keep_freed_memory() -> None:
    """Keep glibc's malloc from returning freed memory to the kernel after every step.

    Saves page faults: steps are 1.07 to 1.2 times as fast, with bit-identical results."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        for name, (parameter, value) in MALLOPT.items():
            if libc.mallopt(parameter, value):
                MALLOC[name] = value


def device_of(accelerator: str, option: str = "trainer.accelerator") -> torch.device:
    """The device of this process: of several GPUs the one of its rank on this machine.

    Raises UserMistake for an accelerator that is none of `ACCELERATORS`, and if a GPU is asked for and
    PyTorch sees none. `option` is what the user has set, for these sentences.
    """
    if accelerator not in ACCELERATORS:
        apple = " (genbench does not compute on Apple GPUs)" if accelerator == "mps" else ""
        raise UserMistake(
            f"{option}={accelerator} is not one of {', '.join(ACCELERATORS)}{apple}: choose cpu, or "
            "gpu for NVIDIA's and AMD's"
        )
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserMistake(
            f"{option}={accelerator}, but PyTorch sees no GPU here: choose cpu, or look at "
            "`genbench doctor`"
        )
    # before anything is put on a GPU, so that the ranks of a machine do not meet on its first one
    index = (
        local_rank() % torch.cuda.device_count()
    )  # a task that is bound to its GPU sees that alone
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def device_of_run(trained: str, asked: str | None) -> torch.device:
    """Where a run that exists is sampled or scored: `asked`, else the best that this machine has.

    `trained` is the accelerator of the run's config. A Notice says so where the device is of another
    kind. Raises UserMistake if a GPU is asked for and PyTorch sees none.
    """
    device = device_of(asked or "auto", "--device")
    other = "cuda" if device.type == "cpu" else "cpu"
    if asked is None and trained in {"cuda": ("gpu", "cuda"), "cpu": ("cpu",)}[other]:
        names = {"cpu": "the CPU", "cuda": "a GPU"}
        warnings.warn(
            f"the run was trained on {names[other]}, and this is computed on {names[device.type]}: "
            "numbers agree within rounding",
            Notice,
            stacklevel=2,
        )
    return device


def local_rank() -> int:
    """Number of this process among those of its machine, as torchrun, Lightning or srun count them."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def resolve_devices(devices: int, device: torch.device) -> int:
    """Number of devices to use, -1 resolved to all GPUs, or one CPU process.

    Raises UserMistake for a number that is none, and if this machine has fewer.
    """
    if not isinstance(devices, int) or isinstance(devices, bool) or (devices != -1 and devices < 1):
        raise UserMistake(f"trainer.devices={devices}: give 1 or more, or -1 for all GPUs")
    if device.type == "cpu":
        return max(1, devices)
    available = torch.cuda.device_count()
    if devices > available:
        raise UserMistake(
            f"trainer.devices={devices}, but this machine has {available}: "
            f"choose trainer.devices={available} or -1 for all"
        )
    return available if devices == -1 else devices


def gpu_of_rank(rank: int) -> int:
    """Index of the GPU that process `rank` uses; UserMistake if this machine has fewer GPUs."""
    if rank >= torch.cuda.device_count():
        raise UserMistake(
            f"evaluation.devices is above the {torch.cuda.device_count()} GPUs of this machine: choose "
            f"evaluation.devices={torch.cuda.device_count()}"
        )
    return rank


def check_extracting(devices: int, device: torch.device) -> None:
    """Refuse an evaluation with more GPUs than there are, before anything is trained."""
    if device.type == "cuda":
        for rank in range(devices):
            gpu_of_rank(rank)


def choose_threads(model: GenerativeModel, batch_size: int) -> None:
    """Use one thread where a step is too small for several, which double its time (docs/log.md).

    Decided by the decoder's FLOPs, not by timing, so that equal configs sum in the same order.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is None or torch.get_num_threads() == 1:
        return
    if _flops(model, decoder) * batch_size < SHARED_WORK:
        torch.set_num_threads(1)


def _flops(model: GenerativeModel, decoder: torch.nn.Module) -> float:
    """Of one call of the decoder for one image; its statistics and its mode stay."""
    calls, training = [], decoder.training
    hook = decoder.register_forward_hook(lambda *_: calls.append(1))
    needed = [
        p
        for p in signature(decoder.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    decoder.eval()  # one image has no variance
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            if len(needed) == 1:
                decoder(torch.zeros(1, model.latent_dim))
            else:  # it maps more than latents: (x, t) to a velocity, many times for an image
                model.sample(model.latents(1, torch.Generator().manual_seed(0)))
        return float(counter.get_total_flops()) / max(1, len(calls))
    finally:
        decoder.train(training)
        hook.remove()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    # PyTorch has no exception class for what it does not allocate itself
    words = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def gpu_failure(error: BaseException) -> str:
    """The first line of an error of a GPU or its driver, lost, busy or full; empty for any other."""
    text = str(error).strip().partition("\n")[0]
    of_driver = isinstance(error, RuntimeError) and text.startswith(
        ("CUDA error", "HIP error", "CUDA driver error")
    )
    return text if of_driver or isinstance(error, torch.OutOfMemoryError) else ""


@contextmanager
def memory_for(doing: str, remedy: str) -> Iterator[None]:
    """Context in which running out of memory, GPU or CPU, raises GenbenchError with `remedy`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise GenbenchError(f"out of memory while {doing}: {remedy}") from error


def training_memory(batch_size: int, parts: int) -> AbstractContextManager[None]:
    """`memory_for` training on batches of `batch_size` images in `parts` parts."""
    beside = int(os.environ.get("GENBENCH_JOBS_PER_GPU", "1"))  # as the pool says to its runs
    fewer = f", or hydra.launcher.jobs_per_gpu={beside - 1}" if beside > 1 else ""
    return memory_for(
        f"training on batches of {batch_size} images" + (f" in {parts} parts" if parts > 1 else ""),
        f"try trainer.accumulate={2 * parts}, which keeps the gradients of the whole batch, "
        f"arena.batch_size={max(1, batch_size // 2)}, or trainer.precision=bf16-mixed{fewer}",
    )


def scoring_memory(batch_size: int) -> AbstractContextManager[None]:
    """`memory_for` an evaluation on batches of `batch_size` images."""
    return memory_for(
        f"scoring on batches of {batch_size} images",
        f"try evaluation.batch_size={max(1, batch_size // 2)}, which changes no score beyond "
        "rounding; what has been trained is kept, and `genbench evaluate` scores it",
    )


MALLOC: dict[
    str, int
] = {}  # glibc parameters that this process has set, in bytes; recorded with the run
