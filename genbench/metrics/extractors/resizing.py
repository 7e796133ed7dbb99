"""Resizing as the papers' programs do it: TensorFlow 1's bilinear and Pillow's bicubic."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 299  # pixels a side that the Inception reads


def tf1_bilinear(images: Tensor) -> Tensor:
    """Resize (N, C, H, W) to 299 x 299 as TensorFlow 1: no aligned corners, no half-pixel centres."""
    for dim in (3, 2):
        size = images.shape[dim]
        position = torch.arange(SIZE, device=images.device) * torch.tensor(
            size / SIZE, device=images.device
        )
        below = position.long()
        above = (below + 1).clamp_max(size - 1)
        fraction = (position - below).view((-1, 1) if dim == 2 else (-1,))
        left, right = images.index_select(dim, below), images.index_select(dim, above)
        images = left + (right - left) * fraction
    return images


def pil_bicubic(images: Tensor) -> Tensor:
    """Resize (N, C, H, W) to 299 x 299 in floats as Pillow, for clean-fid: Parmar et al. 2022."""
    return bicubic(images, SIZE)


def bicubic(images: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) in 0 .. 255 to `size` pixels a side as Pillow does in floats; clamped."""
    rows, columns = (_weights(own, size, images.device) for own in images.shape[2:])
    return (rows @ images @ columns.T).clamp(0, 255)


@lru_cache(maxsize=8)  # making them, and sending them to a GPU, would wait in every batch
def _weights(own: int, size: int, device: torch.device) -> Tensor:
    """Pillow's weights as a matrix (size, own), by resizing each unit vector."""
    identity = Image.fromarray(np.eye(own, dtype=np.float32))
    resized = identity.resize((size, own), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).T.copy()).to(device)


RESIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "tf1-bilinear": tf1_bilinear,
    "pil-bicubic": pil_bicubic,
}
