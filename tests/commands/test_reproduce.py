"""Published numbers beside our own: the rows, their verdicts, and the command."""

import pytest
import yaml

from fixtures.places import slow_but
from genbench.commands import reproduce
from genbench.comparison.reproduction import Claim, find_claim, read_claim, read_claims
from genbench.errors import UserMistake
from genbench.launch.mistakes import compose_checked
from genbench.runs.paths import reproduce_root

CLAIMS = read_claims(reproduce_root())
ROW = {
    "title": "VAE on digits",
    "source": "nobody",
    "published": {"value": 16, "unit": "FD", "protocol": "as here"},
    "band": [10, 20],
    "train": ["model=vae", "budget=smoke", "trainer=smoke", "evaluation.num_samples=64"],
    "seeds": [0, 1],
    "score": {"name": "psnr"},
    "cost": "seconds",
}


@pytest.fixture
def row(tmp_path, monkeypatch):
    """Write a row into a folder of its own; returns a function that changes it."""

    def write(**changes):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**ROW, **changes}))
        monkeypatch.setattr(reproduce, "reproduce_root", lambda: tmp_path)
        return read_claim(tmp_path / "mine.yaml")

    return write


@pytest.mark.parametrize("claim", slow_but(CLAIMS, *CLAIMS[:2]), ids=lambda claim: claim.name)
def test_the_command_of_every_row_composes(claim):
    compose_checked([*claim.train, f"seed={claim.seeds[0]}", f"study={claim.study}"])
    assert claim.source and claim.protocol and claim.cost
    assert claim.band is None or claim.band[0] < claim.band[1]
    if claim.value is not None:
        assert claim.verdict(claim.value) == "inside"
    assert all(one.date and one.machine for one in claim.measured)


def test_a_value_on_either_side_is_outside(row):
    claim = row()
    assert claim.verdict(10) == claim.verdict(20) == "inside"
    assert claim.verdict(9) == "outside, 1 below"
    assert claim.verdict(20.5) == "outside, 0.5 above"
    assert row(band=None).verdict(3) == "no number is published to hold it against"


def test_a_run_is_told_beforehand_and_judged_by_the_mean_of_its_seeds(row, train, capsys, tmp_path):
    row(score={"name": "elbo_discretized-logistic-17", "times": -1}, band=[0, 1])
    asked = []

    def stub(argv):
        asked.append(list(argv))
        told = capsys.readouterr().out
        assert "cost       seconds" in told and "differs" not in told
        return 0

    with pytest.raises(UserMistake, match="have no score elbo_discretized-logistic-17"):
        reproduce.main(["mine", "trainer=cpu"], train=stub)
    assert asked[0][0] == "-m" and {"seed=0,1", "study=reproduce-mine", "trainer=cpu"} <= {
        *asked[0]
    }


def test_the_mean_over_seeds_is_that_of_finished_runs_of_the_study_alone(row):
    from types import SimpleNamespace as Some

    claim: Claim = row(score={"name": "iwae", "times": -1})

    def run(number, seed, value, study="reproduce-mine", status="finished", checkpoint="final"):
        score = Some(name="iwae", checkpoint=checkpoint, value=value)
        return Some(
            run_id=str(number), study=study, status=status, seed=seed, scores=[score],
            cost={"device": "a CPU"}, budget={"seconds": 60.0},
        )  # fmt: skip

    runs = [
        run(1, 0, -90.0), run(2, 1, -92.0), run(3, 1, -94.0),  # a seed run again: the newer counts
        run(4, 2, -10.0, study="other"), run(5, 3, -10.0, status="failed"),
        run(6, 4, -10.0, checkpoint="best"), run(7, 5, None),
    ]  # fmt: skip
    found = claim.of_runs(runs)
    assert found is not None
    assert (found.value, found.seeds, found.machine, found.seconds) == (92.0, 2, "a CPU", 60.0)
    assert claim.of_runs(runs[3:]) is None


def test_the_list_says_what_was_claimed_what_was_measured_and_what_was_not_run(capsys, tmp_path):
    assert reproduce.main(["--outputs", str(tmp_path / "none")]) == 0
    told = capsys.readouterr().out
    assert "vae-mnist-static" in told and "89.78 nats" in told and "89.3 to 90.3" in told
    assert "not run here: needs a GPU, CIFAR-10" in told


def test_show_prints_the_command_and_runs_nothing(capsys):
    def never(argv):
        raise AssertionError(argv)

    assert reproduce.main(["sngan-cifar10", "--show"], train=never) == 0
    told = capsys.readouterr().out
    assert "genbench train -m model=gan-hinge dataset=cifar10" in told
    assert "'model.generator_optimizer.betas=[0.0,0.9]'" in told and "source" in told


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["frobnicate"],
            "there is no row frobnicate to reproduce: choose one of .*vae-mnist-static",
        ),
        (["vae-mnist-static", "model.beta=2"], r"model\.beta=2 changes what is reproduced"),
        (["sngan-cifar10"], "sngan-cifar10 needs a GPU, and none is used here"),
    ],
)
def test_mistakes_are_sentences(argv, sentence, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserMistake, match=sentence):
        reproduce.main(argv, train=lambda argv: 0)


def test_a_row_with_a_key_too_few_or_too_many_is_refused_with_its_file(row, tmp_path):
    with pytest.raises(UserMistake, match=r"mine\.yaml has unknown keys bound: a row has title"):
        row(bound=[1, 2])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"title": "x"}))
    with pytest.raises(UserMistake, match="lacks source, published"):
        read_claim(tmp_path / "mine.yaml")


def test_rows_are_found_by_name():
    assert find_claim("vae-mnist-static", CLAIMS).study == "reproduce-vae-mnist-static"
