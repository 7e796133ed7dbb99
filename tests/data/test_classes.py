"""Classes of a user's own pictures: by folder, or by NVlabs' dataset.json."""

import json

import numpy as np
import pytest

from fixtures.data import make_folder, make_images
from fixtures.zips import listed, pictures, write_zip
from genbench.commands.data import main
from genbench.data.folders import Folder
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake


def own(tmp_path, root):
    return make_images(tmp_path, Folder, root=str(root), channels=3)


def test_the_classes_of_a_folder_are_its_subfolders_in_every_split(tmp_path):
    data = own(tmp_path, make_folder(tmp_path / "data", 60))
    assert data.class_names == ("cats", "dogs")
    for split in SPLITS:
        files = [data.source.files()[number] for number in data.source.split(split)]
        assert [data.class_names[label] for label in data.labels(split)] == [
            file.split("/")[0] for file in files
        ]
        assert set(data.labels(split)) == {0, 1}  # no class is missing in a part that is set aside


def test_pictures_that_lie_in_no_class_have_none(tmp_path):
    root = make_folder(tmp_path / "data", 10)
    (root / "cats" / "01.png").rename(root / "stray.png")
    assert own(tmp_path, root).labels("train") is None
    assert own(tmp_path, root).class_names == ()
    for part in ("train", "test"):
        for file in make_folder(tmp_path / "flat" / part, 10).rglob("*.png"):
            file.rename(tmp_path / "flat" / part / file.name)
    assert own(tmp_path, tmp_path / "flat").labels("train") is None


def numbered(count=20):
    return {f"00000/img{number:08d}.png": b for number, b in enumerate(pictures(count).values())}


def test_the_labels_of_a_dataset_json_are_the_classes(tmp_path):
    files = numbered()
    labels = [[name, (number % 3) * 2] for number, name in enumerate(files)]
    path = write_zip(tmp_path / "p.zip", files | {"dataset.json": listed(labels)})
    data = own(tmp_path, path)
    assert data.class_names == ("0", "2", "4")
    for split in SPLITS:
        expected = [labels[number][1] for number in data.source.split(split)]
        assert [int(data.class_names[label]) for label in data.labels(split)] == expected
    root = tmp_path / "unpacked"
    for name, content in (files | {"dataset.json": listed(labels).encode()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    assert np.array_equal(own(tmp_path, root).labels("train"), data.labels("train"))


def test_a_dataset_json_without_labels_or_with_vectors_gives_no_classes(tmp_path):
    files = numbered()
    vectors = [[name, [0.5, 1.0]] for name in files]
    for number, labels in enumerate((None, vectors)):
        path = write_zip(tmp_path / f"{number}.zip", files | {"dataset.json": listed(labels)})
        data = own(tmp_path, path)
        data.prepare_data()
        assert data.labels("train") is None


def test_a_dataset_json_of_something_else_is_not_asked(tmp_path):
    other = json.dumps([{"title": "cats"}])
    path = write_zip(tmp_path / "p.zip", pictures() | {"dataset.json": other})
    assert own(tmp_path, path).class_names == ("cats", "dogs")


def absent(pairs):
    return [*pairs, ["00000/gone.png", 1], ["00000/lost.png", 1]]


WRONG = {
    "absent": (absent, "labels 00000/gone.png and 1 more, which is not there: correct it, or"),
    "unlabelled": (lambda p: p[:-3], "no label for 00000/img00000017.png and 2 more: correct"),
    "words": (lambda p: [*p[:-1], [p[-1][0], "cat"]], "label 'cat' of 00000/img00000019.png is no"),
    "numbers": (lambda p: [1, 2, 3], "does not list labels as"),
    "mapping": (lambda p: {"a": 1}, "does not list labels as"),
}


@pytest.mark.parametrize("what", WRONG)
def test_labels_that_do_not_match_are_refused_before_training(tmp_path, what, capsys):
    spoil, sentence = WRONG[what]
    files = numbered()
    pairs = [[name, number % 3] for number, name in enumerate(files)]
    path = write_zip(tmp_path / "p.zip", files | {"dataset.json": listed(spoil(pairs))})
    with pytest.raises(UserMistake, match=f"dataset.json in p.zip.*{sentence}"):
        own(tmp_path, path).prepare_data()


def test_a_damaged_list_is_refused_and_check_says_so_of_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    path = write_zip(tmp_path / "p.zip", pictures() | {"dataset.json": '{"labels": [["cats/'})
    with pytest.raises(UserMistake, match="dataset.json in p.zip is damaged"):
        own(tmp_path, path).prepare_data()
    root = make_folder(tmp_path / "data", 20)
    (root / "dataset.json").write_text(listed([["cats/01.png", 0]]))
    own(tmp_path, root).prepare_data()  # as before there were labels
    small = ["dataset.image_size=8", f"dataset.root={root}"]
    assert main(["check", "image-folder", *small]) == 2
    assert "dataset.json has no label for cats/03.png and 18 more" in capsys.readouterr().err
    (root / "dataset.json").unlink()
    assert main(["check", "image-folder", *small]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "data is in order" in said and "2 classes: cats, dogs" in said
