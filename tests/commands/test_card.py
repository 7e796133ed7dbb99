"""`genbench card`: what a hub shows of a run."""

import json
import re

import pytest
import yaml

from fixtures.comparison import elbo, fd
from genbench.cli import main
from genbench.commands import card
from genbench.errors import UserMistake


def written(finished, tmp_path, *more, **config) -> str:
    finished([fd(5.0), elbo(-80.0)], "run", **config)
    out = tmp_path / "README.md"
    assert main(["card", "run", "--outputs", str(tmp_path), "--out", str(out), *more]) == 0
    return out.read_text()


def test_a_card_has_scores_their_cards_the_licence_and_the_settings(finished, tmp_path):
    text = written(finished, tmp_path, "--licence", "cc-by-4.0")
    front = yaml.safe_load(text.split("---")[1])
    assert (front["license"], front["datasets"]) == ("cc-by-4.0", ["digits"])
    assert "# vae on digits, seed 0" in text
    assert re.search(r"\| fd\\_lenet \| 5 \|", text) and re.search(
        r"\| elbo\\_gaussian \| -80 \|", text
    )
    cards = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)]
    assert cards == [dict(fd(5.0).card), dict(elbo(-80.0).card)]
    assert "| model.lr | 0.001 |" in text


def test_a_licence_is_never_guessed(finished, tmp_path):
    text = written(finished, tmp_path)
    assert "license" not in yaml.safe_load(text.split("---")[1])
    assert "licence of the weights: not stated" in text


def test_text_of_a_run_is_no_markup(finished, tmp_path):
    text = written(finished, tmp_path, "--licence", "<script>|[x](y)")
    body = text.split("---", 2)[2]
    assert "<script" not in body and r"\[x\](y)" in body


def test_a_run_that_has_not_finished_has_none(unfinished, tmp_path):
    run = unfinished("failed", "x")
    with pytest.raises(UserMistake, match="is failed: a card is of a finished run"):
        card.main([run.name, "--outputs", str(tmp_path)])
