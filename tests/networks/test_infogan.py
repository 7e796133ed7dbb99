"""The InfoGAN network: sizes, known counts, norms."""

import pytest
import torch
from torch import nn

from genbench.errors import UserMistake
from genbench.networks.infogan import InfoGANDecoder, InfoGANTrunk


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_decoder_and_trunk_fit_every_size_that_four_divides(size, norm):
    decoder, trunk = InfoGANDecoder(size, 3, 5, norm=norm), InfoGANTrunk(size, 3, norm=norm).eval()
    images = decoder(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    shapes = [tuple(stage.shape[1:]) for stage in trunk.features(images)]
    assert shapes == [(64, size // 2, size // 2), (128, size // 4, size // 4), (1024,)]
    torch.testing.assert_close(trunk(images), trunk.features(images)[-1])
    norms = [m for m in decoder.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == (3 if norm == "batch" else 0)


def test_the_counts_are_those_of_the_paper_s_layers():
    fully = 28 // 4 * 28 // 4 * 128  # 6272
    trunk = (16 * 64 + 64) + (16 * 64 * 128 + 128) + (fully * 1024 + 1024)
    assert count(InfoGANTrunk(28, 1)) == trunk
    decoder = (64 * 1024 + 1024) + (1024 * fully + fully) + (16 * 128 * 64 + 64) + (16 * 64 + 1)
    assert count(InfoGANDecoder(28, 1, 64, norm="none")) == decoder
    assert count(InfoGANDecoder(28, 1, 64)) == decoder + 2 * (1024 + fully + 64)


@pytest.mark.parametrize("size", [2, 30])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserMistake, match=f"{size} pixels a side cannot be"):
        InfoGANTrunk(size, 1)


def test_an_unknown_norm_is_refused():
    with pytest.raises(UserMistake, match="'group' is not one of batch, none"):
        InfoGANDecoder(8, 1, 4, norm="group")
