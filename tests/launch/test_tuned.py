"""Equal tuning with Optuna itself: who gets which trials, what the fresh seeds are, and what goes on."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from fixtures.launching import STOPPABLE, runs
from fixtures.places import slow_but
from fixtures.processes import wait_for
from fixtures.training import SMOKE
from genbench.comparison.table import compare
from genbench.errors import GenbenchError, UserMistake
from genbench.launch import search_space, search_study, settings, task, tuned
from genbench.runs.config import read_config
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.status import read_status

# the nearer to its own optimum the learning rate of a run is, the better its score
WORKER = (
    STOPPABLE
    + """
(run / "pid").write_text(str(os.getpid()))
model, split = config["choices"]["model"], config["evaluation"]["split"]
optimizer = next(v for k, v in config["model"].items() if k.endswith("optimizer"))
value = abs(math.log10(optimizer["lr"]) + 3) + (1 if model == "gan" else 0)
"""
)
ENDS = """
scores = [
    Score("fd", value + 5 * (weights == "ema"), "", False,
          {"quantity": "fd", "split": split, "fake": {"weights": weights}})
    for weights in ("ema", "raw")
]
write_result(run, Result(
    run.name, config["study"], [], "finished", model, "digits", config["seed"], "f", config,
    {"images": 1}, {}, scores,
))
write_status(run, Status("finished"))
"""
GANS_FAIL = """
if model == "gan":
    write_status(run, Status("diverged", "loss is no longer a number"))
    sys.exit(1)
