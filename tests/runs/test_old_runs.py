"""Runs that were made before modules moved: read, compared, scored, sampled, resumed, found again.

Commands are the real ones. Where a command has a worker, one run goes through both processes; the others
get in this process what their worker would be handed.
"""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from fixtures import forks
from fixtures.places import slow_but
from fixtures.training import genbench as in_processes
from fixtures.training import go, make, score_again
from genbench import cli, sample
from genbench.runs.result import read_result
from genbench.runs.score import Score
from genbench.runs.status import read_status

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
FINISHED = sorted(path.parent.name for path in OLD_RUNS.glob("*/result.json"))
KILLED = sorted(path.parent.name for path in OLD_RUNS.glob("*/undisturbed.json"))
SETTINGS = ["network.width=8", "trainer=smoke", "budget=smoke", "logger=csv",
            "evaluation.num_samples=500"]  # fmt: skip
# what the default settings were when these runs were made
DEFAULTS_OF_BEFORE = {
    "vae": ["model.optimizer.lr=1e-3"],
    "gan": ["model.generator_optimizer.lr=1e-3", "model.r1_gamma=1.0", "schedule=constant"],
    "vae-gan": [
        "model.autoencoder_optimizer.lr=1e-3",
        "model.autoencoder_optimizer.betas=[0.0,0.99]",
        "model.gamma=0.033",
        "model.r1_gamma=1.0",
        "~model.feature_likelihood",
        "~model.discriminate_reconstructions",
        "schedule=constant",
    ],
    "lsgan": ["model.r1_gamma=1.0"],
    "gan-hinge,wgan-gp,noise,replay,blur,mode-drop": [],
}
# what evaluation=quick was
QUICK_OF_BEFORE = [
    "evaluation.reconstruction=null",
    "evaluation.likelihoods.bounds.posterior_draws=10",
    "evaluation.likelihoods.bounds.importance_draws=500",
    "evaluation.likelihoods.bounds.max_images=500",
]
# quantities whose estimator has another version than in these runs
TAKEN_OTHERWISE = ("copy_rate", "fd_bc", "fd_floor", "iwae", "iwae_posthoc")
# relative, and two of 500 images for scores that are shares of images: processors round differently
NEAR = {"rel": 1e-3, "abs": 4e-3}


