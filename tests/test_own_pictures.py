"""From files to a table without network: CelebA's own command on a stand-in, and a zip of pictures."""

import numpy as np
import pytest

from fixtures.comparison import run as compare
from fixtures.data import make_images
from fixtures.places import CONFIGS
from fixtures.stand_ins import make_celeba
from fixtures.training import scores
from fixtures.zips import encoded, pictures, write_zip
from genbench.data.folders import Folder
from genbench.runs.config import read_config
from genbench.runs.result import read_result

TINY = ("network.width=4", "budget.images=128", "arena.batch_size=16", "evaluation.num_samples=64")


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    """A feature network for photographs that needs no download."""
    if (CONFIGS / "extractor" / "random-conv-v1.yaml").is_file():
        return ("extractor=random-conv-v1",)
    from genbench.metrics.extractors.training import Training, write

    room = tmp_path_factory.mktemp("extractor")
    entries = {f"{n % 2}/{n}.png": encoded(n, (64, 64)) for n in range(30)}
    root = str(write_zip(room / "pictures.zip", entries))
    data = make_images(room, Folder, root=root, channels=3, image_size=64)
    path = write(None, data, room, Training(epochs=1))
    return ("extractor=lenet", f"extractor.path={path}")


@pytest.mark.slow
def test_the_line_for_celeba_gets_to_its_table(tmp_path, start, extractor, capsys):
    make_celeba(tmp_path / "data", parts=[*range(3)] * 8 + [0] * 24)
    line = ("model=gan", "dataset=celeba", f"paths.data={tmp_path / 'data'}")
    directory, code = start(*line, *TINY, *extractor)
    assert code == 0
    config = read_config(directory)
    assert (config["dataset"]["crop"], config["dataset"]["image_size"]) == (140, 64)
    found = scores(directory)
    assert any(name.startswith("fd_") and np.isfinite(value) for name, value in found.items())
    capsys.readouterr()  # what the training said
    title, head, row, *_ = compare(capsys, str(directory)).splitlines()
    assert (title, row.split()[0]) == ("celeba", "gan") and " FD " in head


@pytest.mark.slow
def test_a_zip_of_pictures_gets_to_its_table_under_its_name(tmp_path, start, extractor, capsys):
    entries = {name: encoded(n, (70, 64), "JPEG") for n, name in enumerate(pictures(60))}
    path = write_zip(tmp_path / "photos.zip", entries)
    line = ("model=gan", "dataset=image-folder", f"dataset.root={path}")
    directory, code = start(*line, *TINY, *extractor)
    assert code == 0
    assert read_result(directory).dataset == "photos"
    capsys.readouterr()
    assert compare(capsys, str(directory)).splitlines()[0] == "photos"
