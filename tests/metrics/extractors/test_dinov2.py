"""DINOv2 at random weights against an independent implementation, and as an extractor of a run."""

import pytest
import torch

from fixtures.training import make
from genbench import train
from genbench.errors import UserMistake
from genbench.metrics.extractors import dinov2
from genbench.metrics.extractors.dinov2 import DINOv2, Network
from genbench.runs.result import read_result


def randomly(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    return network.eval()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file as its authors publish it, of a network small enough for a test."""
    monkeypatch.setitem(dinov2.ARCHITECTURES, "vits", (24, 2, 3))
    path = tmp_path / "weights.pth"
    torch.save(randomly(Network(24, 2, 3, grid=16)).state_dict(), path)
    return path


@pytest.mark.slow
def test_the_network_is_that_of_an_independent_implementation():
    timm = pytest.importorskip("timm", reason="timm is a tool of the tests")
    own = randomly(Network(48, 3, 4, grid=16))
    peer = timm.models.VisionTransformer(
        img_size=224,
        patch_size=14,
        embed_dim=48,
        depth=3,
        num_heads=4,
        init_values=1.0,
        num_classes=0,
    ).eval()
    state = {k: v for k, v in own.state_dict().items() if k != "mask_token"}
    peer.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(own(images), peer(images), atol=1e-5, rtol=1e-5)


def test_positions_are_stretched_to_another_grid_and_kept_on_their_own():
    network = randomly(Network(24, 1, 3, grid=37))  # the published files: 518 pixels
    assert network.positions(37) is network.pos_embed
    stretched = network.positions(16)
    assert stretched.shape == (1, 1 + 16**2, 24)
    torch.testing.assert_close(stretched[:, :1], network.pos_embed[:, :1])


def test_features_are_those_of_the_published_file_and_its_digest_is_in_the_card(published):
    extractor = DINOv2(architecture="vits", path=str(published), sha256=None)
    extractor.prepare()
    pixels = torch.randint(0, 256, (3, 1, 20, 20), dtype=torch.uint8)
    features = extractor(pixels, 256)
    assert features.features.shape == (3, 24)
    assert features.logits.shape == (3, 0)
    assert len(extractor.card["sha256"]) == 64
    torch.testing.assert_close(
        features.features, extractor(pixels.expand(-1, 3, -1, -1), 256).features
    )


def test_missing_other_and_foreign_weights_are_answered(published, tmp_path):
    with pytest.raises(UserMistake, match="dinov2_vits14_pretrain.pth"):
        DINOv2(architecture="vits", path=None, sha256=None).prepare()
    with pytest.raises(UserMistake, match="not extractor.sha256"):
        DINOv2(architecture="vits", path=str(published), sha256="0" * 64).prepare()
    foreign = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(UserMistake, match="is not dinov2-vits14"):
        DINOv2(architecture="vits", path=str(foreign), sha256=None).prepare()
    with pytest.raises(UserMistake, match="vits, vitb, vitl"):
        DINOv2(architecture="vitx", path=None, sha256=None)


@pytest.mark.slow
def test_scores_that_need_labels_stay_away(tmp_path, cache, published):
    choice = ["extractor=dinov2", "extractor.architecture=vits", f"extractor.path={published}"]
    fewer = ["dataset.validation=1500", "dataset.test=100", "evaluation.num_samples=64"]
    run = make(tmp_path, cache, "model=noise", *choice, *fewer)
    assert train.main([str(run)]) == 0
    names = [score.name for score in read_result(run).scores]
    assert "fd_dinov2-vits14" in names
    assert not any(name.startswith(("is_", "class_tv")) for name in names)
