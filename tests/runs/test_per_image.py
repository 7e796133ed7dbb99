"""Values of single images are kept beside their scores, and read as data."""

import io
import zipfile

import numpy as np
import pytest

from genbench.errors import UserMistake
from genbench.runs import per_image
from genbench.runs.per_image import FILENAME, ImageValues, read_per_image, write_per_image


def kept(name, values, images=None, checkpoint="final", what="value"):
    numbers = np.arange(len(values)) if images is None else np.array(images)
    return ImageValues(name, checkpoint, "p", what, numbers, np.array(values, np.float32))


def test_what_is_written_is_read_and_shared_images_are_kept_once(tmp_path):
    write_per_image(
        tmp_path / FILENAME,
        [kept("elbo", [1.5, 2.5, -3]), kept("psnr", [7, 8], [5, 2]), kept("ssim", [0, 1], [5, 2])],
    )
    (tmp_path / "evaluations").mkdir()
    write_per_image(tmp_path / "evaluations" / "x.npz", [kept("elbo", [9])])
    read = read_per_image(tmp_path)
    assert [(one.key, one.values.tolist(), one.images.tolist()) for one in read] == [
        (("elbo", "final", "p"), [1.5, 2.5, -3], [0, 1, 2]),
        (("psnr", "final", "p"), [7, 8], [5, 2]),
        (("ssim", "final", "p"), [0, 1], [5, 2]),
        (("elbo", "final", "p"), [9], [0]),
    ]
    with np.load(tmp_path / FILENAME) as arrays:
        assert len([name for name in arrays if name.startswith("images-")]) == 2


def test_no_values_make_no_file(tmp_path):
    write_per_image(tmp_path / FILENAME, [])
    assert not list(tmp_path.iterdir()) and read_per_image(tmp_path) == []


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, index=np.array([{"a": 1}], dtype=object))
    return file.getvalue()


def of_unequal_lengths() -> bytes:
    file = io.BytesIO()
    index = np.frombuffer(b'[["a", "final", "p", "value", "images-0"]]', np.uint8)
    np.savez(file, **{"index": index, "images-0": np.arange(3), "values-0": np.ones(2)})
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", pickled(), of_unequal_lengths()], ids=["empty", "text", "pickle", "lengths"]
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_a_sentence(tmp_path, content):
    (tmp_path / FILENAME).write_bytes(content)
    with pytest.raises(UserMistake, match=r"per-image\.npz holds no values of images"):
        read_per_image(tmp_path)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / FILENAME, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.npy", b"0" * 5000)
    monkeypatch.setattr(per_image, "LARGEST", 4096)
    with pytest.raises(UserMistake, match="it unpacks to more than"):
        read_per_image(tmp_path)
