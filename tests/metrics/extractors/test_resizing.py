"""Resizing against torch-fidelity and Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from fixtures.extractors import draw_pixels
from genbench.metrics.extractors.resizing import pil_bicubic, tf1_bilinear


@pytest.mark.parametrize("size", [8, 28, 32, 299, 400])
def test_resizing_as_tensorflow_1_is_that_of_torch_fidelity_bit_for_bit(size):
    images = draw_pixels(size=size).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(299, 299), align_corners=False
    )
    assert torch.equal(tf1_bilinear(images), expected)


@pytest.mark.parametrize("size", [8, 28, 32, 299, 400])
def test_resizing_as_pillow_is_that_of_pillow(size):
    images = draw_pixels(n=1, size=size).float()
    for found, channel in zip(pil_bicubic(images)[0], images[0], strict=True):
        expected = Image.fromarray(channel.numpy()).resize((299, 299), Image.Resampling.BICUBIC)
        assert np.allclose(found.numpy(), np.asarray(expected).clip(0, 255), atol=1e-3)
