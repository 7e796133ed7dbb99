"""How a model computes where nothing is trained: in one way, whatever the training was set to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genbench.models.contract import GenerativeModel


@contextmanager
def undisturbed(model: GenerativeModel, device: torch.device, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, no TF32, the global generators seeded; all restored on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    matmul = torch.get_float32_matmul_precision()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            torch.set_float32_matmul_precision("highest")
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        for module, training in modes:
            module.training = training
