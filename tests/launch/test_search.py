"""Searches with the real Optuna: trials, pruning, several coordinators, and continuing after a crash."""

import os
import signal
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from fixtures.launching import runs
from fixtures.places import slow_but
from fixtures.processes import wait_for
from fixtures.searching import (
    ENDS,
    FAILS_ABOVE_1,
    SPACE,
    WAITS,
    WORKER,
    coordinator,
    states,
    trials,
)
from genbench.errors import UserMistake
from genbench.launch import search_space, search_study, settings
from genbench.runs.config import read_config
from genbench.runs.status import read_status

# --- the space ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(1e-5,1e-2)", FloatDistribution(1e-5, 1e-2)),
        ("a=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=int(interval(1,10))", IntDistribution(1, 10)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(1,10)", IntDistribution(1, 9)),
        ("a=range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=1,2,4", CategoricalDistribution(["1", "2", "4"])),
        ("a=choice([0.5,0.9],[0.0,0.99])", CategoricalDistribution(["[0.5,0.9]", "[0.0,0.99]"])),
    ],
)
def test_hydra_sweeps_become_optuna_distributions(override, expected):
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert search_space.distribution(parsed) == expected


@pytest.mark.parametrize("override", ["a=interval(2,1)", "a=tag(log,interval(0,1))"])
def test_an_empty_interval_is_a_mistake(override):
    (parsed,) = OverridesParser.create().parse_overrides([override])
    with pytest.raises(UserMistake, match="is empty, or reaches 0 on a log scale"):
        search_space.distribution(parsed)


def test_the_shipped_defaults_are_tried_for_every_option_of_a_group():
    with settings.composing():
        space = search_space.Space.read(["model=vae,gan", "arena.latent_dim=8,16,32", "seed=3"])
        assert space.shipped_defaults() == [
            {"model": "vae", "arena.latent_dim": "16"}, {"model": "gan", "arena.latent_dim": "16"}
        ]  # fmt: skip
        space = search_space.Space.read(["model.beta=interval(2,3)", "budget.epochs=null,3"])
        assert space.shipped_defaults() == [
            {"budget.epochs": "null"}
        ]  # 1.0 is no beta of this space
    assert space.overrides({"model.beta": 2.5, "budget.epochs": "3"}) == [
        "model.beta=2.5", "budget.epochs=3",
    ]  # fmt: skip


# --- a search -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_begins_with_the_defaults_and_finds_the_best(find, capfd):
    assert find(SPACE, "hydra.sweeper.n_trials=12", "hydra.launcher.slots=4") == 0
    found = trials()
    assert len(found) == 12
    assert found[0].params == {"model.beta": 1.0}
    best = min(found, key=lambda trial: trial.value)
    assert 10 ** (1 - 0.5) < best.params["model.beta"] < 10 ** (1 + 0.5)
    assert {read_config(run)["study"] for run in runs()} == {"s"}
    printed = capfd.readouterr().out
    assert f"fd={best.value:.4g}  {best.user_attrs['run']}" in printed
    assert "12 trials complete" in printed


@pytest.mark.slow
def test_n_trials_is_the_total_of_all_commands(find, capfd):
    assert find(SPACE, "hydra.sweeper.n_trials=2") == 0
    assert find(SPACE, "hydra.sweeper.n_trials=3") == 0
    assert len(runs()) == 3
    assert find(SPACE, "hydra.sweeper.n_trials=3") == 0
    assert len(runs()) == 3
    assert "3 trials are there: raise hydra.sweeper.n_trials" in capfd.readouterr().out


@pytest.mark.slow
def test_a_trial_that_diverges_has_failed_and_the_search_continues(find, capfd):
    argv = ("model.beta=0.5,2.0", "hydra.sweeper.sampler=grid")
    assert find(*argv, source=FAILS_ABOVE_1 + ENDS) == 0
    assert sorted(states()) == ["COMPLETE", "FAIL"]
    (failed,) = [t for t in trials() if t.state == TrialState.FAIL]
    assert failed.user_attrs["reason"] == "loss is no longer a number"
    assert "1 trials complete, 0 pruned, 1 failed" in capfd.readouterr().out


