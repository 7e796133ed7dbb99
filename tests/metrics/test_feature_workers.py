"""Scores with several devices are those with one."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from fixtures.training import go, make
from genbench import evaluate
from genbench.errors import GenbenchError
from genbench.metrics.contract import Features
from genbench.metrics.feature_workers import FeatureWorkers
from genbench.runs.config import read_config
from genbench.runs.result import read_result


def rows(*numbers: int) -> Features:
    values = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return Features(values, -values)


@pytest.mark.parametrize("batches", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_batch_is_somebodys_and_in_order(batches, world):
    taken = [number for rank in range(world) for number in FeatureWorkers(rank, world).own(batches)]
    assert taken == list(range(batches))


def test_shares_come_together_in_order(tmp_path):
    FeatureWorkers(2, 3, tmp_path).gather("fake", rows(4))
    FeatureWorkers(1, 3, tmp_path).gather("fake", rows(2, 3))
    found = FeatureWorkers(0, 3, tmp_path).gather("fake", rows(0, 1))
    assert torch.equal(found.features, rows(0, 1, 2, 3, 4).features)
    assert torch.equal(found.logits, rows(0, 1, 2, 3, 4).logits)


def test_a_process_without_a_batch_adds_nothing(tmp_path):
    empty = Features(torch.empty(0, 0), torch.empty(0, 0))
    FeatureWorkers(1, 2, tmp_path).gather("fake", empty)
    assert torch.equal(
        FeatureWorkers(0, 2, tmp_path).gather("fake", rows(5)).features, rows(5).features
    )


def test_a_process_that_ended_is_not_waited_for(tmp_path):
    helper = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    helper.wait()
    with pytest.raises(GenbenchError, match="process 1 of 2 ended with code 3"):
        FeatureWorkers(0, 2, tmp_path, (helper,)).gather("fake", rows(1))


@pytest.mark.slow
def test_processes_with_uneven_batches_give_the_scores_of_training_to_the_bit(tmp_path, cache):
    """Raw and averaged weights with BatchNorm, in whatever batch they were trained."""
    uneven = ["evaluation.num_samples=256", "evaluation.batch_size=100", "evaluation.devices=2"]
    network = ["network=conv", "network.width=4", "budget.batch_size=256", "ema=standard"]
    run = make(tmp_path, cache, "model=gan", *network, *uneven)
    assert go(run) == 0
    protocol = read_config(run)["evaluation"]
    protocol |= {"devices": 1, "cache": str(tmp_path / "cache of one")}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"evaluation": protocol}))
    assert evaluate.main([str(run), str(path)]) == 0

    shared = {score.protocol: score.value for score in read_result(run).scores}
    (file,) = (run / "evaluations").glob("*.json")
    scores = json.loads(file.read_text())["scores"]
    assert {score["protocol"]: score["value"] for score in scores} == shared