@pytest.fixture
def outputs(tmp_path, cache, monkeypatch):
    """A copy of the old runs whose paths are those of this test, and which commands find."""
    for name, folder in {"OUTPUTS": "outputs", "DATA": "data"}.items():
        monkeypatch.setenv(f"GENBENCH_{name}", str(tmp_path / folder))
    monkeypatch.setenv("GENBENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "outputs"
    shutil.copytree(OLD_RUNS, outputs, ignore=shutil.ignore_patterns("README.md"))
    for path in [*outputs.glob("*/config.yaml"), *outputs.glob("*/result.json")]:
        text = path.read_text()
        for key, place in (
            ("outputs", outputs), ("data", tmp_path / "data"), ("root", tmp_path / "data"),
            ("cache", cache),
        ):  # fmt: skip
            word = "data" if key == "root" else key
            text = text.replace(f'"{key}": "{word}"', f'"{key}": "{place}"')
            text = text.replace(f"  {key}: {word}\n", f"  {key}: {place}\n")
        path.write_text(text)
    return outputs


@pytest.fixture
def genbench(capsys):
    """What a command prints; it must succeed."""

    def genbench(*argv: str) -> str:
        capsys.readouterr()
        assert cli.main(argv) == 0
        return capsys.readouterr().out

    return genbench


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def values(scores) -> dict[tuple[str, str, str], list[float | None]]:
    """(value, low, high) by (name, checkpoint, protocol), without scores that are taken otherwise now."""
    read = [Score.from_dict(s) for s in scores]
    return {
        (s.name, s.checkpoint, s.protocol): [s.value, s.low, s.high]
        for s in read
        if s.quantity not in TAKEN_OTHERWISE
    }


def by_name(scores) -> dict[tuple[str, str, int], list[float | None]]:
    """The same by name, checkpoint and place, raw weights before averaged ones: records without cards."""
    found: dict[tuple[str, str, int], list[float | None]] = {}
    for s in scores:
        if not s["name"].startswith(tuple(f"{name}_" for name in TAKEN_OTHERWISE)):
            place = sum(key[:2] == (s["name"], s["checkpoint"]) for key in found)
            found[s["name"], s["checkpoint"], place] = [s["value"], s["low"], s["high"]]
    return found


def check_scores(now, before) -> None:
    """Every score of before is there, under the same protocol and with the same value."""
    assert set(before) <= set(now)
    for key, numbers in before.items():
        for number, old in zip(now[key], numbers, strict=True):
            assert number == (old if old is None else pytest.approx(old, **NEAR)), key


def test_runs_lists_them(outputs, genbench):
    rows = table(genbench("runs", "--format", "csv"))
    statuses = {row["run"]: row["status"] for row in rows}
    assert statuses == dict.fromkeys(FINISHED, "finished") | dict.fromkeys(KILLED, "interrupted")


def test_compare_has_a_row_for_each(outputs, genbench):
    assert len(table(genbench("compare", "study=old", "--format", "csv"))) == len(FINISHED)


@pytest.mark.parametrize("name", ["vae", "gan-killed"])
def test_show_describes_one(outputs, genbench, name):
    assert name in genbench("show", name)


@pytest.mark.slow
def test_a_study_begun_before_the_move_finds_its_runs(outputs, genbench):
    printed = ""
    for models, settings in DEFAULTS_OF_BEFORE.items():
        argv = ["train", "-m", "study=old", f"model={models}", *settings, *SETTINGS]
        printed += genbench(*argv, *QUICK_OF_BEFORE)
    assert printed.count("(there already)") == len(FINISHED)
    assert len(list(outputs.iterdir())) == len(FINISHED) + len(KILLED)


@pytest.mark.slow
def test_a_new_seed_is_in_the_row_of_an_old_run_and_the_old_seed_gives_its_scores(
    outputs, cache, genbench
):
    settings = ["model=vae", "study=new", *DEFAULTS_OF_BEFORE["vae"], *SETTINGS, *QUICK_OF_BEFORE]
    for seed in "01":
        run = make(outputs, cache, *settings, f"seed={seed}", run_id=f"new-{seed}", basis=())
        assert go(run) == 0
    old, new = read_result(outputs / "vae"), read_result(outputs / "new-0")
    assert new.fingerprint == old.fingerprint
    check_scores(values(map(_plain, new.scores)), values(map(_plain, old.scores)))
    (row,) = table(genbench("compare", "vae", "new-1", "--format", "csv"))
    assert row["fd_lenet-digits-v1 n"] == "2"


def _plain(score):
    return score.to_dict()


@pytest.mark.parametrize("name", slow_but(FINISHED, "vae-gan", "noise"))
def test_an_old_run_scored_again_has_the_scores_that_it_had(outputs, name):
    stored = json.loads((outputs / name / "result.json").read_text())["scores"]
    assert score_again(outputs / name) == 0
    (file,) = (outputs / name / "evaluations").glob("*.json")
    check_scores(values(json.loads(file.read_text())["scores"]), values(stored))


@pytest.mark.parametrize("name", ["vae-gan", "mode-drop"])
def test_an_old_run_can_be_sampled(outputs, tmp_path, name):
    picture = tmp_path / "samples.png"
    assert sample.main([str(outputs / name), "--num", "4", "--out", str(picture)]) == 0
    assert picture.exists()


def check_resumed(run: Path) -> None:
    """A run that was killed has the scores of an undisturbed one."""
    undisturbed = json.loads((run / "undisturbed.json").read_text())
    assert read_status(run).status == "finished"
    check_scores(
        by_name([_plain(score) for score in read_result(run).scores]), by_name(undisturbed)
    )


@pytest.mark.parametrize("name", slow_but(KILLED))
def test_an_old_run_that_was_killed_is_resumed_to_the_scores_of_an_undisturbed_one(outputs, name):
    assert go(outputs / name, "--resume") == 0
    check_resumed(outputs / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [("resume", "gan-killed"), ("evaluate", "vae-gan"), ("sample", "vae", "--num", "4")],
    ids=lambda argv: argv[0],
)
def test_a_command_hands_its_worker_an_old_run(outputs, cache, tmp_path, argv):
    start = in_processes if argv[0] == "resume" else forks.genbench
    done = start(*argv, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    run = outputs / argv[1]
    if argv[0] == "resume":
        check_resumed(run)
    else:
        assert list(run.glob("evaluations/*.json" if argv[0] == "evaluate" else "samples/*.png"))
