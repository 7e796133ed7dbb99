"""The studies that ship: grids of their files' settings, and what goes with one option."""

import itertools

import pytest
import yaml

from fixtures.places import ROOT
from genbench.launch import pool, task

EXPERIMENTS = sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
GRIDS = [path for path in EXPERIMENTS if "params:" in path.read_text()]  # the others are searches


@pytest.fixture
def planned(room, monkeypatch):
    """The overrides of a sweep's runs and the configs of the first ones; it starts none."""

    def plan(*argv, first=3):
        jobs, configs = [], []

        def launch(launcher, job_overrides, number):  # by now Hydra has composed every option once
            jobs.extend(job_overrides)
            configs.extend(pool.compose(launcher, job, number).config for job in jobs[:first])
            return []

        with monkeypatch.context() as patch:
            patch.setattr(pool, "launch", launch)
            task.train(["-m", *argv])
        return jobs, configs

    return plan


def own_values(path, job):
    """What the comma lists of `also` make of a job: a set of overrides for each of their values."""
    also = yaml.safe_load(path.read_text())["hydra"]["sweeper"].get("also", {})
    found = [frozenset()]
    for part, more in also.items():
        for key, values in more.items():
            if part in job and isinstance(values, str):
                found = [one | {f"{key}={value}"} for one in found for value in values.split(",")]
    return found


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem != "objectives")) for p in GRIDS],
    ids=lambda path: path.stem,
)
def test_an_experiment_is_the_grid_that_its_file_names(path, planned):
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    grid = [[f"{k}={v}" for v in str(vs).split(",")] for k, vs in params.items() if k != "seed"]
    jobs, configs = planned(f"experiment={path.stem}", "seed=7", first=1)
    plain = [frozenset([*job, "seed=7"]) for job in itertools.product(*grid)]
    expected = {job | more for job in plain for more in own_values(path, job)}
    varied = set().union(*expected)
    assert {frozenset(varied.intersection(job)) for job in jobs} == expected
    assert len(jobs) == len(expected)
    assert (configs[0]["study"], configs[0]["seed"]) == (path.stem, 7)


@pytest.mark.slow
def test_the_study_of_objectives_gives_every_model_the_same_optimizer(planned):
    _, configs = planned("experiment=objectives", "seed=7")
    optimizers = [
        value for c in configs for key, value in c["model"].items() if key.endswith("optimizer")
    ]
    schedules = [config["schedule"] for config in configs]
    assert len(schedules) == 3
    assert len(optimizers) == 5  # a VAE's one, two of the others
    assert all(optimizer == optimizers[0] for optimizer in optimizers)
    assert all(schedule == schedules[0] for schedule in schedules)


def test_what_an_option_brings_along_gives_way_to_the_command_line(planned):
    argv = ("experiment=objectives", "seed=7", "model=vae", "model.optimizer.lr=0.5")
    _, (config,) = planned(*argv)
    optimizer = config["model"]["optimizer"]
    assert (optimizer["lr"], optimizer["betas"]) == (0.5, [0.0, 0.99])
