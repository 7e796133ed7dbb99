"""What a table says of the search that its rows' settings come from."""

from fixtures.comparison import fd, table


def record(**changes):
    """A run's record of the search that found its settings."""
    chosen = {"model.optimizer.lr": 0.0031234567, "model.optimizer.betas": [0.0, 0.99]}
    return {
        "trials": 16, "failed": 0, "objective": "fd", "split": "validation", "value": 12.345678,
        "chosen": chosen, "edge": [], **changes,
    }  # fmt: skip


def notes(tmp_path):
    return table(tmp_path)[1].notes


def test_the_budget_of_an_equal_search_and_the_winners_stand_below_the_table(tmp_path, finished):
    edge = ["model.optimizer.lr"]
    for seed in (100, 101):
        finished([fd(10.0)], model="vae", seed=seed, search=record())
        finished([fd(5.0)], model="gan", seed=seed, search=record(value=5.5, failed=2, edge=edge))
    found = notes(tmp_path)
    assert (
        "each model: 16 trials, selected on fd of the validation protocol; the runs here are of seeds "
        "that no trial had"
    ) in found
    lr = "model.optimizer.lr=0.003123 model.optimizer.betas=[0,0.99]"
    assert f"vae, chosen: {lr} (fd 12.35 there)" in found
    doubts = "fd 5.5 there; 2 trials failed; at an end of its range: model.optimizer.lr"
    assert f"gan, chosen: {lr} ({doubts})" in found


def test_unequal_searches_are_called_so(tmp_path, finished):
    finished([fd(10.0)], model="vae", search=record())
    finished([fd(5.0)], model="gan", search=record(trials=32))
    finished([fd(6.0)], model="lsgan")
    finished([fd(0.2)], images=0, model="replay")  # a floor needs no search
    (note,) = [note for note in notes(tmp_path) if "UNEQUAL search" in note]
    assert "gan: 32 trials, selected on fd" in note
    assert "vae: 16 trials" in note
    assert note.endswith("lsgan: none")


def test_a_selection_on_test_scores_is_said(tmp_path, finished):
    finished([fd(10.0)], model="vae", search={"split": "test"})
    finished([fd(5.0)], model="gan", search=None)
    found = [note for note in notes(tmp_path) if "SELECTED ON TEST SCORES" in note]
    assert found == ["vae: SELECTED ON TEST SCORES, which are better than on new images"]


def test_rows_without_a_search_have_no_word_of_it(tmp_path, finished):
    finished([fd(10.0)], model="vae")
    assert not [note for note in notes(tmp_path) if "trials" in note or "SELECTED" in note]
