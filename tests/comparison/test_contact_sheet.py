"""Titles above columns of pictures."""

import pytest
from PIL import ImageFont

from genbench.comparison.contact_sheet import wrapped

FONT = ImageFont.load_default(size=15)


@pytest.mark.parametrize(
    "text", ["vae", "vae-gan (model.discriminate_reconstructions=true) on digits", "a" * 60]
)
def test_a_title_is_no_wider_than_its_column(text):
    lines = wrapped(text, 120, FONT)
    assert all(0 < FONT.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
