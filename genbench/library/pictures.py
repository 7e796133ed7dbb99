"""Images as arrays that a notebook shows, and back into what a model takes."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.training.pictures import grid


class Pictures(np.ndarray):
    """uint8 images (N, H, W, C), 0 black and 255 white, C = 1 for grey ones; an array like any other."""

    def grid(self, columns: int = 8) -> Image.Image:
        """The images in rows of `columns`, small ones enlarged, as `genbench sample` writes them.

        UserMistake if this is a part of images.
        """
        if self.ndim != 4 or self.dtype != np.uint8 or not len(self):
            raise UserMistake(
                f"an array of shape {self.shape} is no images (N, H, W, C) to lay out"
            )
        return grid(_channels_first(self), 256, columns)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the grid; None for what is no images."""
        if self.ndim != 4 or self.dtype != np.uint8 or not len(self):
            return None
        content = BytesIO()
        self.grid().save(content, format="PNG")
        return content.getvalue()


def to_pictures(images: Tensor, data: ImageData) -> Pictures:
    """Of images (N, C, H, W) in [-1, 1]: rounded to the dataset's levels, spread over 0 to 255."""
    levels = data.to_pixels(images).cpu().float()
    pixels = (levels * (255 / (data.levels - 1))).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().numpy().view(Pictures)


def to_images(pictures: Any, data: ImageData) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] of uint8 pictures (N, H, W, C), or (N, H, W) if they are grey.

    The inverse of `to_pictures`. UserMistake for what does not fit the dataset.
    """
    pixels: NDArray[np.uint8] = np.asarray(pictures)
    if pixels.ndim == 3 and data.channels == 1:
        pixels = pixels[..., None]
    shape = (data.image_size, data.image_size, data.channels)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
        raise UserMistake(
            f"images of {data.name} are uint8 arrays (N, {', '.join(map(str, shape))}), 0 to 255, "
            f"and this is {pixels.dtype} {pixels.shape}"
        )
    levels = (_channels_first(pixels).float() * ((data.levels - 1) / 255)).round().byte()
    return data.to_images(levels)


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return from_numpy(np.ascontiguousarray(np.asarray(pixels))).permute(0, 3, 1, 2)
