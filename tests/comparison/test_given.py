"""Models that were told labels beside those that were not: other columns, and rows by their condition."""

from dataclasses import replace

from fixtures.comparison import card, fd, make_config, table
from genbench.comparison.settings import settings_of
from genbench.runs.score import Score


def test_samples_by_label_and_without_stand_in_columns_and_rows_of_their_own(tmp_path, finished):
    own = card()
    labels = {"condition": "class", "drawn_from": "train", "seed": 0}
    told = replace(fd(9.0), card=own | {"fake": own["fake"] | {"labels": labels}})
    bound = {"quantity": "elbo", "likelihood": "gaussian"}
    finished([fd(10.0), Score("elbo_gaussian", -80.0, "nats", True, bound)])
    arena = {"condition": "class", "label_dropout": 0.1, "label_dim": 32}
    elbo = Score("elbo_gaussian", -70.0, "nats", True, bound | {"given": "class"})
    finished([told, elbo], arena=arena)
    rows, only = table(tmp_path)
    heads = {column.header for column in only.columns}
    assert {"FD ↓", "FD ↓ given class", "ELBO ↑", "ELBO ↑ given class"} <= heads
    plain = rows["vae (arena.condition=none, no arena.label_dropout)"]
    assert (plain["FD ↓"], plain["FD ↓ given class"]) == ("10", "")
    other = rows["vae (arena.condition=class, arena.label_dropout=0.1)"]
    assert (other["FD ↓"], other["FD ↓ given class"]) == ("", "9")


def test_a_config_of_before_there_were_conditions_is_that_of_none():
    old, new = make_config(), make_config(arena={"condition": "none", "label_dim": 8})
    assert settings_of(old) == settings_of(new)
    assert settings_of(old)["arena.condition"] == "none"
