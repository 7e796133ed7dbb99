import os

import numpy as np
import pytest
from PIL import Image

from fixtures.data import draw, make_folder, write_idx
from fixtures.places import slow_but
from genbench.commands.data import main
from genbench.errors import Notice
from genbench.runs.paths import config_root

DATASETS = sorted(path.stem for path in (config_root() / "dataset").glob("*.yaml"))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "data"))


def make_mnist(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte", 60)
    write_idx(raw / "t10k-images-idx3-ubyte", 10)
    return raw


@pytest.mark.slow
def test_the_list_names_every_dataset_with_its_shape_and_whether_it_is_there(capsys, tmp_path):
    make_mnist(tmp_path)
    assert main(["list", "dataset.validation=5"]) == 0
    lines = {
        line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[0] != " "
    }
    assert set(DATASETS) <= set(lines)
    assert "1 x 8 x 8" in lines["digits"]
    assert "present" in lines["mnist"] and "55 / 5 / 10" in lines["mnist"]
    assert "3 x 64 x 64" in lines["celeba"] and "missing" in lines["celeba"]
    assert "fetched" in lines["cifar10"]


EMBEDDED = {"digits", "shapes", "stacked-digits"}


@pytest.mark.parametrize(
    "dataset", slow_but(sorted({*DATASETS} - {*EMBEDDED, "image-folder"}), "mnist", "celeba")
)
def test_a_dataset_that_is_missing_says_what_and_what_to_do(dataset, capsys):
    assert main(["check", dataset]) == 2
    said = capsys.readouterr().err
    assert "not complete" in said or "is not in" in said
    assert "paths.data" in said or "img_align_celeba.zip" in said


def test_check_accepts_the_embedded_digits(capsys):
    assert main(["check", "digits"]) == 0
    assert "digits is in order: 1,257 train, 180 validation, 360 test" in capsys.readouterr().out


def test_check_names_every_bad_picture_of_a_folder(capsys, tmp_path):
    root = make_folder(tmp_path / "pictures", size=(80, 70))
    for number in range(30):
        draw((80, 70), mode="L").save(root / f"grey{number:02d}.png")
    (root / "aaa.png").write_text("no picture")
    draw((80, 30)).save(root / "aab.png")
    assert main(["check", "image-folder", f"dataset.root={root}"]) == 2
    said = capsys.readouterr().err
    assert "... and 12 more" in said
    assert main(["check", "image-folder", f"dataset.root={root}", "dataset.convert=true"]) == 2
    said = capsys.readouterr().err
    assert "aaa.png is not a picture" in said
    assert "aab.png is 80 x 30, which is smaller than dataset.image_size=64" in said
    assert len(said.splitlines()) == 2


def test_a_dangling_link_hides_no_problem_of_the_other_splits(capsys, tmp_path):
    root = tmp_path / "pictures"
    for split in ("train", "test"):
        make_folder(root / split, 10, size=(80, 70))
    (root / "train" / "gone.png").symlink_to("nowhere.png")
    (root / "test" / "text.png").write_text("no picture")
    assert main(["check", "image-folder", f"dataset.root={root}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "gone.png" in said[0] and "text.png" in said[1]


def test_check_counts_test_pictures_that_are_training_pictures_too(tmp_path):
    for split in ("train", "test"):
        make_folder(tmp_path / split, 10, size=(80, 70))
    draw((80, 70), seed=99).save(tmp_path / "test" / "cats" / "new.png")
    with pytest.warns(Notice, match="of the 11 test pictures of .* are training pictures too"):
        assert main(["check", "image-folder", f"dataset.root={tmp_path}"]) == 0


def test_check_says_what_is_wrong_with_the_folder_itself(capsys, tmp_path):
    assert main(["check", "image-folder"]) == 2
    assert "needs dataset.root" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["check", "image-folder", f"dataset.root={tmp_path / 'empty'}"]) == 2
    assert "has no pictures" in capsys.readouterr().err


def test_a_folder_too_small_for_its_splits_is_refused(capsys, tmp_path):
    make_folder(tmp_path / "few", 2, size=(64, 64))
    assert main(["check", "image-folder", f"dataset.root={tmp_path / 'few'}"]) == 2
    assert "2 pictures cannot give dataset.validation=0.1" in capsys.readouterr().err


def test_check_names_a_half_downloaded_file(capsys, tmp_path):
    raw = make_mnist(tmp_path)
    path = raw / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:999])
    assert main(["check", "mnist", "dataset.validation=5"]) == 2
    said = capsys.readouterr().err
    assert f"{path} is damaged or half downloaded (999 bytes, 7,856 expected): delete it" in said


def test_prepare_builds_the_cache_and_check_notices_when_it_is_damaged(capsys, tmp_path):
    assert main(["prepare", "digits"]) == 0
    assert "digits train: 1,257 images" in capsys.readouterr().out
    folder = next((tmp_path / "cache" / "data").glob("digits-8-train-*/"))
    assert np.load(folder / "pixels.npy").shape == (1257, 1, 8, 8)
    content = bytearray((folder / "pixels.npy").read_bytes())
    content[-1] ^= 1
    (folder / "pixels.npy").write_bytes(content)
    assert main(["check", "digits"]) == 2
    assert f"the cache is damaged ({folder}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check", "mnits"], "did you mean dataset=mnist"),
        (["check", "mnist", "dataset.imagesize=32"], "did you mean dataset.image_size"),
        (["check"], "needs a dataset"),
        (["check", "dataset=mnist"], "needs a dataset"),
        (["clean", "mnist"], "choose one of list, check, prepare"),
        (["check", "digits", "dataset.image_size=16"], "dataset.upscale=true"),
    ],
)
def test_a_mistake_on_the_command_line_gets_a_sentence(capsys, arguments, sentence):
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_prints_the_usage(capsys, arguments):
    assert main(arguments) == 0
    assert "genbench data prepare NAME" in capsys.readouterr().out


def test_training_fails_with_the_sentence_of_check(capsys, tmp_path):
    root = make_folder(tmp_path / "pictures", size=(64, 64))
    Image.new("L", (64, 64)).save(root / "a.png")
    main(["check", "image-folder", f"dataset.root={root}"])
    checked = capsys.readouterr().err
    main(["prepare", "image-folder", f"dataset.root={root}"])
    assert capsys.readouterr().err == checked


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(capsys, tmp_path):
    root = make_folder(tmp_path / "pictures", size=(64, 64))
    draw((64, 64)).save(root / "secret.png")
    (root / "secret.png").chmod(0)
    assert main(["check", "image-folder", f"dataset.root={root}"]) == 2
    assert "secret.png cannot be read: change its permissions" in capsys.readouterr().err
