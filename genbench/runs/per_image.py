"""What scores are means of: an array for each score with a value for every image. Imports no torch.

A run keeps them in `per-image.npz`, later evaluations beside their scores in `evaluations/`. A file holds `index`, JSON
as bytes, and for entry i of it `values-i` (float32) and the numbers of the images, `images-j` (uint32); arrays
alone, no pickles.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import UserMistake
from genbench.runs.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILENAME = "per-image.npz"
LARGEST = 1 << 28  # bytes that a file may unpack to: it may come from anybody
VALUE = "value"  # what an array has whose mean is the score


@dataclass(frozen=True)
class ImageValues:
    """Values (N,) of the images whose numbers in their split, or in the order of generation, are `images` (N,).

    `what` is `value` where their mean is the score of this name, checkpoint and protocol; else it says what
    is measured.
    """

    name: str
    checkpoint: str
    protocol: str
    what: str
    images: "NDArray[np.uint32]"
    values: "NDArray[np.float32]"

    @property
    def key(self) -> tuple[str, str, str]:
        """The score that it belongs to."""
        return self.name, self.checkpoint, self.protocol


def write_per_image(path: Path, kept: Sequence[ImageValues]) -> None:
    """Write arrays to one file; no file if there are none."""
    import numpy as np

    if not kept:
        return
    arrays: dict[str, Any] = {}
    numbers: dict[bytes, str] = {}  # sets of images that several scores share
    index = []
    for place, one in enumerate(kept):
        images = one.images.astype(np.uint32)
        name = numbers.setdefault(images.tobytes(), f"images-{len(numbers)}")
        arrays[name] = images
        arrays[f"values-{place}"] = one.values.astype(np.float32)
        index.append([one.name, one.checkpoint, one.protocol, one.what, name])
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_per_image(run: Path) -> list[ImageValues]:
    """What a run keeps, later evaluations last; empty for runs of earlier versions. UserMistake if damaged."""
    found = [run / FILENAME, *sorted((run / "evaluations").glob("*.npz"))]
    return [one for path in found if path.is_file() for one in _read(path)]


def _read(path: Path) -> list[ImageValues]:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST >> 20} MiB")
        with np.load(path, allow_pickle=False) as arrays:
            index = json.loads(bytes(arrays["index"]))
            found = []
            for place, (name, checkpoint, protocol, what, images) in enumerate(index):
                own = (str(name), str(checkpoint), str(protocol), str(what))
                found.append(_checked(own, arrays[str(images)], arrays[f"values-{place}"]))
            return found
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise UserMistake(
            f"{path} holds no values of images ({error}): delete it, and score the run again"
        ) from None


def _checked(words: tuple[str, str, str, str], images: Any, values: Any) -> ImageValues:
    if images.ndim != 1 or images.shape != values.shape or values.dtype.kind != "f":
        raise ValueError(f"{words[0]} has values {values.shape} for images {images.shape}")
    return ImageValues(*words, images, values)
