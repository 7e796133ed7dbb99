"""The Inception of 2015: its graph against torch-fidelity, its weights against their digest."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fixtures.extractors import draw_pixels
from genbench.errors import GenbenchError, UserMistake
from genbench.metrics.extractors import INCEPTION_SHA256, inception, sha256_of
from genbench.metrics.extractors.inception import Inception
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.extractors.resizing import tf1_bilinear


@pytest.fixture(scope="module")
def published():
    """Weights of the published file's names and shapes, drawn so that no layer fades out."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    state = {}
    for name, weight in inception.Network().state_dict().items():
        block = name.removesuffix(".weight")
        if name.startswith("fc."):
            state[name] = normal(*weight.shape) * 0.05
        elif name.endswith(".weight"):
            n = len(weight)
            state[f"{block}.conv.weight"] = normal(*weight.shape) * (2 / weight[0].numel()) ** 0.5
            state[f"{block}.bn.weight"] = normal(n) * 0.1 + 1.1
            state[f"{block}.bn.bias"] = normal(n) * 0.1
            state[f"{block}.bn.running_mean"] = normal(n) * 0.1
            state[f"{block}.bn.running_var"] = normal(n).abs() + 0.5
            state[f"{block}.bn.num_batches_tracked"] = torch.tensor(0)
    return state


@pytest.fixture(scope="module")
def network(published):
    extractor = Inception(resize="tf1-bilinear", path=None, cache="nowhere")
    extractor.load(published)
    return extractor


@pytest.mark.slow
def test_the_inception_graph_is_that_of_torch_fidelity(published, network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(published, path)
    reference = FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )
    pixels = draw_pixels()
    features, logits = reference(pixels)
    found = network(pixels, 256)
    assert float(features.std()) > 0.1
    assert float((found.features - features).norm() / features.norm()) < 1e-5
    assert float((found.logits - logits).norm() / logits.norm()) < 1e-5
    assert found.features.dtype == torch.float32


def test_a_folded_convolution_that_gives_other_numbers_is_refused(published):
    other = {
        **published,
        "Mixed_6c.branch7x7_2.bn.bias": published["Mixed_6c.branch7x7_2.bn.bias"] + 0.01,
    }
    with torch.device("meta"):
        network = inception.Network()
    network.load_state_dict(inception.folded(published), assign=True)
    inception.check_folded(network, published)
    with pytest.raises(GenbenchError, match=r"Mixed_6c.branch7x7_2 of the Inception"):
        inception.check_folded(network, other)


def test_autocast_around_an_extractor_changes_no_bit(network):
    classifier = LeNet("lenet-digits-v1")
    for extractor, pixels, levels in (
        (network, draw_pixels(n=1), 256),
        (classifier, draw_pixels(n=4, channels=1, size=8, levels=17), 17),
    ):
        alone = extractor(pixels, levels)
        with torch.autocast("cpu", torch.bfloat16):
            inside = extractor(pixels, levels)
        assert inside.features.dtype == inside.logits.dtype == torch.float32
        assert torch.equal(inside.features, alone.features)
        assert torch.equal(inside.logits, alone.logits)


def test_images_of_two_channels_are_refused(network):
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        network(draw_pixels(channels=2), 256)


def test_grey_images_are_repeated_and_levels_stretched(network):
    grey = draw_pixels(n=2, channels=1, size=8, levels=17)
    colour = (grey.float() * 255 / 16).expand(-1, 3, -1, -1)
    expected = network.network((tf1_bilinear(colour) - 128) / 128).features
    assert torch.allclose(network(grey, 17).features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(network, monkeypatch):
    pixels = draw_pixels(n=3)
    whole = network(pixels, 256).features
    monkeypatch.setattr(inception, "BATCH_ON_CPU", 2)
    assert torch.allclose(network(pixels, 256).features, whole, rtol=1e-4, atol=1e-5)


def test_the_two_resizes_have_names_and_cards_of_their_own():
    plain, clean = (
        Inception(resize=resize, path=None, cache="nowhere") for resize in inception.RESIZES
    )
    assert plain.name == "inception-2015"
    assert clean.name == "inception-2015-clean"
    assert plain.card != clean.card
    assert plain.card["sha256"] == INCEPTION_SHA256
    with pytest.raises(UserMistake, match="extractor.resize='area'"):
        Inception(resize="area", path=None, cache="nowhere")


def test_other_weights_than_the_pinned_ones_are_refused(published, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(published, path)
    with pytest.raises(UserMistake, match="is not the Inception of 2015"):
        Inception(resize="tf1-bilinear", path=str(path), cache=str(tmp_path)).prepare()
    with pytest.raises(UserMistake, match="there is no such file"):
        Inception(resize="tf1-bilinear", path="absent.pth", cache=str(tmp_path)).prepare()


def test_no_extractor_moves_the_global_generator(published):
    before = torch.get_rng_state()
    LeNet("lenet-digits-v1").prepare()
    Inception(resize="tf1-bilinear", path=None, cache="nowhere").load(published)
    assert torch.equal(torch.get_rng_state(), before)


class CutShort(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 600)

    def log_message(self, *arguments):
        pass


def test_without_a_network_there_is_a_sentence_and_no_other_extractor(tmp_path):
    with pytest.raises(UserMistake, match=r"cannot be fetched.*extractor\.path="):
        inception.fetch(tmp_path / "cache" / "weights.pth", (tmp_path / "absent").as_uri())
    assert not list((tmp_path / "cache").glob("*weights*"))


def test_what_is_fetched_is_whole_or_not_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "cache" / "weights.pth"
    source.write_bytes(b"weights")
    with pytest.raises(UserMistake, match="is not the Inception"):
        inception.fetch(target, source.as_uri())
    assert [path.name for path in target.parent.iterdir()] == [".lock"]
    inception.fetch(target, source.as_uri(), sha256_of(source))
    assert target.read_bytes() == b"weights"
    source.unlink()
    inception.fetch(target, source.as_uri())  # it is there: nobody looks for the source


def test_a_download_that_ends_early_says_so_and_where_the_file_belongs(tmp_path):
    with HTTPServer(("127.0.0.1", 0), CutShort) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        target = tmp_path / "weights.pth"
        with pytest.raises(UserMistake, match="ended after 600 of 1,000 bytes") as found:
            inception.fetch(target, f"http://127.0.0.1:{server.server_port}/weights.pth")
    assert f"put it at {target}" in str(found.value)
    assert not list(tmp_path.glob("*weights*"))
