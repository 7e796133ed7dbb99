"""The table of classes that moved: configs of every age name classes that exist."""

import copy
import importlib
import json
from pathlib import Path

import pytest
import yaml

from genbench.launch.earlier_runs import identity
from genbench.runs.config import read_config
from genbench.runs.method import fingerprint, method
from genbench.runs.moved import MOVED, first_named, renamed
from genbench.runs.result import read_result

OLD_RUNS = sorted(
    path.parent for path in Path(__file__).parents[1].glob("fixtures/old_runs/*/config.yaml")
)
FINISHED = [run for run in OLD_RUNS if (run / "result.json").exists()]


def targets(node):
    """Every `_target_` of a nested config."""
    if isinstance(node, dict):
        found = [node["_target_"]] if "_target_" in node else []
        return found + [target for value in node.values() for target in targets(value)]
    return [target for value in node for target in targets(value)] if isinstance(node, list) else []


def test_there_is_an_old_run_of_every_model_of_that_time():
    models = {path.stem for path in Path("configs/model").glob("*.yaml")}
    of_then = {"vae", "gan", "gan-hinge", "lsgan", "wgan-gp", "vae-gan"}
    of_then |= {"noise", "replay", "blur", "mode-drop"}
    assert {run.name for run in FINISHED} == of_then <= models
    assert {f"{model}-killed" for model in ("vae", "gan", "vae-gan")} < {r.name for r in OLD_RUNS}


@pytest.mark.parametrize("new", MOVED.values())
def test_every_new_name_is_a_class(new):
    module, _, name = new.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_the_table_is_one_to_one_and_no_name_is_both_old_and_new():
    assert len(set(MOVED.values())) == len(MOVED)
    assert not set(MOVED) & set(MOVED.values())


def test_targets_are_renamed_at_any_depth_and_nothing_else_is():
    old = {
        "trainer": {"_target_": "genbench.engine.Engine", "of": "genbench.engine.Engine"},
        "callbacks": {"a": [{"_target_": "genbench.callbacks.averaging.Averaging"}, 1, None]},
        "mine": {"_target_": "mine.Engine"},
        "evaluation": {"metrics": {2: {"_target_": ["genbench.engine.Engine"]}}},
        "_target_": "genbench.budget.Budget",
    }
    kept = copy.deepcopy(old)
    new = renamed(old)
    assert old == kept
    assert new["trainer"] == {
        "_target_": "genbench.training.trainer.Engine",
        "of": "genbench.engine.Engine",
    }
    assert new["callbacks"]["a"][0]["_target_"] == MOVED["genbench.callbacks.averaging.Averaging"]
    assert new["mine"] == old["mine"] and new["_target_"] == "genbench.runs.budget.Budget"
    assert renamed(new) == new
    assert first_named(new) == old | {"evaluation": new["evaluation"]}


@pytest.mark.parametrize("run", OLD_RUNS, ids=lambda run: run.name)
def test_the_config_of_an_old_run_names_classes_that_exist(run):
    if run.name != "vae-conv-killed":  # from after the move
        written = yaml.safe_load((run / "config.yaml").read_text())
        assert set(targets(written)) & set(MOVED)
    for target in targets(read_config(run)):
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name), target


@pytest.mark.parametrize("run", FINISHED, ids=lambda run: run.name)
def test_an_old_run_keeps_its_fingerprint(run):
    stored = json.loads((run / "result.json").read_text())
    result = read_result(run)
    assert set(targets(result.config)).isdisjoint(MOVED)
    assert fingerprint(stored["config"]) == fingerprint(result.config) == stored["fingerprint"]
    assert method(stored["config"]) == method(result.config)
    old = yaml.safe_load((run / "config.yaml").read_text())
    assert identity(old) == identity(read_config(run))
