"""A run's processor: CPU or GPU, its memory and its threads."""

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.errors import GenbenchError, UserMistake
from genbench.models.contract import GenerativeModel

SHARED_WORK = 150_000_000  # operations of a decoder's batch from which a second thread pays
MALLOPT = {  # glibc's numbers for its parameters, and their values in bytes
    "mmap_threshold": (-3, 1 << 30),
    "trim_threshold": (-1, 2**31 - 1),
    "top_pad": (-2, 64 << 20),
}


def spare_page_faults() -> None:
    """Keep glibc from handing memory back after every step (1.07x to 1.2x, bit-identical)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        for name, (parameter, value) in MALLOPT.items():
            if libc.mallopt(parameter, value):
                MALLOC[name] = value


def device_of(accelerator: str) -> torch.device:
    """The device of a single process; UserMistake for a GPU that PyTorch does not see."""
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserMistake(
            "trainer.accelerator=gpu, but PyTorch sees no GPU here: choose trainer=cpu, or look at "
            "`genbench doctor`"
        )
    use_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu")


def resolve_devices(devices: int, device: torch.device) -> int:
    """Turn -1 into all devices, and refuse more than there are."""
    if device.type == "cpu":
        return max(1, devices)
    there = torch.cuda.device_count()
    if devices > there:
        raise UserMistake(
            f"trainer.devices={devices}, but this machine has {there}: "
            f"choose trainer.devices={there} or -1 for all"
        )
    return there if devices == -1 else devices


def another_gpu(rank: int) -> int:
    """Number of the GPU for the process `rank`; UserMistake if there are fewer."""
    if rank >= torch.cuda.device_count():
        raise UserMistake(
            f"evaluation.devices is above the {torch.cuda.device_count()} that this machine has"
        )
    return rank


def choose_threads(model: GenerativeModel, batch_size: int) -> None:
    """Take one thread where a step is too small to share: sharing doubles its time (docs/log.md).

    The work of the decoder decides, not a clock, so that equal configs compute in equal order.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is None or torch.get_num_threads() == 1:
        return
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, model.latent_dim))
    if counter.get_total_flops() * batch_size < SHARED_WORK:
        torch.set_num_threads(1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    # PyTorch has no class for the latter
    of_torch = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return of_torch or isinstance(error, MemoryError)


@contextmanager
def memory_for(doing: str, remedy: str) -> Iterator[None]:
    """Turn running out of memory, of a GPU or of the machine, into a sentence with the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise GenbenchError(f"out of memory while {doing}: {remedy}") from error


def training_memory(batch_size: int, parts: int) -> AbstractContextManager[None]:
    """`memory_for` training on batches of `batch_size` images in `parts` parts."""
    return memory_for(
        f"training on batches of {batch_size} images" + (f" in {parts} parts" if parts > 1 else ""),
        f"try trainer.accumulate={2 * parts}, which keeps the gradients of the whole batch, "
        f"arena.batch_size={max(1, batch_size // 2)}, or trainer.precision=bf16-mixed",
    )


def scoring_memory(batch_size: int) -> AbstractContextManager[None]:
    """`memory_for` an evaluation on batches of `batch_size` images."""
    return memory_for(
        f"scoring on batches of {batch_size} images",
        f"try evaluation.batch_size={max(1, batch_size // 2)}, which changes no score beyond "
        "rounding; what has been trained is kept, and `genbench evaluate` scores it",
    )


MALLOC: dict[str, int] = {}  # of glibc's parameters, those that this process has set
