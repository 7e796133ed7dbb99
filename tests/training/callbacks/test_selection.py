"""The best weights: selected on the validation split and scored beside the final ones."""

from types import SimpleNamespace

import pytest
import torch

from fixtures.comparison import fd, table
from fixtures.evaluation import CPU, make_decoder
from fixtures.training import make, scores
from genbench import train
from genbench.runs.history import read_history
from genbench.runs.result import read_result


@pytest.mark.slow
def test_the_best_weights_are_scored_beside_the_final_ones_and_change_nothing(tmp_path, cache):
    settings = ["model=gan", "budget.images=2560", "trainer.steps_per_batch=1"]
    selection = ["selection=fd", "selection.num_samples=256", "selection.checks=5"]
    plain = make(tmp_path, cache, *settings, run_id="plain")
    chosen = make(tmp_path, cache, *settings, *selection, run_id="chosen")
    assert train.main([str(plain)]) == 0
    assert train.main([str(chosen)]) == 0
    result = read_result(chosen)
    by_checkpoint = {"final": {}, "best": {}}
    for score in result.scores:
        by_checkpoint[score.checkpoint][score.name] = score
    assert {name: s.value for name, s in by_checkpoint["final"].items()} == scores(plain)
    name = "fd_lenet-digits-v1"
    assert by_checkpoint["best"][name].protocol == by_checkpoint["final"][name].protocol
    assert "fd_floor_lenet-digits-v1" not in by_checkpoint["best"]
    assert result.budget["images"] == 2560
    assert (chosen / "checkpoints" / "best.ckpt").exists()
    history = read_history(chosen)["selection/fd"]
    assert [images for images, _ in history] == [512, 1024, 1536, 2048, 2560]


def test_best_weights_that_are_the_final_ones_are_scored_once(tmp_path):
    model, scored, path = make_decoder(), [], tmp_path / "best.ckpt"

    def evaluation(model, data, device, directory=None):
        scored.append(directory)
        return [fd(float(len(scored)))]

    brief = SimpleNamespace(model=model, data=None, directory=tmp_path)
    engine = SimpleNamespace(brief=brief, device=CPU, steps=1)
    selection = SimpleNamespace(path=path)
    made = train.Prepared({}, engine, evaluation, None, selection)
    torch.save({"state_dict": model.state_dict()}, path)
    equal = train.score(evaluation, engine, made)
    assert [(s.checkpoint, s.value) for s in equal] == [("final", 1.0), ("best", 1.0)]
    assert scored == [tmp_path]
    changed = {name: value + 1 for name, value in model.state_dict().items()}
    torch.save({"state_dict": changed}, path)
    other = train.score(evaluation, engine, made)
    assert [(s.checkpoint, s.value) for s in other] == [("final", 2.0), ("best", 3.0)]
    assert scored == [tmp_path, tmp_path, None]  # what is kept for the final weights is not theirs


def test_selection_with_the_seed_of_the_evaluation_is_refused_before_training(
    tmp_path, cache, capsys
):
    never = "+callbacks.never._target_=fixtures.callbacks.NeverTrained"
    run = make(tmp_path, cache, "model=gan", "selection=fd", "selection.seed=0", never)
    assert train.main([str(run)]) == 2
    assert "selection.seed=0 is evaluation.seed" in capsys.readouterr().err


@pytest.mark.parametrize(("final", "said"), [(11.0, False), (49.0, True)])
def test_the_table_has_final_and_best_and_notes_a_large_difference(tmp_path, finished, final, said):
    from dataclasses import replace

    finished([fd(final), replace(fd(10.0), checkpoint="best")])
    rows, only = table(tmp_path)
    assert (rows["vae"]["FD ↓"], rows["vae"]["FD ↓ best"]) == (f"{final:g}", "10")
    assert any("4.9 times its best" in note for note in only.notes) == said
