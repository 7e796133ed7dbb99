"""What the table marks as best, how it ranks rows, and the Pareto set."""

from dataclasses import replace

import pytest

from fixtures.comparison import elbo, fd, run, score, seeds_of, strong, table
from genbench.comparison.pareto import undominated
from genbench.errors import UserMistake
from genbench.runs.score import Score


def test_the_best_is_marked_where_it_is_better_than_every_other(tmp_path, finished):
    seeds_of(finished, 10.0, others=[elbo(-80.0)])
    seeds_of(finished, 13.0, model="gan")
    seeds_of(finished, 20.0, model="vae-gan", others=[elbo(-80.2)])
    _, only = table(tmp_path)
    assert strong(only) == [("vae", "FD ↓")]  # ELBOs are not apart
    assert only.rows[0][1].exact["best"]
    assert any("Holm over 2 scores, shown or not, 5 seeds or more" in n for n in only.notes)


@pytest.mark.parametrize("changes", [{"n": 4}, {"images": 64_000}, {"mean": 10.1}])
def test_few_seeds_unequal_budgets_and_chance_mark_nothing(tmp_path, finished, changes):
    seeds_of(finished, 10.0)
    seeds_of(finished, **{"mean": 13.0, "model": "gan"} | changes)
    _, only = table(tmp_path)
    assert strong(only) == []
    assert any("no best is marked" in note for note in only.notes) == ("n" not in changes)


def test_floors_and_values_in_brackets_are_not_the_best_and_stop_no_other(tmp_path, finished):
    seeds_of(finished, 10.0)
    seeds_of(finished, 13.0, model="gan")
    finished([fd(1.0)], images=0, model="replay", **{"budget.images": 0})
    finished([replace(fd(2.0), status="too few images")], model="vae-gan")
    _, only = table(tmp_path)
    assert strong(only) == [("vae", "FD ↓")]


def test_a_mark_is_bold_or_a_star_in_every_readable_format(tmp_path, finished, capsys):
    low = Score("nll_ais", -330.0, "nats", False, {"quantity": "nll_ais"})
    seeds_of(finished, 13.0, others=[replace(low, value=-200.0)])
    seeds_of(finished, 10.0, model="gan", others=[low])
    for form, fd_text, nll_text in (
        ("table", "10 ± 0.63 *", "-330 ± 0.63 *"),
        ("md", "**10 ± 0.63**", "**-330 ± 0.63**"),
        ("html", "<strong>10 ± 0.63</strong>", "<strong>-330 ± 0.63</strong>"),
        ("tex", r"\textbf{10 $\pm$ 0.63}", r"\textbf{$-$330 $\pm$ 0.63}"),
    ):
        text = run(capsys, "--outputs", str(tmp_path), "--format", form)
        assert fd_text in text
        assert nll_text in text
        assert f"{fd_text[:2]}13" not in text


def test_the_pareto_set_of_two_scores_is_told(tmp_path, finished):
    copies = Score("copy_rate_lenet", 0.0, "", False, {"quantity": "copy_rate"})
    for model, distance, rate in (
        ("vae", 20.0, 0.1), ("gan", 10.0, 0.5), ("wgan-gp", 10.0, 0.6), ("vae-gan", 15.0, 0.3),
    ):  # fmt: skip
        finished([fd(distance), replace(copies, value=rate)], model=model)
    finished([fd(1.0)], model="blur")
    rows, only = table(tmp_path, pareto=["fd", "copy_rate"])
    assert [label for label, row in rows.items() if row["Pareto"]] == ["gan", "vae-gan", "vae"]
    assert "Pareto set of FD ↓ and copy rate ↓, by means: gan, vae-gan, vae" in only.notes
    assert any(note.endswith("without one of its scores: blur") for note in only.notes)
    with pytest.raises(UserMistake, match="--pareto fd,recall: no run has a score recall"):
        table(tmp_path, pareto=["fd", "recall"])


def test_a_pareto_set_is_what_is_left_when_the_beaten_are_struck_out():
    points = [(1, 5), (2, 2), (2, 2), (3, 1), (3, 2), (1, 6), (4, 0.5)]
    assert undominated(points) == [0, 1, 2, 3, 6]
    assert undominated([]) == []


def test_final_weights_come_first_and_the_best_ones_can_be_asked_for(tmp_path, finished):
    for model, final, best in (("vae", 10.0, 9.0), ("gan", 11.0, 8.0)):
        finished([replace(fd(best), checkpoint="best"), fd(final)], model=model)
    rows, only = table(tmp_path)
    assert [c.header for c in only.columns][1:3] == ["FD ↓", "FD ↓ best"]
    assert list(rows) == ["vae", "gan"]
    assert not any(note.startswith("FD ↓") for note in only.notes)  # one protocol for both
    rows, _ = table(tmp_path, sort="fd@best")
    assert list(rows) == ["gan", "vae"]
    rows, only = table(tmp_path, metrics=["fd@best"])
    assert [c.header for c in only.columns][:2] == ["model", "FD ↓ best"]


def test_rows_are_ranked_by_any_score_the_better_way_first(tmp_path, finished):
    high = Score("recall_lenet", 0.5, "", True, {"quantity": "recall"})
    finished([fd(10.0), replace(high, value=0.2)])
    finished([fd(11.0), replace(high, value=0.9)], model="gan")
    rows, only = table(tmp_path, sort="recall")
    assert list(rows) == ["gan", "vae"]
    assert "recall ↑" in [column.header for column in only.columns]


def test_a_mark_does_not_depend_on_the_columns_that_are_shown(tmp_path, finished):
    noise = [0.0, 0.5, -0.3, 0.2, -0.4]
    for model, off in (("vae", 0.0), ("gan", 1.05)):
        others = [score(name, noise[i], name != "kid") for i, name in enumerate(("kid", "recall"))]
        best = [replace(fd(9.0 + i / 9), checkpoint="best") for i in range(2)]
        seeds_of(finished, 10.0 + off, others=[*others, best[model == "gan"]], model=model)
    shown = ({}, {"metrics": ["fd@final"]}, {"show_all": True})
    marks = [strong(table(tmp_path, **options)[1]) for options in shown]
    assert marks == [[], [], []]  # the FD alone would be: p = 0.03


def test_a_row_that_lost_runs_is_not_the_best_and_it_is_said(tmp_path, finished, unfinished):
    seeds_of(finished, 10.0, model="gan")
    seeds_of(finished, 13.0)
    for seed in range(5, 20):
        unfinished("diverged", "nan", model="gan", seed=seed)
    _, only = table(tmp_path)
    assert strong(only) == []
    assert "not marked: gan is best in FD among finished runs only, 15 of its runs were lost" in (
        only.notes
    )
    assert not any(cell.exact.get("best") for row in only.rows for cell in row)
