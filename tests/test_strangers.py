"""Models that a user wrote from the contract alone are trained, scored, resumed and compared."""

import json
from pathlib import Path

import pytest
import yaml

from fixtures.callbacks import stop
from fixtures.training import SMOKE, genbench, go, make, score_again
from genbench.runs.result import read_result
from genbench.runs.status import read_status

ENCODER = {
    "_target_": "genbench.networks.heads.GaussianEncoder",
    "trunk": "${network.trunk}",
    "latent_dim": "${network.latent_dim}",
}
CRITIC = {"_target_": "genbench.networks.heads.Discriminator", "trunk": "${network.trunk}"}
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "fused": True}
NETWORKS = {
    "encoding": ("Encoding", {"encoder": ENCODER, "likelihood": "${likelihood}"}),
    "forgery": ("Forgery", {"connoisseur": CRITIC}),
    "trio": ("Trio", {"encoder": ENCODER, "judge": CRITIC}),
}
MOVES = {
    "encoding": {"both": 10},
    "forgery": {"art critic": 20, "forger": 10},
    "trio": {"judge": 10, "reader": 10, "painter": 10},
}
ROWS = {  # through each network, in batches per step
    "encoding": {"decoder": 1, "encoder": 1},
    "forgery": {"decoder": 2, "connoisseur": 5},
    "trio": {"decoder": 3, "encoder": 2, "judge": 3},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The user's working directory, with a folder of configs."""
    folder = tmp_path_factory.mktemp("user")
    for name, (kind, networks) in NETWORKS.items():
        config = {
            "_target_": f"fixtures.strangers.{kind}",
            "decoder": "${network.decoder}",
            **networks,
            "latent_dim": "${network.latent_dim}",
            "optimizer": ADAM,
        }
        path = folder / "genbench_configs" / "model" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def call(place, cache):
    def call(*arguments: str, code: int = 0) -> str:
        done = genbench(*arguments, cwd=place, cache=cache)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    return call


def scores(run: Path) -> dict[str, float | None]:
    return {f"{s.checkpoint}/{s.name}": s.value for s in read_result(run).scores}


@pytest.mark.slow
def test_models_that_know_only_the_contract_are_trained_scored_resumed_and_compared(
    place, call, cache, capsys, monkeypatch
):
    monkeypatch.setenv("GENBENCH_CONFIG_PATH", str(place / "genbench_configs"))
    names, outputs = [*NETWORKS], place / "outputs"
    before = {}
    for name in names:
        assert go(make(outputs, cache, f"model={name}", "study=mine", run_id=name)) == 0
        assert f"{name} on digits" in capsys.readouterr().out
        result = read_result(outputs / name)
        assert result.status == "finished"
        assert result.budget["moves"] == MOVES[name]
        assert result.budget["rows"] == {k: n * 640 for k, n in ROWS[name].items()}
        assert result.budget["real_images"] == (1280 if name == "forgery" else 640)
        assert result.budget["generator_steps"] == 10
        others = sum(MOVES[name].values()) - 10
        assert result.budget["discriminator_steps"] == others
        before[name] = scores(outputs / name)
        assert before[name]["final/fd_lenet-digits-v1"] > 0
        likely = "final/elbo_discretized-logistic-17" in before[name]
        assert likely == (name == "encoding")

        parts = [f"model={name}", "study=parts", "trainer.steps_per_batch=1", stop(320)]
        directory = make(outputs, cache, *parts, run_id=f"{name}-parts")
        assert go(directory) == 75
        assert read_status(directory).status == "interrupted"
        assert go(directory, "--resume") == 0
        assert scores(directory) == before[name]
        again = read_result(directory).budget
        assert again["moves"] == MOVES[name] and again["rows"] == result.budget["rows"]

    for name in names:
        assert score_again(outputs / name, "evaluation.num_samples=300") == 0
        assert len(scores(outputs / name)) >= len(before[name])
        assert [*(outputs / name / "evaluations").glob("*.json")]
    table = json.loads(call("compare", "study=mine", "--format", "json").partition("\ngenbench")[0])
    assert all(name in json.dumps(table) for name in names)


@pytest.mark.slow
def test_a_model_that_breaks_the_contract_is_refused_before_training(
    place, call, cache, capsys, monkeypatch
):
    broken = place / "genbench_configs" / "model"
    base = yaml.safe_load((broken / "trio.yaml").read_text())
    cases = {
        "silent": "Silent.step returns NoneType, but it must yield its moves",
        "unknown": "Unknown.step moves 'sculptor', but its players are judge, reader, painter",
        "uncounted": "Uncounted.counted is '': name the player that owns the decoder",
    }
    (place / "earlier.py").write_text("from genbench.interfaces import GenerativeModel\n")
    (broken / "earlier.yaml").write_text(yaml.safe_dump(base | {"_target_": "earlier.Model"}))
    said = call("train", *SMOKE, "model=earlier", code=2)
    assert "imports genbench.interfaces, which is not there" in said
    assert "genbench.models.contract" in said

    (place / "broken.py").write_text(
        "from fixtures.strangers import Trio\n"
        "from genbench.models.contract import Move\n"
        "class Silent(Trio):\n    def step(self, images): pass\n"
        "class Unknown(Trio):\n    def step(self, images): yield Move('sculptor', lambda: 0)\n"
        "class Uncounted(Trio):\n    counted = ''\n"
    )
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("GENBENCH_CONFIG_PATH", str(place / "genbench_configs"))
    for name, sentence in cases.items():
        config = base | {"_target_": f"broken.{name.capitalize()}"}
        (broken / f"{name}.yaml").write_text(yaml.safe_dump(config))
        assert go(make(place / "outputs", cache, f"model={name}")) == 2
        assert sentence in capsys.readouterr().err
