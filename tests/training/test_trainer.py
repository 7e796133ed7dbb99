"""Shortcuts of the training loop change no number and skip no callback."""

import csv
import ctypes
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback

from fixtures.trainers import FEW, engine, trained
from fixtures.training import scores
from genbench.data.stream import StreamPlan
from genbench.training.trainer import _steps_per_batch


@pytest.mark.parametrize(
    ("size", "channels", "batch", "steps"),
    [
        (8, 1, 64, 16),  # short steps: as many as there may be at once
        (28, 1, 64, 16),
        (28, 1, 128, 8),
        (32, 3, 64, 4),
        (64, 3, 128, 1),  # its loop costs nothing in comparison
    ],
)
def test_short_steps_are_taken_several_at_a_time(size, channels, batch, steps):
    data = SimpleNamespace(image_size=size, channels=channels)
    assert _steps_per_batch("auto", data, batch) == steps
    assert _steps_per_batch(7, data, batch) == 7


@pytest.mark.parametrize("stops", [[], [64], [100], [1], [100, 77, 1000]])
@pytest.mark.parametrize("portion", [1, 5, 16])
def test_a_portion_ends_with_the_first_step_that_reaches_a_stop(stops, portion):
    plan = StreamPlan(
        seed=0, batch_size=16, pieces=3, steps=90, steps_per_batch=portion, stops=stops
    )
    ends = [0]
    while ends[-1] < 90:
        ends.append(plan.end(ends[-1]))
    reached = {s for s in range(1, 91) for v in stops if s * 16 // v > (s - 1) * 16 // v}
    assert reached <= set(ends)
    for begin, end in pairwise(ends):  # as long as may be
        assert end == min([begin + portion, 90, *(s for s in reached if s > begin)])


@pytest.mark.slow
def test_selection_and_logs_do_not_depend_on_steps_per_batch(start):
    settings = ["model=gan", "selection=fd", "selection.checks=3", "budget.images=1600"]
    settings += ["trainer.samples=2", "trainer.log_every_images=200"]
    runs = [start(*settings, f"trainer.steps_per_batch={n}")[0] for n in (1, 7, "auto")]

    def seen(run):
        rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
        timeless = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
        return timeless, scores(run), sorted(p.name for p in (run / "samples").iterdir())

    first, *others = [seen(run) for run in runs]
    assert all(other == first for other in others)
    assert [int(row["images"]) for row in first[0] if row["selection/fd"]] == [576, 1088, 1600]


def test_a_callback_with_on_after_backward_is_called_after_each_backward(tmp_path, cache):
    """Then Lightning's wrapper of backward is used, with the same numbers."""

    class Listener(Callback):
        heard = 0

        def on_after_backward(self, *_):
            self.heard += 1

    listener = Listener()
    plain = engine(tmp_path / "a", cache, "model=gan")
    heard = engine(tmp_path / "b", cache, "model=gan")
    heard.trainer.callbacks.append(listener)
    runs = trained(plain), trained(heard)
    direct = [made.training._stepper.backward is torch.autograd.backward for made in (plain, heard)]
    assert direct == [True, False]
    assert listener.heard == 2 * FEW
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())
    assert runs[0][1:] == runs[1][1:]


def test_optimizer_steps_do_not_open_nvml(tmp_path, cache, monkeypatch):
    """Lightning tells PyTorch to look for GPUs through NVML's file, which each step would open."""
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    made = engine(tmp_path, cache, "model=vae")
    opened: list[str] = []
    opening = ctypes.CDLL.__init__

    def spy(self, name, *arguments, **named):
        opened.append(str(name))
        opening(self, name, *arguments, **named)

    begin = made.training.on_train_start

    def on_train_start():
        begin()
        monkeypatch.setattr(ctypes.CDLL, "__init__", spy)

    made.training.on_train_start = on_train_start
    trained(made)
    assert [name for name in opened if "nvidia" in name] == []
