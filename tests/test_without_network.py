"""Runs on a machine that can fetch nothing: without scores, or scored in untrained features."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from fixtures.training import go, make
from genbench import evaluate
from genbench.cli import main
from genbench.commands.evaluate import protocol
from genbench.launch.task import EndedRun, summary
from genbench.runs.config import read_config
from genbench.runs.result import read_result


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures in a folder, and the settings of a run on them."""
    draw = np.random.RandomState(0)
    (tmp_path / "pictures").mkdir()
    for i in range(20):
        Image.fromarray(draw.randint(0, 256, (8, 8, 3), np.uint8)).save(
            tmp_path / "pictures" / f"{i}.png"
        )
    return [
        "dataset=image-folder",
        f"dataset.root={tmp_path / 'pictures'}",
        "dataset.image_size=8",
        "dataset.validation=2",
        "dataset.test=6",
        "network.width=4",
        "trainer.samples=0",
    ]


def table(study, outputs, capsys):
    capsys.readouterr()
    assert main(["compare", f"study={study}", "--outputs", str(outputs), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_folder_of_pictures_gets_to_its_table_and_says_by_which_features(
    tmp_path, cache, pictures, capsys
):
    run = make(tmp_path, cache, "model=noise", "study=s", *pictures)
    assert go(run) == 0
    printed = capsys.readouterr().out
    assert "scored in the features of random-conv-v1, an untrained network" in printed
    names = {score.name for score in read_result(run).scores}
    assert {"fd_random-conv-v1", "coverage_random-conv-v1"} <= names
    assert not any(name.startswith(("is_", "class_tv")) for name in names)
    (arena,) = table("s", tmp_path, capsys)
    assert "fd_random-conv-v1" in arena["rows"][0]


@pytest.mark.slow
def test_a_run_without_scores_is_a_blank_row_until_it_is_evaluated(tmp_path, cache, capsys):
    run = make(tmp_path, cache, "model=gan", "study=s", "ema=standard", "evaluation=none")
    assert go(run) == 0
    assert f"not scored: `genbench evaluate {run.name}`" in capsys.readouterr().out
    result = read_result(run)
    assert (result.status, list(result.scores)) == ("finished", [])
    (arena,) = table("s", tmp_path, capsys)
    assert not any(key.startswith("fd") for key in arena["rows"][0])
    assert (
        main(["report", "study=s", "--outputs", str(tmp_path), "--out", str(tmp_path / "r.md")])
        == 0
    )
    path = tmp_path / "protocol.yaml"
    settings = ["evaluation.num_samples=64", f"paths.cache={cache}"]
    path.write_text(yaml.safe_dump(protocol(read_config(run), settings)))
    assert evaluate.main([str(run), str(path)]) == 0
    (arena,) = table("s", tmp_path, capsys)
    assert any(key.startswith("fd_lenet-digits-v1") for key in arena["rows"][0])


def test_a_sweep_without_scores_ends_with_the_command_that_makes_them(tmp_path):
    jobs = [
        EndedRun([setting], tmp_path / name, code, asked_to_stop=False, seconds=1.0)
        for setting, name, code in (
            ("evaluation=none", "a", 0),
            ("evaluation=none", "b", 0),
            ("evaluation=none", "c", 1),
            ("evaluation=quick", "d", 0),
        )
    ]
    assert "not scored: `genbench evaluate a b`," in summary(jobs)
    assert "not scored" not in summary(jobs[3:])


def test_weights_cannot_be_selected_without_features(tmp_path, cache, capsys):
    run = make(tmp_path, cache, "model=gan", "selection=fd", "evaluation=none")
    assert go(run) == 2
    assert "choose selection=none, or another evaluation" in capsys.readouterr().err
