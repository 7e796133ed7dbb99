"""What tables call a dataset: two folders of pictures are two datasets."""

from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

from fixtures.comparison import fd, make_config
from genbench.comparison.table import compare
from genbench.errors import UserMistake
from genbench.launch import resumption
from genbench.launch.earlier_runs import EarlierRuns
from genbench.launch.settings import composing
from genbench.runs.config import write_config
from genbench.runs.dataset_name import dataset_name, own_name
from genbench.runs.directory import new_run_directory
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.result import read_result
from genbench.runs.selection import fits
from genbench.runs.status import Status, write_status


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("~/pictures/cats", "cats"),
        ("cats/", "cats"),
        ("cats.zip", "cats"),
        ("/data/Cats & dogs.ZIP", "Cats-dogs"),
        ("faces.v2.zip", "faces.v2"),
        ("Füchse", "Füchse"),
        ("data/mnist.zip", "image-folder-mnist"),
        ("/", "image-folder"),
        ("image-folder", "image-folder"),
        (None, "image-folder"),
    ],
)
def test_pictures_are_called_by_their_folder_or_zip(root, name):
    assert own_name(root) == name


def test_a_relative_root_is_called_by_the_folder_that_it_is(tmp_path, monkeypatch):
    (tmp_path / "cats" / "new").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cats" / "new")
    assert (own_name("."), own_name("..")) == ("new", "cats")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["dataset.root=~/a, b/cats.zip"], "cats"),
        (["dataset.root=x/cats", "dataset.name=mine"], "mine"),
        ([], "image-folder"),
    ],
)
def test_the_config_names_the_pictures_unless_the_user_does(overrides, name):
    overrides = [f"{key}='{value}'" for key, value in (o.split("=") for o in overrides)]
    with composing():
        cfg = compose("train", ["dataset=image-folder", *overrides])
        assert OmegaConf.to_container(cfg.dataset, resolve=True)["name"] == name


def pictures(root, name=None, **changes):
    dataset = {"dataset.root": root, "dataset.name": name or own_name(root)}
    return make_config(dataset="image-folder", **dataset, **changes)


def test_a_run_is_called_by_its_dataset_or_by_a_config_file_of_the_users_own():
    assert dataset_name(pictures("a/cats.zip")) == "cats"
    assert dataset_name(make_config(**{"dataset.name": "small"})) == "small"
    assert dataset_name(make_config(dataset="mine", **{"dataset.name": "mnist"})) == "mine"
    assert dataset_name({"choices": {"dataset": "image-folder"}}) == "image-folder"
    assert dataset_name({}, "digits") == "digits"


def test_runs_are_selected_by_the_name_and_by_the_option():
    config = pictures("a/cats")
    assert [fits(config, "dataset", wanted) for wanted in ("cats", "image-folder", "dogs")] == [
        True,
        True,
        False,
    ]


def test_two_folders_get_two_tables_and_older_runs_keep_their_name(finished, tmp_path):
    for root, name in (("x/cats", None), ("x/dogs", None), ("x/cats", "image-folder")):
        names = {"dataset.root": root, "dataset.name": name or own_name(root)}
        finished([fd(1.0)], dataset="image-folder", **names)
    tables = compare(load_results([], tmp_path))
    assert [table.title for table in tables] == ["cats", "dogs", "image-folder"]


def test_a_run_that_did_not_finish_is_called_so_too(tmp_path):
    run = new_run_directory(tmp_path, "x")
    write_config(run, pictures("a/cats.zip"))
    write_status(run, Status("failed"))
    assert read_result(run).dataset == "cats"


def test_two_folders_are_two_methods():
    assert fingerprint(pictures("a/cats")) != fingerprint(pictures("a/dogs"))
    assert fingerprint(pictures("a/cats")) == fingerprint(pictures("b/cats"))


def study(config):
    return {**config, "study": "s", "evaluation": {"num_samples": 9}}


def test_a_study_begun_when_all_folders_had_one_name_finds_its_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    outputs = tmp_path / "outputs"
    run = outputs / "old"
    run.mkdir(parents=True)
    write_config(run, study(pictures("x/cats", "image-folder")))
    write_status(run, Status("interrupted"))
    found = EarlierRuns(outputs, "s")
    assert found.find(study(pictures("x/cats"))).directory == run
    assert found.find(study(pictures("x/cats", seed=1))) is None
    assert found.find(study(pictures("x/dogs"))) is None
    assert found.find(study(pictures("x/cats", "mine"))) is None


@pytest.mark.parametrize("there", ["other", "copied", "gone"])
def test_a_study_does_not_take_other_pictures_of_the_same_name_for_its_own(tmp_path, there):
    roots = [tmp_path / "a" / "cats", tmp_path / "b" / "cats"]
    for root, content in zip(roots, ("one", "one" if there == "copied" else "two!"), strict=True):
        root.mkdir(parents=True)
        (root / "1.png").write_text(content)
    source = {"dataset.source": {"_target_": "genbench.data.folders.Folder"}}
    before, now = (study(pictures(str(root), **source)) for root in roots)
    run = tmp_path / "outputs" / "first"
    run.mkdir(parents=True)
    write_config(run, before)
    write_status(run, Status("finished"))
    if there == "gone":
        (roots[0] / "1.png").unlink()
        roots[0].rmdir()
    found = EarlierRuns(tmp_path / "outputs", "s")
    assert found.find(before).directory == run
    if there == "other":
        with pytest.raises(UserMistake, match="on other pictures that are called cats too.*a/cats"):
            found.find(now)
    else:
        assert found.find(now).directory == run


def test_a_restarted_command_resumes_such_a_run(tmp_path):
    run = new_run_directory(tmp_path, "old")
    before = pictures("x/cats", "image-folder")
    write_config(run, {**before, "choices": {**before["choices"], "trainer": "auto"}})
    now = pictures("x/cats")
    now["choices"]["trainer"] = "cpu"
    assert resumption.restarted_config(Path(run), now)["dataset"]["name"] == "image-folder"
    with pytest.raises(UserMistake, match="another method or seed"):
        other = pictures("x/dogs")
        other["choices"]["trainer"] = "cpu"
        resumption.restarted_config(Path(run), other)