"""
WAITS = "time.sleep(60)\n"
MODELS = ("vae", "gan", "vae-gan")
OPTIMIZERS = dict(
    zip(MODELS, ("optimizer", "generator_optimizer", "autoencoder_optimizer"), strict=True)
)
SMALL = (
    "network=conv",  # for which configs/tuned has no learning rates of its own
    "hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=[100]", "hydra.launcher.slots=2",
)  # fmt: skip


@pytest.fixture
def tune(room):
    """Tune with a worker whose source is given; returns the exit code."""

    def run(*argv, source=ENDS):
        (room / "stub_worker.py").write_text(WORKER + source)
        return task.train(["-m", "experiment=tuned", *SMALL, *argv], worker="stub_worker")

    return run


def configs(study):
    found = [read_config(run) for run in runs()]
    return [config for config in found if config["study"] == study]


def trials(model):
    storage = search_study.open_storage(None, Path("outputs"), "tuned-search")
    study = optuna.load_study(study_name=f"tuned-search/{model}/digits", storage=storage)
    return [trial for trial in study.trials if trial.state == TrialState.COMPLETE]


def shipped():
    """The settings of the experiment as it ships, inside `composing`."""
    cfg = compose("train", ["experiment=tuned"], return_hydra_config=True)
    given = OmegaConf.to_container(cfg.hydra.sweeper)
    given.pop("_target_")
    return search_study.read_settings(tuned.TunedSettings, given)


# --- what ships ---------------------------------------------------------------------------------


def test_an_experiment_chooses_its_sweeper_and_the_command_line_another():
    def chosen(*overrides):
        cfg = compose("train", [*overrides], return_hydra_config=True)
        return cfg.hydra.runtime.choices["hydra/sweeper"]

    with settings.composing():
        assert chosen() == chosen("experiment=objectives") == "grid"
        assert chosen("experiment=tuned") == "tuned"
        assert chosen("experiment=tuned", "hydra/sweeper=search") == "search"


@pytest.mark.slow
def test_every_model_has_the_same_shared_ranges_with_the_shipped_defaults_in_all_of_them():
    ranges = {}
    with settings.composing():
        for model in shipped().models:
            space = tuned._space(shipped(), "tuned", model, [])
            own = {key for key in space.varying if key.startswith("model.")}
            optimizer = f"model.{OPTIMIZERS[model]}"
            assert {f"{optimizer}.lr", f"{optimizer}.betas"} < own
            assert 1 <= len(own) - 2 <= 2  # of its own
            shared = (f"{optimizer}.lr", f"{optimizer}.betas", "schedule")
            ranges[model] = [space.varying[key] for key in shared]
            defaults = space.shipped_defaults()
            assert [params["schedule"] for params in defaults] == ["constant", "cosine"]
            assert all(set(params) == set(space.varying) for params in defaults)
    assert set(ranges) == set(MODELS)
    assert ranges["vae"] == ranges["gan"] == ranges["vae-gan"]


def test_the_default_of_a_list_is_one_of_its_choices_however_it_is_written():
    betas = "model.optimizer.betas=[0.9,0.999],[0.5,0.9]"
    with settings.composing():
        space = search_space.Space.read([betas, "model=vae", "seed=3"])
        assert space.shipped_defaults() == [{"model.optimizer.betas": "[0.9,0.999]"}]


# --- trials and fresh seeds ---------------------------------------------------------------------


@pytest.mark.slow
def test_equal_searches_on_validation_scores_then_fresh_seeds_on_the_test(tune, capfd):
    assert tune() == 0
    searched, final = configs("tuned-search"), configs("tuned")
    assert Counter(c["choices"]["model"] for c in searched) == dict.fromkeys(MODELS, 2)
    assert {c["evaluation"]["split"] for c in searched} == {"validation"}
    assert {c["seed"] for c in searched} == {0}
    assert all(c["search"] is None for c in searched)
    assert Counter((c["choices"]["model"], c["seed"]) for c in final) == {
        (model, 100): 1 for model in MODELS
    }
    assert {c["evaluation"]["split"] for c in final} == {"test"}
    assert all(c["ema"]["half_life"] for c in [*searched, *final])
    for config in final:
        model = config["choices"]["model"]
        best = min(trials(model), key=lambda trial: trial.value)
        assert config["search"] == {
            "trials": 2, "failed": 0, "objective": "fd", "split": "validation",
            "value": best.value, "edge": [],
            "chosen": {**best.params, f"model.{OPTIMIZERS[model]}.betas": [0.9, 0.999] if model == "vae" else [0.0, 0.99]},
        }  # fmt: skip
        assert config["model"][OPTIMIZERS[model]]["lr"] == 1e-3
        assert fingerprint(config) == fingerprint({**config, "search": None})
    for model in MODELS:  # the shipped defaults, with either schedule
        assert [t.params["schedule"] for t in trials(model)] == ["constant", "cosine"]
        assert {t.params[f"model.{OPTIMIZERS[model]}.lr"] for t in trials(model)} == {1e-3}
        assert min(t.value for t in trials(model)) == (
            1 if model == "gan" else 0
        )  # not the average's
    printed = capfd.readouterr().out
    assert "9 of 9 runs finished" in printed
    assert "vae: fd=0 of 2 trials, 0 failed: model.optimizer.lr=0.001" in printed
    assert "search={" not in printed


@pytest.mark.slow
def test_the_same_command_goes_on_and_a_longer_search_runs_its_seeds_again(tune):
    assert tune("model=vae") == 0
    assert len(runs()) == 3
    (gone,) = (run for run in runs() if read_config(run)["study"] == "tuned")
    subprocess.run(["rm", "-r", str(gone)], check=True)
    assert tune("model=vae") == 0
    assert len(runs()) == 3
    assert tune("model=vae", "hydra.sweeper.n_trials=3") == 0
    assert len(configs("tuned-search")) == 3
    assert sorted(c["search"]["trials"] for c in configs("tuned")) == [2, 3]
    with pytest.raises(UserMistake, match="searched with space"):
        tune("model=vae", 'hydra.sweeper.shared.optimizer.lr="interval(1e-3,1e-1)"')
    with pytest.raises(UserMistake, match="searched with fixed"):
        tune("model=vae", "budget.images=1k")


@pytest.mark.slow
def test_a_model_whose_trials_all_fail_has_no_winner_and_the_others_have_theirs(tune, capfd):
    with pytest.raises(GenbenchError, match="no trial of gan has a score fd") as error:
        tune("model=gan,vae", "hydra.sweeper.n_trials=1", source=GANS_FAIL + ENDS)
    assert error.value.exit_code == 1
    assert {c["choices"]["model"] for c in configs("tuned")} == {"vae"}
    assert "gan: 1 trials, 1 failed, no winner" in capfd.readouterr().out


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on_with_trials_and_seeds(tune, room):
    (room / "stub_worker.py").write_text(WORKER + WAITS + ENDS)
    code = "import sys; from genbench.launch import task; sys.exit(task.train(sys.argv[1:], "
    code += "worker='stub_worker'))"
    argv = ["-m", "experiment=tuned", *SMALL, "model=vae"]
    process = subprocess.Popen([sys.executable, "-c", code, *argv], start_new_session=True)
    wait_for(lambda: len(list(room.glob("outputs/*/pid"))) == 2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 75
    assert [read_status(run).status for run in runs()] == ["interrupted"] * 2
    assert tune("model=vae") == 0
    assert (len(configs("tuned-search")), len(configs("tuned"))) == (2, 1)
    assert {read_status(run).status for run in runs()} == {"finished"}


@pytest.mark.slow
def test_averaged_weights_can_be_the_objective(tune):
    assert tune("model=vae", "hydra.sweeper.objective=fd@ema", "hydra.sweeper.n_trials=1") == 0
    assert [trial.value for trial in trials("vae")] == [5.0]
    assert {c["search"]["objective"] for c in configs("tuned")} == {"fd@ema"}


def test_a_winner_near_the_end_of_its_range_is_named():
    lr = FloatDistribution(1e-4, 1e-2, log=True)
    assert [tuned._is_at_an_end(lr, v) for v in (1e-4, 1.2e-4, 1.3e-4, 7e-3, 9e-3)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert not tuned._is_at_an_end(IntDistribution(1, 1), 1)


@pytest.mark.slow
def test_a_model_of_ones_own_joins_with_an_experiment_file(tune, room):
    mine = room / "genbench_configs" / "experiment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [tuned]\nstudy: tuned-mine\nhydra: {sweeper: {models: "
    mine.write_text(f"{text}{{lsgan: {{optimizer: model.generator_optimizer}}}}}}}}\n")
    assert tune("experiment=mine", "model=lsgan", "hydra.sweeper.n_trials=1") == 0
    assert {c["choices"]["model"] for c in configs("tuned-mine")} == {"lsgan"}
    assert len(configs("tuned-mine-search")) == 1


@pytest.mark.slow
def test_a_small_study_on_digits_from_the_search_to_the_table(room, forked_workers):
    cache = f"paths.cache={room / 'cache'}"
    argv = ("hydra.sweeper.n_trials=1", "model=vae", *SMALL[2:], *SMOKE, cache)
    assert task.train(["-m", "experiment=tuned", *argv]) == 0
    (config,) = configs("tuned")
    assert config["search"]["objective"] == "fd"
    for result in load_results(["study=tuned-search"]):
        assert {score.split for score in result.scores} == {"validation"}
        weights = {s.card["fake"]["weights"] for s in result.scores if s.quantity == "fd"}
        assert weights == {"raw", "ema"}
    (only,) = compare(load_results(["study=tuned"]))
    assert {score.split for r in load_results(["study=tuned"]) for score in r.scores} == {"test"}
    assert any("each model: 1 trial, selected on fd" in note for note in only.notes)
    assert len(only.rows) == 1


# --- mistakes -----------------------------------------------------------------------------------


MISTAKES = [
    (["study=null"], "add study=NAME"),
    (["seed=0"], "set hydra.sweeper.trial_seed and hydra.sweeper.seeds"),
    (["evaluation.split=test"], "the fresh seeds on the test split"),
    (["dataset=digits,mnist"], "start the command once for each"),
    (["model=wgan-gp"], "model=wgan-gp has no ranges to be tuned in: there are vae, gan, vae-gan"),
    (["hydra.sweeper.trial_seed=100"], "has the seed of the trials (100)"),
    (["hydra.sweeper.seeds=[]"], "name seeds, each once"),
    (["hydra.sweeper.sampler=grid"], "another number of trials for each model"),
    (["hydra.sweeper.objective=[fd,elbo]"], "one winner needs one score"),
    (["hydra.sweeper.n_trials=0"], "n_trials=0 is not a number above 0"),
    (["+hydra.sweeper.nix=1"], "hydra.sweeper.nix is no setting of this sweeper"),
    (["+hydra.sweeper.models.mine={own: {}}"], "hydra.sweeper.models.mine names `optimizer`"),
    (["+hydra.sweeper.models.gan.own.model.nix=1"], "there is no setting model.nix"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "sentence"), slow_but(MISTAKES, *MISTAKES[1:4]))
def test_mistakes_are_sentences_before_anything_runs(tune, argv, sentence):
    with pytest.raises(UserMistake) as mistake:
        tune(*argv)
    assert sentence in str(mistake.value)
    assert runs() == []


def test_the_record_of_a_search_can_be_typed():
    """It is an override of Hydra's, as other launchers take no other way."""
    text = "search={objective:fd@ema,value:1e-05,chosen:{model.optimizer.betas:[0.0,0.99]},edge:[]}"
    (parsed,) = OverridesParser.create().parse_overrides([text])
    assert parsed.value() == {
        "objective": "fd@ema", "value": 1e-05, "edge": [],
        "chosen": {"model.optimizer.betas": [0.0, 0.99]},
    }  # fmt: skip


def test_equal_tuning_without_a_sweep_is_refused(room, capfd):
    assert task.train(["experiment=tuned"], worker="stub_worker") == 2
    assert "without -m there would be one: add -m" in capfd.readouterr().err
    assert runs() == []
