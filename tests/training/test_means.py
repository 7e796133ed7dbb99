"""Running means over ranks, and where they go on after a stop."""

import csv
import os

import pytest
import torch

from fixtures.callbacks import stop
from fixtures.forks import fork_ranks
from fixtures.training import make, scores
from genbench import train
from genbench.training.means import RunningMeans


def means(*values):
    made = RunningMeans()
    for value in values:
        made.add("loss", torch.tensor(value))
    return made


@pytest.fixture
def two_ranks(monkeypatch):
    """As if the other rank's means were those of (4, 8)."""

    def gather(found, own):
        found[:] = [own, means(4.0, 8.0).state_dict()]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_every_rank_goes_on_from_its_own_values(two_ranks):
    checkpoint = means(1.0, 2.0).for_checkpoint()
    found = []
    for rank in range(2):
        resumed = RunningMeans()
        resumed.take_up(checkpoint, rank, 2)
        found.append(resumed.take(1)["loss"])
    assert found == [1.5, 6.0]


@pytest.mark.parametrize("world_size", [1, 3])
def test_another_number_of_ranks_goes_on_from_those_of_the_first(two_ranks, world_size):
    resumed = RunningMeans()
    resumed.take_up(means(1.0, 2.0).for_checkpoint(), world_size - 1, world_size)
    assert resumed.take(1) == {"loss": 1.5}


def test_a_single_process_keeps_what_it_always_has():
    checkpoint = means(1.0).for_checkpoint()
    assert list(checkpoint) == ["genbench_means"]
    resumed = RunningMeans()
    resumed.take_up({}, 0, 1)  # of a time when they were not kept
    assert resumed.take(1) == {}
    resumed.take_up(checkpoint, 0, 1)
    assert resumed.take(1) == {"loss": 1.0}


@pytest.mark.slow
def test_two_ranks_that_were_stopped_end_with_the_history_of_undisturbed_ones(tmp_path, cache):
    settings = ["model=gan", "trainer.devices=2", "trainer.steps_per_batch=1", "trainer.samples=0"]
    settings += ["trainer.log_every_images=320"]
    whole = make(tmp_path, cache, *settings, stop(10**9))
    parts = make(tmp_path, cache, *settings, stop(64))  # two batches into a row

    def both(directory, code, *more):
        def work():
            found = train.main([str(directory), *more])
            assert found == (0 if os.environ["RANK"] == "1" else code), found

        fork_ranks(work, tmp_path)

    both(whole, 0)
    both(parts, 75)
    both(parts, 0, "--resume")

    def history(run):
        rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
        return [{k: v for k, v in row.items() if "second" not in k} for row in rows]

    assert history(parts) == history(whole)
    assert scores(parts) == scores(whole)
