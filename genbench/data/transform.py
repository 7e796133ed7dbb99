"""From any picture to square level indices: convert channels, crop, resize."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genbench.errors import UserMistake

Picture = Image.Image | NDArray[np.uint8]
KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Transform:
    """What is done to every picture of a dataset, once, before it is cached.

    `crop`: side of the centre crop in source pixels, None for the largest centred square.
    `resize`: one of KERNELS, as PIL computes them (antialiased when it shrinks).
    `convert`: convert between grey and colour, and compose transparent pictures over white; otherwise
    such a picture is an error. `upscale`: permit enlarging; otherwise a smaller picture is an error.
    """

    image_size: int
    channels: int
    levels: int
    crop: int | None
    resize: str
    convert: bool
    upscale: bool

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Raises UserMistake."""
        for name in ("image_size", "crop"):
            value = getattr(self, name)
            if name == "crop" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserMistake(
                    f"dataset.{name}={value!r} is not a number of pixels: give 1 or more"
                )
        if self.channels not in (1, 3):
            raise UserMistake(
                f"dataset.channels={self.channels}: images are grey (1) or colour (3)"
            )
        if self.resize not in KERNELS:
            raise UserMistake(f"dataset.resize={self.resize!r} is not one of {', '.join(KERNELS)}")

    def card(self) -> dict[str, Any]:
        """All settings, for the card of a split."""
        return asdict(self)

    def __call__(self, picture: Picture, name: str) -> NDArray[np.uint8]:
        """A picture as level indices (C, image_size, image_size) uint8.

        Raises UserMistake, with `name` in it, if the settings do not permit this picture.
        """
        if isinstance(picture, np.ndarray):
            if self._fits(picture):
                return picture.reshape(*picture.shape[:2], -1).transpose(2, 0, 1)
            picture = Image.fromarray(np.ascontiguousarray(picture))
        picture = self._resized(self._squared(self._in_channels(picture, name), name))
        pixels: NDArray[np.uint8] = np.asarray(picture).reshape(
            self.image_size, self.image_size, -1
        )
        pixels = np.minimum(pixels, np.uint8(self.levels - 1))  # resizing may overshoot
        return pixels.transpose(2, 0, 1)

    def _fits(self, picture: NDArray[np.uint8]) -> bool:
        depth = picture.shape[2] if picture.ndim == 3 else 1
        square = picture.shape[:2] == (self.image_size, self.image_size)
        return square and depth == self.channels and self.crop in (None, self.image_size)

    def _in_channels(self, picture: Image.Image, name: str) -> Image.Image:
        mode = "L" if self.channels == 1 else "RGB"
        if picture.mode == mode:
            return picture
        if picture.mode.startswith(("I", "F")):
            raise UserMistake(
                f"{name} has more than 8 bits a channel (mode {picture.mode}): "
                "save it with 8 bits, genbench does not guess the scale"
            )
        transparent = _is_transparent(picture)
        grey = picture.mode in ("1", "L", "LA", "La")
        if not self.convert:
            if transparent:
                raise UserMistake(
                    f"{name} is transparent: set dataset.convert=true to lay such pictures over "
                    "white, or remove it"
                )
            if grey != (self.channels == 1):
                kind, other = ("grey", "colour") if grey else ("colour", "grey")
                raise UserMistake(
                    f"{name} is {kind} among {other} images (dataset.channels={self.channels}): "
                    f"set dataset.convert=true to turn {kind} ones to {other}, or remove it"
                )
        if transparent:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert(mode)

    def _squared(self, picture: Image.Image, name: str) -> Image.Image:
        width, height = picture.size
        side = self.crop or min(width, height)
        if side > min(width, height):
            raise UserMistake(
                f"{name} is {width} x {height}, smaller than dataset.crop={side}: remove it, or "
                f"choose dataset.crop={min(width, height)} or less, or dataset.crop=null"
            )
        if side < self.image_size and not self.upscale:
            what = f"dataset.crop={side}" if self.crop else f"{name} is {width} x {height}, which"
            raise UserMistake(
                f"{what} is smaller than dataset.image_size={self.image_size}: choose "
                f"dataset.image_size={side} or less, or set dataset.upscale=true to enlarge"
            )
        left, top = (width - side) // 2, (height - side) // 2
        if (width, height) == (side, side):
            return picture
        return picture.crop((left, top, left + side, top + side))

    def _resized(self, picture: Image.Image) -> Image.Image:
        size = (self.image_size, self.image_size)
        return picture if picture.size == size else picture.resize(size, KERNELS[self.resize])


def _is_transparent(picture: Image.Image) -> bool:
    if picture.mode in ("RGBA", "LA", "PA"):
        return picture.getchannel("A").getextrema() != (255, 255)
    return "transparency" in picture.info or picture.mode in ("RGBa", "La")
