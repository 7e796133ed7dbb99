"""Weights from checkpoints on disk."""

import pytest
import torch

from genbench.errors import UserMistake
from genbench.training import loading


@pytest.mark.parametrize("kept", [0, 300])
def test_a_checkpoint_that_was_cut_off_is_named(tmp_path, kept):
    model, path = torch.nn.Linear(2, 2), tmp_path / "final.ckpt"
    torch.save({"state_dict": model.state_dict()}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserMistake, match="final.ckpt is damaged or half copied"):
        loading.has_weights(model, path)
