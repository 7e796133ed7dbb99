"""A search on the mean of seeds, with the real Optuna and a worker whose scores are made of the settings."""

import os
import signal
from collections import Counter

import pytest
from optuna.trial import TrialState

from fixtures.launching import runs
from fixtures.processes import wait_for
from fixtures.searching import ENDS, SPACE, WAITS, WORKER, coordinator, states, trials
from genbench.errors import UserMistake
from genbench.launch.search_seeds import first_seed, in_words, means, with_seed
from genbench.runs.config import read_config
from genbench.runs.status import read_status

# the best of one seed (beta 0.1 with seed 0) is not the best of three
NOISY = """
fd = {(0.1, 0): 0.0, (0.1, 1): 8.0, (0.1, 2): 10.0}.get((beta, config["seed"]), 3.0 + 0.1 * config["seed"])
"""
GRID = ("hydra.sweeper.sampler=grid", "hydra.sweeper.seeds=3", "hydra.launcher.slots=1")


def made() -> list[tuple[float, int]]:
    """(beta, seed) of all runs."""
    configs = map(read_config, runs())
    return sorted((config["model"]["beta"], config["seed"]) for config in configs)


def test_the_seeds_of_a_trial_follow_the_given_one():
    assert with_seed(["a=1", "seed=4", "b=2"], 2) == ["a=1", "b=2", "seed=6"]
    assert with_seed(["a=1"], 0) == ["a=1", "seed=0"] and first_seed([]) == 0
    assert means([[1.0, 10.0], [2.0, 20.0]]) == [1.5, 15.0]
    assert (
        in_words(["fd"], [[1.0], [2.0], [3.0]]) == "fd=2 ± 1"
        and in_words(["fd"], [[1.5]]) == "fd=1.5"
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_the_mean_of_seeds_counts_and_not_the_best_seed(find, capfd, launcher):
    argv = ("model.beta=0.1,1.0", *GRID[:2], f"hydra/launcher={launcher}")
    assert find(*argv, source=NOISY + ENDS) == 0
    assert made() == [(beta, seed) for beta in (0.1, 1.0) for seed in range(3)]
    found = {trial.params["model.beta"]: trial for trial in trials()}
    assert found["0.1"].value == pytest.approx(6.0) and found["1.0"].value == pytest.approx(3.1)
    assert [value for (value,) in found["0.1"].user_attrs["values"]] == [0.0, 8.0, 10.0]
    printed = capfd.readouterr().out
    assert "2 trials complete" in printed
    assert "fd=3.1 ± 0.1" in printed and "mean ± sd over 3 seeds" in printed
    assert found["1.0"].user_attrs["run"] in printed


@pytest.mark.slow
def test_trials_run_side_by_side_and_their_own_seeds_one_after_the_other(find):
    source = """
for other in run.parent.iterdir():
    if other != run and other.name[0] != "." and read_config(other)["model"]["beta"] == beta:
        assert (other / "result.json").exists(), "two seeds of one trial at once"
time.sleep(0.3)
"""
    argv = ("model.beta=0.1,1.0", GRID[0], "hydra.sweeper.seeds=2", "hydra.launcher.slots=2")
    assert find(*argv, source=source + ENDS) == 0
    assert states() == ["COMPLETE"] * 2 and len(made()) == 4


@pytest.mark.slow
def test_a_trial_whose_mean_so_far_is_hopeless_ends_between_seeds(find, capfd):
    source = "fd = beta + 0.01 * config['seed']\n"
    betas, two = "model.beta=1.0,2.0,50.0", "hydra.sweeper.seeds=2"
    argv = (betas, GRID[0], two, GRID[2], "hydra.sweeper.prune_after=2")
    assert find(*argv, source=source + ENDS) == 0
    assert states() == ["COMPLETE"] * 2 + ["PRUNED"]
    assert Counter(beta for beta, _ in made()) == {1.0: 2, 2.0: 2, 50.0: 1}
    assert all(read_status(run).status == "finished" for run in runs())
    printed = capfd.readouterr().out
    assert "2 trials complete, 1 pruned, 0 failed" in printed


@pytest.mark.slow
def test_a_seed_that_fails_fails_the_trial(find):
    source = """
if config["seed"] == 1 and beta < 1:
    write_status(run, Status("diverged", "loss is NaN"))
    sys.exit(1)
"""
    assert find("model.beta=0.1,1.0", *GRID, source=source + ENDS) == 0
    assert sorted(states()) == ["COMPLETE", "FAIL"]
    assert made() == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1), (1.0, 2)]
    (failed,) = [trial for trial in trials() if trial.state == TrialState.FAIL]
    assert failed.user_attrs["reason"] == "loss is NaN"


@pytest.mark.slow
def test_several_objectives_have_means_and_no_pruning(find):
    argv = ("model.beta=0.1,1.0", *GRID, "hydra.sweeper.objective=[fd,elbo]")
    assert find(*argv, source=NOISY + ENDS) == 0
    values = [(t.values[0], t.values[1]) for t in trials()]
    assert values == [(pytest.approx(6.0), pytest.approx(-0.1)), (pytest.approx(3.1), -1.0)]


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_at_the_seed_where_it_was(find, room):
    begun = 'if config["seed"] == 1:\n    ' + WAITS
    (room / "stub_worker.py").write_text(WORKER + begun + ENDS)
    process = coordinator(room, "hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=3")
    wait_for(
        lambda: any((run / "pid").exists() and read_config(run)["seed"] == 1 for run in runs())
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped = next(run for run in runs() if read_config(run)["seed"] == 1)
    wait_for(lambda: read_status(stopped).status != "running")
    done = next(run for run in runs() if read_config(run)["seed"] == 0)
    before = (done / "result.json").stat().st_mtime_ns
    assert find(SPACE, "hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=3") == 0
    assert sorted(states()) == ["COMPLETE", "FAIL"]
    assert len(made()) == 3 and (done / "result.json").stat().st_mtime_ns == before
    assert read_status(stopped).status == "finished"


@pytest.mark.slow
def test_a_study_of_one_seed_is_not_continued_with_three(find):
    assert find(SPACE, "hydra.sweeper.n_trials=1") == 0
    with pytest.raises(UserMistake, match="has been searched with seeds 1, not 3"):
        find(SPACE, "hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=3")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([SPACE, "hydra.sweeper.seeds=0"], "seeds=0 is not a number above 0"),
        ([SPACE, "hydra.sweeper.seeds=[1,2]"], "is not a number above 0"),
        ([SPACE, "hydra.sweeper.seeds=2", "hydra.sweeper.prune_on=x"], "pruned between seeds"),
        (["seed=1,2", "hydra.sweeper.seeds=2"], "and seed=... varies too"),
    ],
)
def test_mistakes_are_sentences(find, argv, sentence):
    with pytest.raises(UserMistake) as mistake:
        find(*argv)
    assert sentence in str(mistake.value) and runs() == []
