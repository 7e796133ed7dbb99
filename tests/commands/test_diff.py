"""`genbench diff`: settings, scores and curves of two runs."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from fixtures.comparison import elbo, fd
from genbench.cli import main
from genbench.commands import diff
from genbench.errors import UserMistake


@pytest.fixture
def pair(tmp_path, finished):
    good = replace(fd(5.0), low=4.5, high=5.5)
    bad = replace(fd(8.0), low=7.0, high=9.0)
    a = finished([good, replace(elbo(-80.0), low=-85.0, high=-75.0)], "a", seed=0)
    b = finished([bad, replace(elbo(-78.0), low=-83.0, high=-73.0)], "b", seed=3, model="gan")
    (a / "history.csv").write_text("images,loss,only\n100,3,1\n200,2,1\n300,1,1\n")
    (b / "history.csv").write_text("images,loss\n100,5\n200,4\n250,3.5\n")
    return tmp_path


def tables(pair, capsys, *more):
    assert main(["diff", "a", "b", "--outputs", str(pair), "--format", "json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_settings_scores_and_curves_that_differ(pair, capsys):
    settings, scores, curves = tables(pair, capsys)
    found = {
        row["setting"]["key"]: (row["A"]["value"], row["B"]["value"]) for row in settings["rows"]
    }
    assert found["seed"] == ("0", "3") and found["choices.model"] == ("vae", "gan")
    assert not [key for key in found if key.startswith(("run_id", "paths"))]
    assert settings["notes"] == ["two methods"]
    rows = {row["score"]["name"]: row for row in scores["rows"]}
    assert rows["fd_lenet"]["A"] == {"value": 5.0, "low": 4.5, "high": 5.5, "status": "ok"}
    assert rows["fd_lenet"]["B - A"] == {"value": 3.0}
    (row,) = curves["rows"]
    assert (row["curve"]["name"], row["images"]["value"]) == ("loss", 200.0)
    assert (row["A"]["value"], row["B"]["value"]) == (2.0, 4.0)


def test_only_what_is_apart_is_bold(pair, capsys):
    assert main(["diff", "a", "b", "--outputs", str(pair), "--format", "md"]) == 0
    printed = capsys.readouterr().out
    assert "**5 [4.5, 5.5]**" in printed  # of a distance the smaller one
    assert "-80 [-85, -75]" in printed and "**-78" not in printed


def test_scores_of_different_cards_stand_apart(tmp_path, finished, capsys):
    finished([fd(5.0)], "a")
    other = fd(6.0)
    finished([replace(other, card={**other.card, "fake": {"n": 7}})], "b")
    _, scores, _ = tables(tmp_path, capsys)
    assert [row["B - A"] for row in scores["rows"]] == [None, None]
    assert "not to be compared" in scores["notes"][1]


def test_pictures_and_curves_are_drawn(pair, capsys):
    for name in "ab":
        (pair / name / "samples").mkdir()
        Image.new("L", (40, 40)).save(pair / name / "samples" / "samples-00000100.png")
    pictures, curves = pair / "out" / "p.png", pair / "out" / "c.png"
    tables(pair, capsys, "--pictures", str(pictures), "--curves", str(curves))
    with Image.open(pictures) as both, Image.open(curves) as drawn:
        assert both.width > 80 and drawn.width > 100
    with pytest.raises(UserMistake, match=r"give the name of a \.png file"):
        diff.main(["a", "b", "--outputs", str(pair), "--pictures", str(pair / "p.nothing")])


def test_one_run_is_refused(pair):
    with pytest.raises(UserMistake, match="a and latest are one run|name two"):
        diff.main(["a", "a", "--outputs", str(pair)])