def test_a_trial_without_the_score_is_a_failed_trial(find, capfd):
    argv = ("hydra.sweeper.n_trials=1", "hydra.sweeper.objective=nix")
    assert find(SPACE, *argv) == 0
    assert states() == ["FAIL"]
    assert "no nix" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_a_grid_is_every_combination_once(find, launcher):
    argv = ("model.beta=0.1,1.0", "model=vae", "seed=range(0,2)", f"hydra/launcher={launcher}")
    assert find(*argv, "hydra.sweeper.sampler=grid") == 0
    made = [(read_config(run)["model"]["beta"], read_config(run)["seed"]) for run in runs()]
    assert sorted(made) == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]


@pytest.mark.slow
def test_several_objectives_have_a_pareto_set(find, capfd):
    argv = ("model.beta=0.1,1.0,10.0,100.0", "hydra.sweeper.objective=[fd,elbo]")
    assert find(*argv, "hydra.sweeper.sampler=grid") == 0
    lines = capfd.readouterr().out.partition("Pareto set")[2].partition("\n\n")[0].splitlines()
    best = sorted(line.rpartition("model.beta=")[2] for line in lines if "model.beta" in line)
    assert best == ["0.1", "1.0", "10.0"]  # 100 is no better in fd than 1, and worse in elbo


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "cmaes"])
def test_every_sampler_proposes_trials(find, sampler):
    argv = ("hydra.sweeper.n_trials=3", f"hydra.sweeper.sampler={sampler}")
    assert find(SPACE, "model.optimizer.lr=tag(log,interval(1e-5,1e-2))", *argv) == 0
    assert states() == ["COMPLETE"] * 3
    assert trials()[0].params == {"model.beta": 1.0, "model.optimizer.lr": 3.4e-3}


@pytest.mark.slow
def test_a_bad_trial_is_pruned_by_its_curve(find, capfd):
    source = """
curve = config["seed"]
(run / "history.csv").write_text(f"images,validation/loss\\n100,{curve}\\n")
if curve == 9:
    time.sleep(60)
"""
    argv = ("seed=3,2,1,9", "hydra.sweeper.sampler=grid", "hydra.launcher.slots=1")
    prune = ("hydra.sweeper.prune_on=validation/loss", "hydra.sweeper.prune_after=1")
    source = source.replace("time.sleep(60)", "time.sleep(60)\nelse:\n    time.sleep(1.5)")
    assert find(*argv, *prune, source=source + ENDS) == 0
    assert states() == ["COMPLETE"] * 3 + ["PRUNED"]
    (stopped,) = [run for run in runs() if read_status(run).status == "interrupted"]
    assert "stopped by the search" in read_status(stopped).reason


@pytest.mark.slow
def test_a_curve_that_no_run_logs_is_reported(find, capfd):
    argv = ("hydra.sweeper.n_trials=1", "hydra.sweeper.prune_on=nix")
    assert find(SPACE, *argv) == 0
    assert "no run logged nix in history.csv: nothing was pruned" in capfd.readouterr().out


MISTAKES = [
    (["study=null", SPACE], "add study=NAME"),
    ([SPACE, "hydra.sweeper.storage=nix://u:secret@host/db"], "storage=nix://host/db cannot"),
    (["seed=1"], "needs something to vary"),
    ([SPACE, "hydra.sweeper.sampler=tpee"], "is not one of tpe, random, cmaes, grid"),
    ([SPACE, "hydra.sweeper.n_trials=0"], "n_trials=0 is not a number above 0"),
    ([SPACE, "hydra.sweeper.sampler=grid"], "a grid needs steps"),
    ([SPACE, "hydra.sweeper.directions=[up]"], "must say minimize or maximize"),
    ([SPACE, "hydra.sweeper.objective=[a,b]", "hydra.sweeper.prune_on=x"], "no pruning"),
]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    slow_but(MISTAKES, *MISTAKES[:2]),
)
def test_mistakes_are_sentences(find, argv, sentence):
    with pytest.raises(UserMistake) as mistake:
        find(*argv)
    assert sentence in str(mistake.value)
    assert runs() == []


