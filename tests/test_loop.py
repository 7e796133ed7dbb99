"""What the loop spares itself changes no number and keeps nothing from anybody."""

import ctypes
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback
from test_acceleration import STEPS, cache, machine, trained  # noqa: F401

from genbench.engine import _steps_per_batch


@pytest.mark.parametrize(
    ("size", "channels", "batch", "every_images", "steps"),
    [
        (8, 1, 64, 64 * 200, 16),  # short steps: as many as there may be at once
        (28, 1, 64, 64 * 200, 16),
        (28, 1, 128, 128 * 200, 8),
        (32, 3, 64, 64 * 200, 4),
        (64, 3, 128, 128 * 200, 1),  # its loop costs nothing in comparison
        (8, 1, 64, 64 * 3, 3),  # the history wants a row
        (8, 1, 64, 1, 1),
    ],
)
def test_short_steps_are_taken_several_at_a_time_but_never_past_a_row(
    size, channels, batch, every_images, steps
):
    data = SimpleNamespace(image_size=size, channels=channels)
    assert _steps_per_batch("auto", data, batch, every_images) == steps
    assert _steps_per_batch(7, data, batch, every_images) == 7


def test_who_wants_to_see_each_backward_does(tmp_path, cache):  # noqa: F811
    """Lightning's own way is taken then, with the same numbers."""

    class Listener(Callback):
        heard = 0

        def on_after_backward(self, *_):
            self.heard += 1

    listener = Listener()
    plain = machine(tmp_path / "a", cache, "model=gan")
    heard = machine(tmp_path / "b", cache, "model=gan")
    heard.trainer.callbacks.append(listener)
    runs = trained(plain), trained(heard)
    assert plain.model._plain_backward and not heard.model._plain_backward
    assert listener.heard == 2 * STEPS
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())
    assert runs[0][1:] == runs[1][1:]


def test_no_step_of_an_optimizer_opens_a_library(tmp_path, cache, monkeypatch):  # noqa: F811
    """Lightning tells PyTorch to look for GPUs through NVML's file, which each step would open."""
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    made = machine(tmp_path, cache, "model=vae")
    opened: list[str] = []
    opening = ctypes.CDLL.__init__

    def spy(self, name, *arguments, **named):
        opened.append(str(name))
        opening(self, name, *arguments, **named)

    begin = made.model.on_train_start

    def on_train_start():
        begin()
        monkeypatch.setattr(ctypes.CDLL, "__init__", spy)

    made.model.on_train_start = on_train_start
    trained(made)
    assert [name for name in opened if "nvidia" in name] == []
