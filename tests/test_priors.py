"""Whole runs with priors: training knows nothing of them, and the kept fits serve what follows."""

import json
from pathlib import Path

import pytest
import torch

from fixtures.training import make, score_again, scores
from genbench import sample, train
from genbench.commands.evaluate import protocol
from genbench.errors import UserMistake
from genbench.runs.config import read_config
from genbench.runs.priors import prior_of
from genbench.runs.result import read_result

SMALL = (
    "prior=[mixture,truncated]",
    "prior.mixture.components=[1,2]",
    "prior.mixture.codes=600",
    "prior.truncated.scale=[0.5]",
)


@pytest.fixture(scope="module")
def both(tmp_path_factory, cache):
    """One training scored as trained, and the same one with priors and a stale fit in its folder."""
    outputs = tmp_path_factory.mktemp("priors")
    plain = make(outputs, cache, "model=vae", run_id="plain")
    under = make(outputs, cache, "model=vae", *SMALL, run_id="under")
    (under / "priors").mkdir()
    (under / "priors" / "mixture-00000000.json").write_text('{"weights": "of another training"}')
    for directory in (plain, under):
        assert train.main([str(directory)]) == 0
    return plain, under


def pictures(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "samples").glob("*-000*.png")}


@pytest.mark.slow
def test_pictures_while_training_are_of_n01_whatever_priors_there_are(both):
    plain, under = both
    assert pictures(plain) == pictures(under)
    assert len([name for name in pictures(plain) if name.startswith("samples-")]) >= 1
    assert len(list((under / "samples").glob("under-*.png"))) == 2
    text = (under / "log.txt").read_text()
    assert (
        "scored under N(0, I) and mixture, truncated; pictures while training are of N(0, I)"
        in text
    )


def test_a_run_with_priors_is_a_seed_of_the_same_training_with_the_same_scores_and_more(both):
    plain, under = (read_result(run) for run in both)
    assert plain.fingerprint == under.fingerprint
    as_trained = [s for s in under.scores if prior_of(s) is None]
    assert [(s.name, s.value, s.protocol) for s in as_trained] == [
        (s.name, s.value, s.protocol) for s in plain.scores
    ]
    kinds = [prior_of(s)["prior"] for s in under.scores if prior_of(s)]
    assert set(kinds) == {"mixture", "truncated"}
    assert under.cost["scoring_seconds"]["prior_fit"] > 0


def test_scored_later_it_gets_what_it_would_have_got_at_once(both):
    plain, under = both
    before = len(read_result(plain).scores)
    assert score_again(plain, *SMALL) == 0
    added = read_result(plain).scores[before:]
    expected = [s for s in read_result(under).scores if prior_of(s)]
    assert all(prior_of(s) for s in added)  # what is drawn as in training is there already
    own = {s.name: s.value for s in added if prior_of(s)["prior"] == "mixture"}
    same = {s.name: s.value for s in expected if prior_of(s)["prior"] == "mixture"}
    del own["prior_seconds"], same["prior_seconds"]
    assert own == same


@pytest.mark.slow
def test_an_evaluation_of_a_run_with_priors_keeps_them(both):
    config = read_config(both[1])
    again = protocol(config, ["evaluation.num_samples=50"])
    assert again["prior"] == config["prior"]
    assert "under_priors_alone" not in again
    assert "prior" not in protocol(config, ["prior=normal"])
    changed = protocol(config, ["prior.truncated.scale=[0.9]"])
    assert changed["prior"]["truncated"]["scale"] == [0.9]
    assert changed["prior"]["mixture"] == config["prior"]["mixture"]
    assert protocol(read_config(both[0]), ["prior=flow"])["under_priors_alone"]


def test_samples_are_drawn_from_a_kept_prior_of_these_weights_alone(both, tmp_path):
    run = both[1]
    files = {}
    for prior in ("normal", "mixture", "truncated-scale-0.5"):
        files[prior] = tmp_path / f"{prior}.png"
        sample.main([str(run), "--num", "4", "--prior", prior, "--out", str(files[prior])])
    assert len({path.read_bytes() for path in files.values()}) == 3
    with pytest.raises(UserMistake, match="keeps no prior flow for these weights"):
        sample.main([str(run), "--prior", "flow"])
    (kept,) = (p for p in (run / "priors").glob("mixture-*.json") if "00000000" not in p.name)
    path = run / "checkpoints" / "final.ckpt"
    state = torch.load(path, weights_only=True)
    name = next(iter(state["state_dict"]))
    changed = state | {"state_dict": state["state_dict"] | {name: state["state_dict"][name] + 1}}
    torch.save(changed, path)
    try:
        with pytest.raises(UserMistake, match="was fitted to the codes of another checkpoint"):
            sample.main([str(run), "--prior", kept.stem])
        with pytest.raises(UserMistake, match="keeps no prior mixture|another checkpoint"):
            sample.main([str(run), "--prior", "mixture"])
    finally:
        torch.save(state, path)
    assert json.loads(kept.read_text())["weights"]


def test_a_prior_that_the_model_cannot_have_is_refused_before_it_trains(tmp_path, cache):
    directory = make(tmp_path, cache, "model=gan", "prior=mixture")
    assert train.main([str(directory)]) == 2
    assert not (directory / "checkpoints").exists()


def test_the_scores_of_a_prior_come_after_those_of_training(both):
    assert scores(both[1])  # by name, the last one counts
    order = [prior_of(score) is not None for score in read_result(both[1]).scores]
    assert order == sorted(order)
