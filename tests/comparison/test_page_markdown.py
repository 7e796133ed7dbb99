"""Curves and pictures of a Markdown report: files beside it."""

import numpy as np
from PIL import Image

from genbench.comparison.page.charts import draw_panels
from genbench.comparison.page.curves import Curve, Panel
from genbench.comparison.page.styles import PALETTE, of_losses, of_methods


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def has(path, colour: str) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return bool((np.abs(pixels.astype(int) - rgb(colour)).max(1) < 8).any())


def test_each_method_is_drawn_in_its_colour_and_losses_in_ink(tmp_path):
    labels = [f"model {n}" for n in range(9)]
    styles = of_methods(labels)
    shown = [labels[0], labels[7]]  # the latter has a dash and a marker of its own
    curves = [
        Curve(label, [1, 2, 3], [1.0, n + 1, 40.0], [], [], 1) for n, label in enumerate(shown)
    ]
    path = draw_panels([Panel("fd", "", curves)], styles, tmp_path / "a" / "curves.png")
    assert all(has(path, PALETTE[place][0]) for place in (0, 7))
    assert not has(path, PALETTE[3][0])
    band = Curve("one", [1, 2], [1.0, float("nan")], [0.5, 1.0], [2.0, 3.0], 3)
    path = draw_panels([Panel("loss", "", [band])], of_losses(["one"]), tmp_path / "loss.png")
    assert has(path, "#1c2024")
