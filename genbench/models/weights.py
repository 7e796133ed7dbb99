"""The identity of a model's weights."""

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """Sha256 over names, shapes, types and values of all parameters and buffers, 64 hex digits."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha256.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
