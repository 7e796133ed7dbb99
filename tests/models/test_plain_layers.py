"""Decoders taken apart: the same pictures, in JavaScript too."""

import base64
from importlib.resources import files

import pytest
import torch
from torch import nn

from fixtures.browser import in_node, needs_node
from fixtures.decoders import DIMS, gan, made, made_conditional, vae
from genbench.losses.likelihood import Gaussian
from genbench.models import plain_layers
from genbench.models.batch_statistics import recalibrated
from genbench.models.drawing import evaluating
from genbench.models.fsq import FSQ
from genbench.models.plain_layers import CannotBeExported, plain_decoder
from genbench.networks.mlp import MLPDecoder
from genbench.networks.resnet import ResnetDecoder

MODELS, CONDITIONAL = made(), made_conditional()
DECODES = """
function main({ spec, latents, labels }) {
  const decode = decoding.decoder(spec);
  return latents.map((z, i) => Array.from(decode(z, labels[i])));
}
"""


def spec_of(model) -> dict:
    """What a page is given."""
    found = plain_decoder(model)
    side = model.sample(torch.zeros(2, DIMS)).shape
    data = base64.b64encode(found.flat().numpy().astype("<f2").tobytes()).decode()
    cards = [dict(layer.card) for layer in found.layers]
    return {
        "layers": cards,
        "output": found.output,
        "data": data,
        "image_size": side[-1],
        "channels": side[1],
        "latent_dim": DIMS,
        **({"labels": found.labels.card} if found.labels else {}),
    }


def pictures(model, latents, *labels) -> torch.Tensor:
    """PyTorch's, in grey levels, channels last."""
    with recalibrated(model), evaluating(model):
        images = model.sample(latents, *labels)
    return ((images.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).flatten(1)


@needs_node
@pytest.mark.parametrize("name", MODELS)
def test_javascript_decodes_what_pytorch_does(name):
    model = MODELS[name]
    latents = torch.randn(8, DIMS, generator=torch.Generator().manual_seed(5))
    expected = pictures(model, latents)
    assert expected.std() > 20  # grey levels: there is something to see
    code = files("genbench.comparison.page").joinpath("decoder.js").read_text() + DECODES
    found = in_node(code, {"spec": spec_of(model), "latents": latents.tolist(), "labels": []})
    assert (torch.tensor(found) - expected).abs().max() <= 2


@needs_node
@pytest.mark.parametrize("name", CONDITIONAL)
def test_javascript_decodes_every_label_as_pytorch_does(name):
    model, none = CONDITIONAL[name], "none" in name
    if "classes" in name:
        labels = torch.tensor([0, 1, 2, *[-1] * none])
        given = [0, 1, 2, *[None] * none]
    else:
        labels = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], *[[-1, -1]] * none])
        given = [[0, 0], [0, 1], [1, 0], [1, 1], *[None] * none]
    latent = torch.randn(DIMS, generator=torch.Generator().manual_seed(5))
    latents = latent.expand(len(labels), -1)
    expected = pictures(model, latents, labels)
    apart = torch.cdist(expected, expected, p=float("inf")) + 255 * torch.eye(len(labels))
    assert apart.min() > 20  # grey levels between the pictures of any two labels
    code = files("genbench.comparison.page").joinpath("decoder.js").read_text() + DECODES
    found = in_node(code, {"spec": spec_of(model), "latents": latents.tolist(), "labels": given})
    assert (torch.tensor(found) - expected).abs().max() <= 2


def test_the_labels_of_a_decoder_count_among_its_weights(monkeypatch):
    faces = plain_decoder(CONDITIONAL["attributes"]).labels
    assert faces.card["first"] == [1, 1]  # the commonest of its training images
    assert faces.rows.shape == (3, 3)  # two attributes and what they are added to
    model = CONDITIONAL["classes or none"]
    found = plain_decoder(model)
    assert found.labels.rows.shape == (4, 3)  # three classes and none
    assert torch.equal(found.flat()[-12:].view(4, 3)[3], model.decoder.label.none.half())
    weights = len(found.flat())
    assert weights == 12 + sum(p.numel() for p in model.decoder.network.parameters())
    monkeypatch.setattr(plain_layers, "MOST_WEIGHTS", weights - 1)
    with pytest.raises(CannotBeExported, match=f"its decoder has {weights:,} weights"):
        plain_decoder(model)


def test_what_makes_an_image_of_the_last_layer_is_found_out():
    outputs = {name: plain_decoder(model).output for name, model in MODELS.items()}
    assert outputs.pop("mlp") == "clamp"
    assert outputs.pop("mlp, bernoulli") == "sigmoid"
    assert set(outputs.values()) == {"tanh"}


def test_a_decoder_that_cannot_be_taken_apart_says_why(monkeypatch):
    def why(model):
        with pytest.raises(CannotBeExported) as told:
            plain_decoder(model)
        return str(told.value)

    resnet = ResnetDecoder(image_size=32, channels=1, latent_dim=DIMS, width=2)
    assert "ResnetDecoder, no chain of layers" in why(gan(resnet))
    assert "a layer Hardtanh" in why(gan(nn.Sequential(nn.Linear(DIMS, 4), nn.Hardtanh())))
    norm_first = nn.Sequential(nn.BatchNorm1d(DIMS), nn.Linear(DIMS, 4), nn.Unflatten(1, (1, 2, 2)))
    assert "BatchNorm that follows no linear layer" in why(gan(norm_first))
    assert "no chain" in why(gan(nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.ReLU())))
    narrow = nn.Sequential(nn.Linear(DIMS, 4), nn.Unflatten(1, (1, 4, 1)))
    assert "no square pictures" in why(gan(narrow))
    without = gan(nn.Sequential(nn.Linear(DIMS, 4)))
    del without.decoder
    assert "it has no decoder" in why(without)
    huge = vae(MLPDecoder(8, 1, DIMS, 16, 1), Gaussian())
    with torch.no_grad():
        huge.decoder.layers[0].weight.mul_(1e6)  # float16 ends at 65 504
        huge.decoder.layers[2].weight.mul_(1e-6)
    assert "in half precision its pictures are off by" in why(huge)
    monkeypatch.setattr(plain_layers, "MOST_WEIGHTS", 100)
    assert "its decoder has 1,168 weights" in why(vae(MLPDecoder(8, 1, DIMS, 16, 1), Gaussian()))


def test_latents_that_are_no_draws_of_a_normal_are_not_walked_through():
    own = vae(MLPDecoder(8, 1, DIMS, 16, 1), Gaussian())
    own.__class__ = type("Other", (type(own),), {"latents": FSQ.latents})
    with pytest.raises(CannotBeExported, match="no draws of N"):
        plain_decoder(own)
