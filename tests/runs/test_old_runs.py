"""Runs that were made before modules moved: read, compared, scored, sampled, resumed, found again.

Every command is the real one, in a process of its own.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    ],
    "gan-hinge,lsgan,wgan-gp,noise,replay,blur,mode-drop": [],
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def outputs(tmp_path, cache):
    """A copy of the old runs whose paths are those of this test."""
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


def genbench(outputs: Path, cache: Path, *argv: str) -> str:
    """What a command prints; it must succeed."""
    environment = os.environ | {
        "GENBENCH_OUTPUTS": str(outputs),
        "GENBENCH_CACHE": str(cache),
        "GENBENCH_DATA": str(outputs.parent / "data"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "genbench", *argv], capture_output=True, text=True, env=environment,
        cwd=outputs.parent, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def test_runs_lists_them(outputs, cache):
    rows = table(genbench(outputs, cache, "runs", "--format", "csv"))
    statuses = {row["run"]: row["status"] for row in rows}
    assert statuses == dict.fromkeys(FINISHED, "finished") | dict.fromkeys(KILLED, "interrupted")


def test_compare_has_a_row_for_each(outputs, cache):
    rows = table(genbench(outputs, cache, "compare", "study=old", "--format", "csv"))
    assert len(rows) == len(FINISHED)


@pytest.mark.parametrize("name", ["vae", "gan-killed"])
def test_show_describes_one(outputs, cache, name):
    assert name in genbench(outputs, cache, "show", name)


def test_a_study_begun_before_the_move_finds_its_runs(outputs, cache):
    printed = ""
    for models, settings in DEFAULTS_OF_BEFORE.items():
        argv = ["train", "-m", "study=old", f"model={models}", *settings, *SETTINGS]
        printed += genbench(outputs, cache, *argv, *QUICK_OF_BEFORE)
    assert printed.count("(there already)") == len(FINISHED)
    assert len(list(outputs.iterdir())) == len(FINISHED) + len(KILLED)


@pytest.mark.slow
def test_a_new_seed_is_in_the_row_of_an_old_run_and_the_old_seed_gives_its_scores(outputs, cache):
    for seed in "01":
        argv = ["train", "model=vae", "study=new", f"seed={seed}", f"run_id=new-{seed}"]
        settings = [*DEFAULTS_OF_BEFORE["vae"], *SETTINGS, *QUICK_OF_BEFORE]
        genbench(outputs, cache, *argv, *settings)
    old, new = read_result(outputs / "vae"), read_result(outputs / "new-0")
    assert new.fingerprint == old.fingerprint
    check_scores(values(map(_plain, new.scores)), values(map(_plain, old.scores)))
    chosen = ["vae", "new-1"]
    (row,) = table(genbench(outputs, cache, "compare", *chosen, "--format", "csv"))
    assert row["fd_lenet-digits-v1 n"] == "2"


def _plain(score):
    return score.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", FINISHED)
def test_an_old_run_scored_again_has_the_scores_that_it_had(outputs, cache, name):
    stored = json.loads((outputs / name / "result.json").read_text())["scores"]
    genbench(outputs, cache, "evaluate", name)
    (file,) = (outputs / name / "evaluations").glob("*.json")
    check_scores(values(json.loads(file.read_text())["scores"]), values(stored))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae-gan", "mode-drop"])
def test_an_old_run_can_be_sampled(outputs, cache, name):
    picture = outputs.parent / "samples.png"
    genbench(outputs, cache, "sample", name, "--num", "4", "--out", str(picture))
    assert picture.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_an_old_run_that_was_killed_is_resumed_to_the_scores_of_an_undisturbed_one(
    outputs, cache, name
):
    undisturbed = json.loads((outputs / name / "undisturbed.json").read_text())
    genbench(outputs, cache, "resume", name)
    assert read_status(outputs / name).status == "finished"
    scores = [score.to_dict() for score in read_result(outputs / name).scores]
    check_scores(by_name(scores), by_name(undisturbed))