@pytest.mark.slow
def test_a_study_is_not_continued_with_other_settings(find):
    assert find(SPACE, "hydra.sweeper.n_trials=1") == 0
    with pytest.raises(UserMistake, match="has been searched with fixed"):
        find(SPACE, "hydra.sweeper.n_trials=2", "seed=4")
    with pytest.raises(UserMistake, match="has been searched with space"):
        find("model.beta=tag(log,interval(1e-3,1e2))", "hydra.sweeper.n_trials=2")


# --- several coordinators -----------------------------------------------------------------------


MEETS = """
(run / "coordinator").write_text(str(os.getppid()))
end = time.monotonic() + 60
while len({path.read_text() for path in run.parent.glob("*/coordinator")} - {""}) < 2:
    assert time.monotonic() < end, "the other coordinator began no run"
    time.sleep(0.02)
"""


def two_share_a_study(room, *argv):
    (room / "stub_worker.py").write_text(WORKER + MEETS + ENDS)
    small = ("hydra.sweeper.n_trials=4", "hydra.launcher.slots=1")
    both = [coordinator(room, *small, *argv) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]


def check_that_two_shared(found):
    complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert len(complete) == len(runs()) == 4
    assert len({trial.user_attrs["coordinator"] for trial in complete}) == 2
    assert len({trial.params["model.beta"] for trial in complete}) == 4
    assert [t.params["model.beta"] for t in complete].count(1.0) == 1


@pytest.mark.slow
def test_two_coordinators_share_a_study(room):
    two_share_a_study(room)
    check_that_two_shared(trials())


@pytest.mark.slow
def test_trials_of_a_dead_coordinator_are_run_again(find, room):
    (room / "stub_worker.py").write_text(WORKER + WAITS)
    process = coordinator(room, "hydra.sweeper.n_trials=2", "hydra.launcher.slots=1")
    wait_for(lambda: list(room.glob("outputs/*/pid")))
    process.kill()
    process.wait()
    (begun,) = runs()
    wait_for(lambda: read_status(begun).status == "interrupted")
    assert states()[0] == "RUNNING"
    assert find(SPACE, "hydra.sweeper.n_trials=2", "hydra.launcher.slots=1") == 0
    assert sorted(states()) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert read_status(begun).status == "finished"  # resumed, not begun again
    assert len(runs()) == 2


@pytest.mark.slow
def test_the_last_trial_of_a_dead_coordinator_is_taken_up_too(find, room):
    (room / "stub_worker.py").write_text(WORKER + WAITS)
    process = coordinator(room, "hydra.sweeper.n_trials=1")
    wait_for(lambda: list(room.glob("outputs/*/pid")))
    process.kill()
    process.wait()
    (begun,) = runs()
    wait_for(lambda: read_status(begun).status == "interrupted")
    assert find(SPACE, "hydra.sweeper.n_trials=1") == 0
    assert sorted(states()) == ["COMPLETE", "FAIL"]
    assert runs() == [begun]


@pytest.mark.slow
def test_trials_stopped_by_ctrl_c_are_run_again(find, room):
    (room / "stub_worker.py").write_text(WORKER + WAITS)
    process = coordinator(room, "hydra.sweeper.n_trials=1")
    wait_for(lambda: list(room.glob("outputs/*/pid")))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 75
    assert find(SPACE, "hydra.sweeper.n_trials=1") == 0
    assert len(runs()) == 1
    assert sorted(states()) == ["COMPLETE", "FAIL"]


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_coordinators_share_a_study_in_postgresql(room, postgresql):
    two_share_a_study(room, f"hydra.sweeper.storage='{postgresql}'")
    storage = search_study.open_storage(postgresql, Path(), "s")
    check_that_two_shared(trials(storage))
    storage.remove_session()
    storage.engine.dispose()
