"""history.csv."""

import pytest

from fixtures.loggers import read
from genbench.runs.history import read_history
from genbench.training import loggers
from genbench.training.loggers import history as history_module


def test_history_counts_images_and_accepts_new_columns(tmp_path):
    history = history_module.History(tmp_path)
    history.log_metrics({"a": 1.0}, step=64)
    history.log_metrics({"a": 2.0, "b": 0.5}, step=128)
    rows = read(tmp_path)
    assert [row["images"] for row in rows] == ["64", "128"]
    assert [row["b"] for row in rows] == ["", "0.5"]
    assert read_history(tmp_path) == {"a": [(64, 1.0), (128, 2.0)], "b": [(128, 0.5)]}


def test_every_row_says_what_had_been_spent(tmp_path):
    history = history_module.History(tmp_path)
    history.log_metrics({"a": 1.0}, step=64)  # as an earlier version did
    spent = {"seconds": 0.0, "multiply_adds": 10**15}
    loggers.stamp([history], lambda: spent)
    for seconds in (2.5, 4.0):
        spent["seconds"] = seconds
        history.log_metrics({"a": 2.0}, step=128)
    history.log_metrics({"b": 3.0}, step=192)
    assert read_history(tmp_path, "seconds")["a"] == [(2.5, 2.0), (4.0, 2.0)]
    assert read_history(tmp_path, "multiply_adds")["b"] == [(1e15, 3.0)]
    assert read_history(tmp_path, "seconds")["images"] == [(2.5, 128), (4.0, 128), (4.0, 192)]


def test_a_resumed_history_drops_rows_after_the_checkpoint(tmp_path):
    history = history_module.History(tmp_path)
    for images in (64, 128, 192):
        history.log_metrics({"a": float(images)}, step=images)
    again = history_module.History(tmp_path)
    loggers.rewind([again], images=128)
    again.log_metrics({"a": 7.0}, step=192)
    assert [row["a"] for row in read(tmp_path)] == ["64.0", "128.0", "7.0"]


@pytest.mark.parametrize("cut", ["192", "192,0.", "192,0.5,1"])
def test_an_incomplete_last_line_is_dropped(tmp_path, cut):
    history = history_module.History(tmp_path)
    history.log_metrics({"a": 1.0, "b": 3.0}, step=64)
    with (tmp_path / "history.csv").open("a") as file:
        file.write(cut)
    assert read_history(tmp_path) == {"a": [(64, 1.0)], "b": [(64, 3.0)]}
    history_module.History(tmp_path).log_metrics({"a": 2.0}, step=128)
    assert [(row["images"], row["a"]) for row in read(tmp_path)] == [("64", "1.0"), ("128", "2.0")]
